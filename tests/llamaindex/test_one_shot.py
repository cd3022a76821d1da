"""LlamaIndex on programs that answer once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from llamaindex_localllama import LocalLlama
from localllama._runtime import resolve
from support.one_shot_program import make_one_shot_program

pytestmark = pytest.mark.filterwarnings("ignore:.*(loopback port without a key|No llama.cpp server works)")


class Animal(BaseModel):
    """An animal."""

    name: Literal["cat", "dog"]
    legs: Literal[2, 4]


def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@pytest.fixture(params=["llama-completion", "llama-cli"])
def llm(
    request: pytest.FixtureRequest,
    llama_bin: Path,
    smollm2_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[LocalLlama]:
    (tmp_path / str(request.param)).symlink_to(llama_bin / str(request.param))
    monkeypatch.setattr(resolve, "_PREFIXES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with LocalLlama(
        model=str(smollm2_model), runtime="one-shot", n_ctx=1024, n_threads=1, temperature=0, max_tokens=32
    ) as llm:
        yield llm


def test_structured_predict_tools_and_streams(llm: LocalLlama) -> None:
    animal = llm.structured_predict(Animal, PromptTemplate("Which animal says {sound}?"), sound="woof")
    assert isinstance(animal, Animal)
    answer = llm.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg="Sunny in Rome?", tool_required=True)
    (call,) = llm.get_tool_calls_from_response(answer)
    assert call.tool_name == "weather"
    assert isinstance(call.tool_kwargs["city"], str)
    pieces = [piece.delta for piece in llm.stream_chat([ChatMessage("Count to three.")])]
    assert len(pieces) > 2
    assert "".join(piece or "" for piece in pieces) == llm.chat([ChatMessage("Count to three.")]).message.content
    assert llm.complete("The capital of France is").text


async def test_async(llm: LocalLlama) -> None:
    answer = await llm.achat([ChatMessage("Say yes.")])
    assert answer.message.content


_COUNTS_NOTHING = "out.write(b'Hello there. [end of text]\\n\\n\\n')"


async def test_estimated_usage_is_told_as_such(micro_model: Path, tmp_path: Path) -> None:
    program = make_one_shot_program(tmp_path, _COUNTS_NOTHING)
    hello = [ChatMessage("Hi")]
    with LocalLlama(model=str(micro_model), runtime=str(program), n_ctx=512, n_threads=1) as llm:
        *_, streamed = llm.stream_chat(hello)
        for response in (llm.chat(hello), await llm.achat(hello), streamed, llm.complete("Hi")):
            assert isinstance(response.raw, dict)
            usage = response.raw["usage"]
            assert usage["is_estimated"] is True
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_counted_usage_is_not_told_to_be_estimated(micro_model: Path) -> None:
    with LocalLlama(model=str(micro_model), runtime="embedded", n_ctx=512, n_threads=1, max_tokens=4) as llm:
        raw = llm.complete("Hi").raw
    assert isinstance(raw, dict)
    assert "is_estimated" not in raw["usage"]
