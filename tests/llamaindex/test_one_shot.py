"""LlamaIndex on programs that answer once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from llamaindex_localllama import LocalLlama
from support.one_shot_program import REAL_PROGRAMS, leave_only, make_one_shot_program

pytestmark = pytest.mark.filterwarnings("ignore:.*(loopback port without a key|No llama.cpp server works)")


SETTINGS: dict[str, Any] = {"n_ctx": 1024, "n_threads": 1, "temperature": 0, "max_tokens": 32}


class Animal(BaseModel):
    """An animal."""

    name: Literal["cat", "dog"]
    legs: Literal[2, 4]


def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@pytest.fixture(params=REAL_PROGRAMS)
def llm(
    request: pytest.FixtureRequest,
    llama_bin: Path,
    smollm2_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[LocalLlama]:
    leave_only(request.param, llama_bin, tmp_path, monkeypatch)
    with LocalLlama(model=str(smollm2_model), runtime="one-shot", **SETTINGS) as llm:
        yield llm


def script(llm: LocalLlama) -> list[object]:
    """What a user might do."""
    animal = llm.structured_predict(Animal, PromptTemplate("Which animal says {sound}?"), sound="woof")
    answer = llm.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg="Sunny in Rome?", tool_required=True)
    return [
        animal,
        [(call.tool_name, call.tool_kwargs) for call in llm.get_tool_calls_from_response(answer)],
        llm.complete("The capital of France is").text,
    ]


def test_the_same_script_gives_the_same_results_as_on_the_server(
    llm: LocalLlama, llama_bin: Path, smollm2_model: Path
) -> None:
    """The server of the same build, without a prompt cache: with one, or of another build, the sums differ a little."""
    results = script(llm)
    assert isinstance(results[0], Animal)
    assert isinstance(results[1], list)
    ((name, arguments),) = results[1]
    assert (name, [*arguments]) == ("weather", ["city"])
    settings = {**SETTINGS, "extra_body": {"cache_prompt": False}}
    with LocalLlama(model=str(smollm2_model), runtime=str(llama_bin / "llama-server"), **settings) as server:
        assert script(server) == results


async def test_streams_and_async(llm: LocalLlama) -> None:
    question = [ChatMessage("Count to three.")]
    pieces = [piece.delta async for piece in await llm.astream_chat(question)]
    assert len(pieces) > 2
    answer = await llm.achat(question)
    assert "".join(piece or "" for piece in pieces) == answer.message.content


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
