"""Every limit of a call fires, says its name, and covers all of the call, whatever part of it hangs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from localllama import (
    AsyncLocalLlamaClient,
    ChatRequest,
    LocalLlamaClient,
    Message,
    RequestTimeoutError,
    SamplingSettings,
    ServerSettings,
    TimeoutSettings,
)

MakeSettings = Callable[..., ServerSettings]
HELLO = ChatRequest((Message("user", "Hello"),))
NEW_SHAPE = ChatRequest((Message("user", "Hello"), Message("assistant", "Hi"), Message("user", "Again")))
SHORT = SamplingSettings(max_tokens=8)


@pytest.fixture
def frozen(make_settings: MakeSettings) -> Iterator[LocalLlamaClient]:
    """A client whose server is stopped: it takes connections and answers nothing."""
    with LocalLlamaClient(make_settings(), sampling=SHORT) as client:
        client.chat(HELLO)
        os.kill(client.server_pid or 0, signal.SIGSTOP)
        yield client


@pytest.mark.parametrize("limit", ["first_token", "total"])
@pytest.mark.parametrize("request_", [HELLO, NEW_SHAPE], ids=["a known form", "a form that has to be tried first"])
def test_a_frozen_server(limit: str, request_: ChatRequest, frozen: LocalLlamaClient) -> None:
    timeouts: TimeoutSettings = TimeoutSettings.build({f"{limit}_seconds": 0.4})
    with pytest.raises(RequestTimeoutError, match=rf"0\.4 s \({limit}_seconds\)") as caught:
        frozen.chat(request_, timeouts=timeouts)
    assert (caught.value.limit, caught.value.seconds) == (limit, 0.4)


def test_a_frozen_server_from_asyncio(frozen: LocalLlamaClient) -> None:
    async def ask() -> None:
        async with AsyncLocalLlamaClient(frozen.settings, sampling=SHORT) as client:
            await client.chat(NEW_SHAPE, timeouts=TimeoutSettings(total_seconds=0.4))

    with pytest.raises(RequestTimeoutError, match="total_seconds"):
        asyncio.run(ask())


def test_a_stream_that_stalls(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings(), sampling=SamplingSettings(max_tokens=4000, ignore_eos=True)) as client:
        stream = client.stream_chat(HELLO, timeouts=TimeoutSettings(between_tokens_seconds=0.4))
        next(chunk for chunk in stream if chunk.text)
        os.kill(client.server_pid or 0, signal.SIGSTOP)
        with pytest.raises(RequestTimeoutError, match="between_tokens_seconds"):
            for _ in stream:
                continue
        assert stream.result().text, "what came is still there"
