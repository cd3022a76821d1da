"""What is sent again and what is not: only what surely had no effect, and as often as the caller said."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from localllama import (
    AsyncLocalLlamaClient,
    ChatRequest,
    LocalLlamaClient,
    LocalLlamaError,
    Message,
    ServerBusyError,
    ServerConnectionError,
    ServerCrashedError,
    ServerSettings,
)
from support.fake_llama_server import Behaviour, make_fake_llama_server, recorded
from support.raw_server import RESET, RawServer, Step, answer, raw_server

HELLO = ChatRequest((Message("user", "Hello"),))
LOADING = answer(
    503, json.dumps({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}).encode()
)


def failure(server: RawServer, *, is_async: bool, max_retries: int) -> LocalLlamaError:
    settings = ServerSettings(base_url=server.endpoint.base_url)

    async def ask() -> None:
        async with AsyncLocalLlamaClient(settings, max_retries=max_retries) as client:
            await client.chat(HELLO)

    with pytest.raises(LocalLlamaError) as caught:
        if is_async:
            asyncio.run(ask())
        else:
            with LocalLlamaClient(settings, max_retries=max_retries) as client:
                client.chat(HELLO)
    return caught.value


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("script", "max_retries", "expected", "n_requests"),
    [
        pytest.param([RESET], 3, ServerConnectionError, 1, id="what may have arrived is sent once"),
        pytest.param([LOADING], 2, ServerBusyError, 3, id="a server that loads is asked again"),
        pytest.param([LOADING], 0, ServerBusyError, 1, id="but not if the caller does not want that"),
    ],
)
def test_how_often_it_is_sent(
    tmp_path: Path,
    script: list[Step],
    max_retries: int,
    expected: type[LocalLlamaError],
    n_requests: int,
    is_async: bool,
) -> None:
    with raw_server(tmp_path, script, is_tcp=True) as server:
        error = failure(server, is_async=is_async, max_retries=max_retries)
        assert isinstance(error, expected)
        assert len(server.received) == n_requests


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_call_that_kills_its_server_is_sent_to_the_next_one_and_no_further(
    tmp_path: Path, micro_model: Path, is_async: bool
) -> None:
    program = make_fake_llama_server(tmp_path, Behaviour(die_after_chunks=0))
    settings = ServerSettings(model=str(micro_model), runtime=str(program))

    async def ask() -> None:
        async with AsyncLocalLlamaClient(settings) as client:
            await client.chat(HELLO)

    with pytest.raises(ServerCrashedError):
        if is_async:
            asyncio.run(ask())
        else:
            with LocalLlamaClient(settings) as client:
                client.chat(HELLO)
    asked = [entry for entry in recorded(program, "request") if entry["path"] == "/v1/chat/completions"]
    assert len(asked) == len(recorded(program, "start")) == 2
