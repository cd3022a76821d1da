"""LangChain on programs that answer once: the same script gives the same structured results as on the server."""

from __future__ import annotations

import asyncio
import functools
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psutil
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel, TypeAdapter

from langchain_localllama import ChatLocalLlama
from support.one_shot_program import REAL_PROGRAMS, leave_only, make_one_shot_program
from support.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.*(loopback port without a key|No llama.cpp server works)")


class Colour(BaseModel):
    """A colour."""

    name: Literal["red", "green", "blue"]
    is_warm: bool


@tool
def weather(city: Literal["Paris", "Rome"]) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@pytest.fixture(params=[name for name in REAL_PROGRAMS if name != "llama completion"])  # LlamaIndex's tests have it
def only_program(
    request: pytest.FixtureRequest, llama_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """One program on PATH and nothing else on the machine."""
    leave_only(request.param, llama_bin, tmp_path, monkeypatch)
    return str(request.param)


@pytest.fixture
def llm(only_program: str, smollm2_model: Path) -> Iterator[ChatLocalLlama]:
    with ChatLocalLlama(
        model=str(smollm2_model), n_ctx=1024, n_threads=1, temperature=0, max_tokens=32, env={"NAME": only_program}
    ) as llm:
        yield llm


def script(llm: ChatLocalLlama) -> list[object]:
    """What a user might do."""
    prompt = ChatPromptTemplate.from_messages([("system", "You know colours."), ("human", "{thing}?")])
    colour = (prompt | llm.with_structured_output(Colour)).invoke({"thing": "The sea"})
    call = (prompt | llm.bind_tools([weather], tool_choice="weather")).invoke({"thing": "Is it sunny in Rome"})
    return [colour, [(one["name"], one["args"]) for one in call.tool_calls]]


def test_the_same_script_gives_the_same_results_as_on_the_server(
    llm: ChatLocalLlama, smollm2_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = script(llm)
    assert isinstance(results[0], Colour)
    monkeypatch.undo()
    with ChatLocalLlama(
        model=str(smollm2_model), runtime="embedded", n_ctx=1024, n_threads=1, temperature=0, max_tokens=32
    ) as server:
        assert script(server) == results


def test_streams_chains_and_async(llm: ChatLocalLlama) -> None:
    question = [HumanMessage("Count from one to five.")]
    pieces = [chunk.content for chunk in llm.stream(question) if chunk.content]
    assert len(pieces) > 3
    whole = llm.invoke(question)
    assert "".join(map(str, pieces)) == whole.content
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] <= 32
    assert whole.response_metadata["finish_reason"] in ("stop", "length")

    async def later() -> None:
        assert (await llm.ainvoke(question)).content == whole.content
        task = asyncio.ensure_future(llm.ainvoke(question, max_tokens=900, extra_body={"ignore_eos": True}))
        started = await asyncio.to_thread(lambda: wait_until(_programs, seconds=20, what="the program"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(lambda: wait_until(lambda: not [p for p in started if p.is_running()], what="its end"))

    asyncio.run(later())


def _programs() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if Path(child.name()).name.startswith(("llama-completion", "llama-cli"))]


_COUNTS_NOTHING = "out.write(b'Hello there. [end of text]\\n\\n\\n')"


async def test_estimated_usage_is_told_as_such(micro_model: Path, tmp_path: Path) -> None:
    program = make_one_shot_program(tmp_path, _COUNTS_NOTHING)
    with ChatLocalLlama(model=str(micro_model), runtime=str(program), n_ctx=512, n_threads=1) as llm:
        whole = llm.invoke("Hi")
        chunks = list(llm.stream("Hi"))
        added = functools.reduce(operator.add, chunks)
        for message in (whole, await llm.ainvoke("Hi"), added):
            assert message.content == "Hello there."
            assert message.response_metadata["is_usage_estimated"] is True
            usage = TypeAdapter(UsageMetadata).validate_python(message.usage_metadata, strict=True)
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
            assert "is_usage_estimated" not in usage
        assert [chunk.response_metadata.get("is_usage_estimated") for chunk in chunks].count(True) == 1


def test_counted_usage_is_not_told_to_be_estimated(micro_model: Path) -> None:
    with ChatLocalLlama(model=str(micro_model), runtime="embedded", n_ctx=512, n_threads=1, max_tokens=4) as llm:
        message = llm.invoke("Hi")
    assert message.usage_metadata is not None
    assert "is_usage_estimated" not in message.response_metadata
