"""How the models of seven families write a call, and what is asked of them."""

# ruff: noqa: RUF001  # the signs of these templates look like others
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from localllama import ChatRequest, Message, ToolSpec

CITIES = ["Paris", "Rome"]
WEATHER = ToolSpec(
    "get_weather",
    "The weather in a city.",
    {
        "type": "object",
        "properties": {"city": {"enum": CITIES}, "unit": {"const": "celsius"}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
)
ASKS_WEATHER = ChatRequest((Message("user", "What is the weather in Paris?"),), tools=(WEATHER,))
PARIS = {"city": "Paris", "unit": "celsius"}
THOUGHT = "I must look."
_ARGUMENTS = json.dumps(PARIS)
_HERMES = f'<tool_call>\n{{"name": "get_weather", "arguments": {_ARGUMENTS}}}\n</tool_call>'


@dataclass(frozen=True)
class Family:
    """A template of llama.cpp's, and what a model that knows it would write.

    Attributes:
        template: The file.
        says: A call, after some thinking where the family thinks.
        is_thinking: Whether it does.
    """

    template: str
    says: str
    is_thinking: bool = False

    def served(self) -> pytest.MarkDecorator:
        """The mark for a test with a model that says it."""
        return pytest.mark.served(model="parrot", says=self.says, template=self.template, n_ctx=16384)


FAMILIES = {
    "qwen": Family("Qwen-Qwen3-0.6B", f"<think>\n{THOUGHT}\n</think>\n\n{_HERMES}", is_thinking=True),
    "llama3": Family("meta-llama-Llama-3.1-8B-Instruct", f'{{"name": "get_weather", "parameters": {_ARGUMENTS}}}'),
    "mistral": Family(
        "mistralai-Mistral-Nemo-Instruct-2407",
        f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {_ARGUMENTS}, "id": "abcdefghi"}}]',
    ),
    "gemma": Family(
        "google-gemma-4-31B-it", '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,unit:<|"|>celsius<|"|>}<tool_call|>'
    ),
    "gpt-oss": Family(
        "openai-gpt-oss-120b",
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant"
        f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{_ARGUMENTS}",
        is_thinking=True,
    ),
    "deepseek": Family(
        "llama-cpp-deepseek-r1",
        f"{THOUGHT}\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        f"```json\n{_ARGUMENTS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        is_thinking=True,
    ),
    "hermes": Family("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", _HERMES),
}
EACH_FAMILY = [pytest.param(family, id=name, marks=family.served()) for name, family in FAMILIES.items()]
EACH_TEMPLATE = [
    pytest.param(family, id=name, marks=pytest.mark.served(model="micro", template=family.template))
    for name, family in FAMILIES.items()
]
THINKING = [param for param in EACH_FAMILY if param.values[0].is_thinking]

TWO_CALLS = pytest.mark.served(
    model="parrot", says=f"{_HERMES}\n{_HERMES.replace('Paris', 'Rome')}", template="Qwen-Qwen3-0.6B", n_ctx=16384
)
THINKS_AND_ANSWERS = pytest.mark.served(
    model="parrot", says=f"<think>\n{THOUGHT}\n</think>\n\nIt is Paris, naïve friend: 你好!", template="Qwen-Qwen3-0.6B"
)
UNREADABLE = pytest.mark.served(
    model="parrot",
    says=f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>nonsense<|start|>",
    template="openai-gpt-oss-120b",
    n_ctx=16384,
)
"""A message in a channel that there is not, which llama.cpp's parser does not forgive."""


def is_weather(arguments: Any) -> bool:
    """Whether arguments are such as the tool takes."""
    values = json.loads(arguments) if isinstance(arguments, str) else arguments
    return set(values) == {"city", "unit"} and values["city"] in CITIES and values["unit"] == "celsius"
