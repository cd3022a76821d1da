"""A client that is dropped after an error gives its server up at once, and not when the garbage collection comes by."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from localllama import (
    AsyncLocalLlamaClient,
    ChatRequest,
    ConfigurationError,
    ContextOverflowError,
    LocalLlamaClient,
    LocalLlamaError,
    Message,
    RequestTimeoutError,
    SamplingSettings,
    ServerConnectionError,
    ServerSettings,
    StreamInterruptedError,
    TimeoutSettings,
)
from support.micro_model import build_micro_model
from support.waiting import wait_until

HELLO = ChatRequest((Message("user", "Hello"),))
N_CTX = 65536  # an answer of a micro model that is not at its end before the test is
LONG = ChatRequest((Message("user", "Hello " * 12_000),))
NO_SCHEMA = ChatRequest(
    HELLO.messages, response_format={"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}
)
SHORT = SamplingSettings(max_tokens=3)
ENDLESS = SamplingSettings(max_tokens=-1, ignore_eos=True)
NO_TIME = TimeoutSettings(total_seconds=0.05)


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    model = build_micro_model(tmp_path / "endless.gguf", n_ctx_train=N_CTX)
    built: ServerSettings = ServerSettings.build({"model": str(model), "n_ctx": N_CTX})
    return built


def _kill(client: LocalLlamaClient) -> None:
    assert client.server_pid is not None
    os.kill(client.server_pid, signal.SIGKILL)


def _dies_before_the_call(client: LocalLlamaClient) -> None:
    client.start()
    _kill(client)
    client.chat(HELLO, sampling=SHORT)


def _dies_in_the_answer(client: LocalLlamaClient) -> None:
    stream = client.stream_chat(HELLO, sampling=ENDLESS)
    assert next(chunk.text for chunk in stream if chunk.text)
    _kill(client)
    for _ in stream:
        continue


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda client: client.chat(LONG), ContextOverflowError),
        (lambda client: list(client.stream_chat(LONG)), ContextOverflowError),
        (lambda client: client.chat(NO_SCHEMA), ConfigurationError),
        (lambda client: client.chat(HELLO, sampling=ENDLESS, timeouts=NO_TIME), RequestTimeoutError),
        (lambda client: client.detokenize([10**6]), LocalLlamaError),
        (_dies_before_the_call, None),
        (_dies_in_the_answer, StreamInterruptedError),
    ],
    ids=["overflow", "in a stream", "schema", "time", "question", "dies before", "dies within"],
)
def test_nothing_keeps_a_client_but_its_owner(
    settings: ServerSettings, act: Callable[[LocalLlamaClient], Any], expected: type[LocalLlamaError] | None
) -> None:
    client = LocalLlamaClient(settings)
    client.start()
    with pytest.raises(expected) if expected is not None else contextlib.nullcontext():
        act(client)
    pid, reference = client.server_pid, weakref.ref(client)
    del client
    assert reference() is None
    if pid is not None:
        wait_until(lambda: not psutil.pid_exists(pid), what="the server's end")


@pytest.mark.filterwarnings("ignore:.*is passed over:localllama.LocalLlamaWarning")
def test_nor_do_programs_that_were_passed_over(settings: ServerSettings) -> None:
    client = LocalLlamaClient(settings.with_changes({"runtime": "/bin/false"}))
    client.start()
    reference = weakref.ref(client)
    del client
    assert reference() is None


@pytest.mark.parametrize("request_", [LONG, NO_SCHEMA], ids=["overflow", "schema"])
def test_nor_an_async_one(settings: ServerSettings, request_: ChatRequest) -> None:
    async def run() -> weakref.ref[AsyncLocalLlamaClient]:
        client = AsyncLocalLlamaClient(settings)
        with pytest.raises(LocalLlamaError):
            await client.chat(request_)
        return weakref.ref(client)

    assert asyncio.run(run())() is None


def test_an_error_that_is_kept_keeps_the_variables_of_the_caller_and_no_client() -> None:
    """A debugger has what the user's own functions know; what is said between the client and its server goes."""
    client = LocalLlamaClient(ServerSettings.build({"base_url": "http://127.0.0.1:9"}), max_retries=1)
    seen_by_the_caller = "mine"
    with pytest.raises(ServerConnectionError) as caught:
        client.tokenize("a conversation")
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert frames[0].f_locals["seen_by_the_caller"] == seen_by_the_caller
    names = {frame.f_globals["__name__"]: frame.f_locals for frame in frames[2:]}
    assert "localllama._transports.http" in names, "it still tells where it came from"
    assert not any(frame.f_locals for frame in frames[-3:])
