"""The server behind a `LocalLlama`: when it starts, who shares it, when it is gone, who gets its slot."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.node_parser import SentenceSplitter

from llamaindex_localllama import LocalLlama
from localllama import ClientClosedError, RequestTimeoutError
from support.micro_model import build_micro_model
from support.waiting import wait_until

HELLO = [ChatMessage("Hello")]


def server_pid(llm: LocalLlama) -> int | None:
    return llm._client.server_pid


def test_the_first_call_starts_one_server_that_all_share(micro_llm: LocalLlama) -> None:
    assert server_pid(micro_llm) is None
    micro_llm.chat(HELLO)
    pid = server_pid(micro_llm)
    for twin in (copy.copy(micro_llm), copy.deepcopy(micro_llm), pickle.loads(pickle.dumps(micro_llm))):
        assert server_pid(twin) is None or server_pid(twin) == pid
        twin.chat(HELLO)
        asyncio.run(twin.achat(HELLO))
        assert server_pid(twin) == pid
        twin.close()
    assert micro_llm.chat(HELLO).message.content, "a closed copy takes nothing from its original"
    assert server_pid(micro_llm) == pid


def test_another_window_is_another_server(micro_llm: LocalLlama) -> None:
    micro_llm.chat(HELLO)
    first = server_pid(micro_llm)
    micro_llm.n_ctx = 512
    micro_llm.chat(HELLO)
    assert server_pid(micro_llm) != first
    assert micro_llm.metadata.context_window == 512


@pytest.mark.parametrize("is_async", [False, True])
def test_with_ends_the_server_also_after_async_calls(micro_model: Path, is_async: bool) -> None:
    llm = LocalLlama(model=str(micro_model), n_ctx=256, max_tokens=4)

    async def use() -> int | None:
        async with llm:
            await llm.achat(HELLO)
            llm.chat(HELLO)
            return server_pid(llm)

    if is_async:
        pid = asyncio.run(use())
    else:
        with llm:
            asyncio.run(llm.achat(HELLO))
            llm.chat(HELLO)
            pid = server_pid(llm)
    assert pid is not None
    assert not psutil.pid_exists(pid)
    llm.close()
    with pytest.raises(ClientClosedError):
        llm.chat(HELLO)
    with pytest.raises(ClientClosedError):
        llm.tokenizer("x")
    with pytest.raises(ClientClosedError):
        asyncio.run(llm.achat(HELLO))


def test_a_dropped_object_ends_the_server(micro_model: Path) -> None:
    llm = LocalLlama(model=str(micro_model), n_ctx=256, max_tokens=4)
    llm.chat(HELLO)
    pid = server_pid(llm)
    assert pid is not None
    del llm
    wait_until(lambda: not psutil.pid_exists(pid), seconds=5, what="the end of the server")


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_micro_model(tmp_path_factory.mktemp("long") / "long.gguf", n_ctx_train=1 << 20)


class TestSlots:
    """One slot, and an answer that would take it for many seconds."""

    @pytest.fixture
    def llm(self, long_model: Path) -> Iterator[LocalLlama]:
        with LocalLlama(
            model=str(long_model), n_ctx=1 << 17, n_batch=64, additional_kwargs={"ignore_eos": True}
        ) as llm:
            yield llm

    def is_free(self, llm: LocalLlama, seconds: float) -> bool:
        try:
            return bool(llm.chat(HELLO, max_tokens=2, timeout=seconds).message.content)
        except RequestTimeoutError:
            return False

    def test_an_open_stream_holds_it(self, llm: LocalLlama) -> None:
        stream = llm.stream_chat(HELLO)
        next(stream)
        assert not self.is_free(llm, 1.0)
        stream.close()

    @pytest.mark.parametrize("name", ["stream_chat", "stream_complete"])
    def test_a_closed_stream_frees_it(self, llm: LocalLlama, name: str) -> None:
        stream = getattr(llm, name)(HELLO if name == "stream_chat" else "Hello")
        next(stream)
        stream.close()
        assert self.is_free(llm, 5.0)

    def test_a_dropped_stream_frees_it(self, llm: LocalLlama) -> None:
        stream = llm.stream_chat(HELLO)
        next(stream)
        del stream
        assert self.is_free(llm, 5.0)

    def test_a_closed_async_stream_frees_it(self, llm: LocalLlama) -> None:
        async def run() -> bool:
            stream = await llm.astream_chat(HELLO)
            await stream.__anext__()
            await stream.aclose()
            return bool((await llm.achat(HELLO, max_tokens=2, timeout=5.0)).message.content)

        assert asyncio.run(run())

    @pytest.mark.parametrize("is_streamed", [False, True])
    def test_a_cancelled_task_frees_it(self, llm: LocalLlama, is_streamed: bool) -> None:
        async def read(stream: AsyncIterator[ChatResponse], has_begun: asyncio.Event) -> None:
            async for _ in stream:
                has_begun.set()

        async def run() -> bool:
            has_begun = asyncio.Event()
            if is_streamed:
                task = asyncio.ensure_future(read(await llm.astream_chat(HELLO), has_begun))
                await has_begun.wait()
            else:
                await llm.achat(HELLO, max_tokens=1)  # the server runs
                task = asyncio.ensure_future(llm.achat(HELLO))  # type: ignore[arg-type]
                await asyncio.sleep(0.2)  # it generates for many seconds
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return bool((await llm.achat(HELLO, max_tokens=2, timeout=5.0)).message.content)

        assert asyncio.run(run())

    def test_a_call_out_of_time_frees_it_and_names_its_limit(self, llm: LocalLlama) -> None:
        llm.chat(HELLO, max_tokens=1)
        with pytest.raises(RequestTimeoutError) as caught:
            llm.chat(HELLO, timeout=0.3)
        assert caught.value.limit == "total"
        assert self.is_free(llm, 5.0)


def test_a_stream_that_is_left_at_the_end_of_a_loop_is_closed_in_silence(
    micro_llm: LocalLlama, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async for _ in await micro_llm.astream_chat(HELLO, max_tokens=500):
            break

    asyncio.run(run())
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_the_tokenizer_is_the_models_and_survives_pickling(micro_llm: LocalLlama) -> None:
    tokenizer = micro_llm.tokenizer
    assert server_pid(micro_llm) is None, "to have it starts nothing"
    assert tokenizer("abc") == tokenizer("abc") == [100, 101, 102], "the micro model's tokens are bytes"
    assert tokenizer("ü" * 100) == [3 + byte for byte in ("ü" * 100).encode()]
    tokenizer("abc").append(0)
    assert tokenizer("abc") == [100, 101, 102], "a caller's change of a list stays with the caller"
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again("abc") == [100, 101, 102]


def test_the_tokenizer_serves_settings_and_splitters(micro_llm: LocalLlama) -> None:
    Settings.tokenizer = micro_llm.tokenizer
    try:
        splitter = SentenceSplitter(chunk_size=60, chunk_overlap=0)
        chunks = splitter.split_text("One two three four five six seven. " * 8)
        assert all(len(micro_llm.tokenizer(chunk)) <= 60 for chunk in chunks)
        assert len(chunks) > 3
    finally:
        import llama_index.core

        Settings._tokenizer = None
        llama_index.core.global_tokenizer = None
