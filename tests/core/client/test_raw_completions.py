"""Answers of a fixed form as raw completions: where the chat template keeps llama.cpp's own grammar from the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from localllama import ChatRequest, LocalLlamaClient, Message, SamplingSettings, ServerSettings, ToolSpec

MakeSettings = Callable[..., ServerSettings]

CHANNELS = (
    "{%- for message in messages -%}<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>{%- endfor -%}"
    "{#- <|channel|>analysis -#}{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"
)
"""llama.cpp knows this family by its `<|channel|>`; a model that writes no channels escapes the grammar of its parser."""
NAMES = (
    "get weather",
    'say "hi"',
    "größe 日付",
    "back\\slash \\\\",
    "tab\tname",
    "it's: {a} [b]",
    "e\u0301 👍🏽",
    "del\x7f",
)
PARAMETERS = {
    "type": "object",
    "properties": {
        "city name": {"enum": ["New York", 'a "b"', "日 本"]},
        "n": {"type": "integer", "minimum": -5, "maximum": 50},
    },
    "required": ["city name"],
    "additionalProperties": False,
}


def test_names_and_constants_with_blanks_and_quotes_hold(make_settings: MakeSettings, tmp_path: Path) -> None:
    # A llama.cpp with llguidance writes the byte 0xE2 for the blank, where /completion is given the schema itself.
    template = tmp_path / "channels.jinja"
    template.write_text(CHANNELS)
    tools = tuple(ToolSpec(name, "Does it.", PARAMETERS) for name in NAMES)
    sampling = SamplingSettings(max_tokens=400, temperature=1.0, extra_body={"logit_bias": [[0, False], [1, False]]})
    with LocalLlamaClient(make_settings(chat_template_file=str(template)), sampling=sampling) as client:
        for seed, name in enumerate(NAMES):
            request = ChatRequest((Message("user", f"Seed {seed}."),), tools=tools, tool_choice=name)
            (call,) = client.chat(request, sampling=sampling.merged({"seed": seed})).tool_calls
            assert call.name == name
            jsonschema.validate(json.loads(call.arguments), PARAMETERS)
        request = ChatRequest((Message("user", "Any."),), tools=tools, tool_choice="required", parallel_tool_calls=True)
        assert {call.name for call in client.chat(request).tool_calls} <= set(NAMES)


@pytest.mark.parametrize("value", ["New York", 'a "b" \\', "日 本"])
def test_a_raw_completion_has_the_form_of_its_schema(make_settings: MakeSettings, value: str) -> None:
    schema = {"type": "object", "properties": {"is on": {"const": value}}, "required": ["is on"]}
    with LocalLlamaClient(make_settings()) as client:
        result = client.complete("Where? ", sampling=SamplingSettings(json_schema=schema, max_tokens=100))
    assert json.loads(result.text) == {"is on": value}
