"""What LangChain's own suites do not look at, on a real server with the micro model."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from langchain_core import exceptions as langchain_errors
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool

from langchain_localllama import ChatLocalLlama
from localllama import (
    ClientClosedError,
    ContextOverflowError,
    LocalLlamaError,
    ModelNotFoundError,
    RequestTimeoutError,
)
from support.micro_model import CHATML, build_micro_model
from support.waiting import wait_until

# Everything the model writes is thinking: the template opens it and the micro model never closes it.
THINKING = CHATML.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>\n' }}").replace(
    "{{ '<|im_start|>' +",
    "{% if message.reasoning_content %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endif %}"
    "{{ '<|im_start|>' +",
)


@pytest.fixture
def parameters(micro_model: Path) -> dict[str, Any]:
    return {"model": str(micro_model), "max_tokens": 16, "n_threads": 1, "temperature": 0}


@pytest.fixture
def llm(parameters: dict[str, Any]) -> Iterator[ChatLocalLlama]:
    with ChatLocalLlama(**parameters) as llm:
        yield llm


def server_pids(llm: ChatLocalLlama) -> set[int | None]:
    clients = llm._clients
    return {client.server_pid for client in [*clients._sync.values(), *clients._async.values()]}


def busy_slots(llm: ChatLocalLlama) -> int:
    """How many generations run on the server of this object, by its own word."""
    (client,) = llm._clients._sync.values()
    return sum(slot["is_processing"] for slot in client._ask("GET", "/slots", None))


# -- answers --------------------------------------------------------------------------------------------------------


def test_usage_and_timings_stand_on_one_chunk(llm: ChatLocalLlama) -> None:
    chunks = list(llm.stream("Hello"))
    assert sum(chunk.usage_metadata is not None for chunk in chunks) == 1
    assert sum("timings" in chunk.response_metadata for chunk in chunks) == 1
    assert sum("finish_reason" in chunk.response_metadata for chunk in chunks) == 1
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].chunk_position == "last"
    whole = llm.invoke("Hello")
    assert whole.usage_metadata["output_tokens"] == chunks[-1].usage_metadata["output_tokens"] == 16
    assert whole.response_metadata["finish_reason"] == "length"
    assert whole.response_metadata["timings"]["predicted_n"] == 16
    assert whole.response_metadata["model_name"] == llm.model


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_thinking_is_not_mixed_into_the_answer(parameters: dict[str, Any], version: str) -> None:
    arguments = {**parameters, "chat_template": THINKING, "output_version": version}
    with ChatLocalLlama(**arguments) as llm:
        whole = llm.invoke("Hello")
        assert whole.additional_kwargs["reasoning_content"]
        assert [block["type"] for block in whole.content_blocks] == ["reasoning"]
        assert whole.text == ""
        first, *rest = llm.stream("Hello")
        for chunk in rest:
            first += chunk
        assert [block["type"] for block in first.content_blocks] == ["reasoning"]
        assert first.content_blocks[0]["reasoning"] == whole.content_blocks[0]["reasoning"]
        # The thinking goes back with the next turn: its tokens are counted.
        turns = [HumanMessage("Hello"), whole, HumanMessage("Why?")]
        forgotten = [HumanMessage("Hello"), AIMessage(whole.text), HumanMessage("Why?")]
        assert llm.get_num_tokens_from_messages(turns) > llm.get_num_tokens_from_messages(forgotten)


def test_whole_conversations(llm: ChatLocalLlama) -> None:
    call = {"name": "weather", "args": {"city": "Rome"}, "id": "c1"}
    messages = [
        SystemMessage("Be brief."),
        HumanMessage("Weather?", name="ann"),
        AIMessage([{"type": "text", "text": "I look."}], tool_calls=[call]),
        ToolMessage("21 C", tool_call_id="c1"),
        ToolMessage("no such city", tool_call_id="c2", status="error"),
        AIMessage("21 C.", additional_kwargs={"reasoning_content": "easy"}),
        HumanMessage([{"type": "text", "text": "Thanks."}, "Bye."]),
    ]
    assert llm.invoke(messages).content


def test_malformed_calls_in_the_history_are_no_error(llm: ChatLocalLlama) -> None:
    broken = {"name": "weather", "args": '{"city": ', "id": "c1", "error": "cut off"}
    messages = [
        HumanMessage("Weather?"),
        AIMessage("", invalid_tool_calls=[broken]),
        ToolMessage("The call was not valid JSON.", tool_call_id="c1", status="error"),
    ]
    assert llm.invoke(messages).content


def test_logprobs(llm: ChatLocalLlama) -> None:
    message = llm.invoke("Hello", logprobs=True, top_logprobs=2, max_tokens=4)
    content = message.response_metadata["logprobs"]["content"]
    assert len(content) == 4
    assert all(len(entry["top_logprobs"]) == 2 for entry in content)
    assert all(entry["logprob"] <= 0 for entry in content)


def test_stop_strings_of_the_object_and_of_the_call(llm: ChatLocalLlama) -> None:
    text = llm.invoke("Hello").content
    assert llm.invoke("Hello", stop=[text[5]]).content == text[: text.index(text[5])]
    assert llm.model_copy(update={"stop": (text[5],)}).invoke("Hello").content == text[: text.index(text[5])]


def test_tokens_are_counted_by_the_model(llm: ChatLocalLlama) -> None:
    # The micro model's vocabulary is bytes.
    assert llm.get_token_ids("abc") == [3 + byte for byte in b"abc"]
    assert llm.get_num_tokens("Köln") == len("Köln".encode())
    messages = [HumanMessage("Hello")]
    counted = llm.get_num_tokens_from_messages(messages)
    assert counted == llm.invoke(messages).usage_metadata["input_tokens"]


def test_the_tools_are_counted_too(parameters: dict[str, Any]) -> None:
    @tool
    def weather(city: str) -> str:
        """Weather in a city."""
        return city

    template = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHATML
    with ChatLocalLlama(**parameters, chat_template=template) as llm:
        messages = [HumanMessage("Hello")]
        bare = llm.get_num_tokens_from_messages(messages)
        assert llm.get_num_tokens_from_messages(messages, tools=[weather]) > bare + len("Weather in a city.")


def test_a_chain(llm: ChatLocalLlama) -> None:
    chain = ChatPromptTemplate.from_messages([("system", "Be {mood}."), ("user", "{text}")]) | llm
    assert (
        chain.invoke({"mood": "brief", "text": "Hello"}).content
        == llm.invoke([("system", "Be brief."), ("user", "Hello")]).content
    )


# -- many at once ---------------------------------------------------------------------------------------------------


def test_a_batch_shares_one_server(parameters: dict[str, Any]) -> None:
    with ChatLocalLlama(**parameters, parallel=4) as llm:
        answers = llm.batch([f"Hello {n}" for n in range(12)], {"max_concurrency": 12})
        assert [answer.usage_metadata["output_tokens"] for answer in answers] == [16] * 12
        assert len(server_pids(llm)) == 1


async def test_an_async_batch_and_sync_calls_share_one_server(parameters: dict[str, Any]) -> None:
    async with ChatLocalLlama(**parameters, parallel=2) as llm:
        answers = await llm.abatch([f"Hello {n}" for n in range(8)])
        assert [answer.usage_metadata["output_tokens"] for answer in answers] == [16] * 8
        await asyncio.to_thread(llm.invoke, "Hello")
        assert len(server_pids(llm)) == 1


def test_one_loop_after_another_and_one_in_a_thread(llm: ChatLocalLlama) -> None:
    async def ask() -> str:
        streamed = [chunk.text async for chunk in llm.astream("Hello")]
        return (await llm.ainvoke("Hello")).text + "".join(streamed)

    answers = [asyncio.run(ask()), asyncio.run(ask())]
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(ask())))
    thread.start()
    thread.join(60)
    assert len(set(answers)) == 1
    assert len(answers) == 3


# -- giving up ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_micro_model(tmp_path_factory.mktemp("endless") / "endless.gguf", n_ctx_train=200_000)


@pytest.fixture
def endless(parameters: dict[str, Any], endless_model: Path) -> Iterator[ChatLocalLlama]:
    """An answer of 90,000 tokens: half a minute at the very least, so a slot that is free soon was freed."""
    own = {"model": str(endless_model), "n_ctx": 100_000, "max_tokens": 90_000, "ignore_eos": True}
    with ChatLocalLlama(**{**parameters, **own}) as llm:
        llm.start()
        yield llm


def assert_slot_is_freed(llm: ChatLocalLlama) -> None:
    wait_until(lambda: busy_slots(llm) == 0, seconds=5, what="a free slot")


def test_leaving_a_stream_frees_the_slot(endless: ChatLocalLlama) -> None:
    stream = endless.stream("Hello")
    next(stream)
    assert busy_slots(endless) == 1
    stream.close()
    assert_slot_is_freed(endless)


async def test_leaving_an_async_stream_frees_the_slot(endless: ChatLocalLlama) -> None:
    async for _ in endless.astream("Hello"):
        break
    await asyncio.to_thread(assert_slot_is_freed, endless)


@pytest.mark.parametrize("way", ["ainvoke", "astream"])
async def test_cancelling_a_task_frees_the_slot(endless: ChatLocalLlama, way: str) -> None:
    async def read() -> None:
        if way == "ainvoke":
            await endless.ainvoke("Hello")
        else:
            async for _ in endless.astream("Hello"):
                pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(wait_until, lambda: busy_slots(endless) == 1, what="a busy slot")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(assert_slot_is_freed, endless)


def test_a_time_limit_names_itself_and_frees_the_slot(endless: ChatLocalLlama) -> None:
    with pytest.raises(langchain_errors.ModelTimeoutError) as caught:
        endless.invoke("Hello", timeout=0.3)
    assert isinstance(caught.value, RequestTimeoutError)
    assert (caught.value.limit, caught.value.seconds) == ("total", 0.3)
    assert_slot_is_freed(endless)


def test_closing_while_another_thread_reads(endless: ChatLocalLlama) -> None:
    seen: list[BaseException] = []

    def read() -> None:
        try:
            for _ in endless.stream("Hello"):
                has_begun.set()
        except LocalLlamaError as error:
            seen.append(error)

    has_begun = threading.Event()
    thread = threading.Thread(target=read)
    thread.start()
    assert has_begun.wait(30)
    endless.close()
    thread.join(10)
    assert not thread.is_alive()
    assert [type(error).__name__ for error in seen] == ["ClientClosedError"]


# -- errors ---------------------------------------------------------------------------------------------------------


async def test_too_long_a_prompt(llm: ChatLocalLlama) -> None:
    prompt = "x" * 5000
    with pytest.raises(langchain_errors.ContextOverflowError) as caught:
        llm.invoke(prompt)
    assert isinstance(caught.value, ContextOverflowError)
    assert caught.value.n_ctx == llm.profile["max_input_tokens"] == 4096
    assert caught.value.n_prompt_tokens > 5000
    assert not caught.value.is_retryable
    with pytest.raises(langchain_errors.ContextOverflowError):
        _ = [chunk async for chunk in llm.astream(prompt)]


def test_no_such_model(tmp_path: Path) -> None:
    with ChatLocalLlama(model=str(tmp_path / "no.gguf")) as llm:
        with pytest.raises(langchain_errors.ModelNotFoundError) as caught:
            llm.invoke("Hello")
        assert isinstance(caught.value, ModelNotFoundError)
        assert "no.gguf" in str(caught.value)


# -- sharing and ending ---------------------------------------------------------------------------------------------


def test_copies_share_the_server_and_do_not_end_it(llm: ChatLocalLlama) -> None:
    llm.invoke("Hello")
    (pid,) = server_pids(llm)
    copies = [copy.copy(llm), copy.deepcopy(llm), llm.model_copy(update={"temperature": 0.5})]
    copies += [pickle.loads(pickle.dumps(llm)), ChatLocalLlama(model=llm.model, n_threads=1)]
    for other in copies:
        other.invoke("Hello", max_tokens=2)
        assert server_pids(other) == {pid}
        other.close()
    del copies, other
    assert psutil.pid_exists(pid)
    assert llm.invoke("Hello").content
    assert server_pids(llm) == {pid}


def test_closing_ends_the_server_and_every_later_call(parameters: dict[str, Any]) -> None:
    llm = ChatLocalLlama(**parameters)
    llm.invoke("Hello")
    (pid,) = server_pids(llm)
    llm.close()
    llm.close()
    wait_until(lambda: not psutil.pid_exists(pid), seconds=5, what="the server's end")
    with pytest.raises(ClientClosedError):
        llm.invoke("Hello")
    with llm.model_copy() as again:
        assert again.invoke("Hello").content


def test_a_dropped_object_ends_its_server(parameters: dict[str, Any]) -> None:
    llm = ChatLocalLlama(**parameters)
    llm.invoke("Hello")
    (pid,) = server_pids(llm)
    del llm
    wait_until(lambda: not psutil.pid_exists(pid), seconds=5, what="the server's end")


def test_a_cache_hit_starts_no_server(parameters: dict[str, Any]) -> None:
    cache = InMemoryCache()
    with ChatLocalLlama(**parameters, cache=cache) as first:
        answer = first.invoke("Hello")
    with ChatLocalLlama(**parameters, cache=cache) as second:
        assert second.invoke("Hello").content == answer.content
        assert server_pids(second) <= {None}


def test_two_models_in_one_object(llm: ChatLocalLlama, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(Path(llm.model).read_bytes())
    llm.invoke("Hello")
    answer = llm.invoke("Hello", model=str(other))
    assert answer.response_metadata["model_name"] == str(other)
    assert len(server_pids(llm)) == 2
