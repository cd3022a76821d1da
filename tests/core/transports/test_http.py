"""The HTTP transport against a socket that sends exactly what a test says."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from core.transports.conftest import CHAT, Twin
from localllama import (
    AuthenticationError,
    ClientClosedError,
    ContextOverflowError,
    LocalLlamaError,
    MalformedResponseError,
    ServerConnectionError,
    StreamInterruptedError,
    TimeoutSettings,
)
from localllama._protocol.stream import ChatStreamParser
from localllama._transports.clock import CallClock
from localllama._transports.health import probe_health
from localllama._transports.http import AsyncHTTPTransport, HTTPTransport
from localllama.types import Endpoint
from support.golden_streams import ERROR, ROLE, TEXT, delta, progress
from support.raw_server import END, RESET, STALL, STREAM_HEAD, answer, chunk, raw_server

HELLO = STREAM_HEAD + chunk(ROLE + delta(content="Hello"))
NO_LIMITS = TimeoutSettings(connect_seconds=None, first_token_seconds=None, between_tokens_seconds=None)


def limits(**seconds: float) -> TimeoutSettings:
    return TimeoutSettings(**{f"{name}_seconds": value for name, value in seconds.items()})


@pytest.mark.parametrize("is_tcp", [False, True], ids=["unix", "tcp"])
def test_a_stream(twin: Twin, tmp_path: Path, is_tcp: bool) -> None:
    parser = ChatStreamParser()
    with raw_server(tmp_path, [STREAM_HEAD + chunk(TEXT) + END], is_tcp=is_tcp, api_key="k1") as server:
        chunks, error = twin.stream(server.endpoint, parser=parser, body={"messages": ["é\u2028"]})
    assert error is None
    assert "".join(item.text for item in chunks) == "Hé\u2028llo 😀"
    assert chunks[-1].usage is not None
    assert parser.result().finish_reason == "stop"
    (request,) = server.received
    assert request.head.startswith(f"POST {CHAT} HTTP/1.1\r\n")
    assert "Authorization: Bearer k1" in request.head
    assert "Content-Type: application/json" in request.head
    assert request.json == {"messages": ["é\u2028"]}
    assert "x-conversation-id" not in request.head.lower()  # it would keep the server generating after we left


def test_bytes_that_come_one_by_one(twin: Twin, tmp_path: Path) -> None:
    whole = STREAM_HEAD + chunk(TEXT) + END
    with raw_server(tmp_path, [whole[index : index + 1] for index in range(len(whole))]) as server:
        chunks, error = twin.stream(server.endpoint)
    assert error is None
    assert "".join(item.text for item in chunks) == "Hé\u2028llo 😀"


def test_the_end_mark_ends_the_call_without_waiting_for_the_end_of_the_body(twin: Twin, tmp_path: Path) -> None:
    with raw_server(tmp_path, [STREAM_HEAD + chunk(TEXT), STALL]) as server:
        _, error = twin.stream(server.endpoint, timeouts=limits(total=5))
        assert error is None
        server.wait_until_left()


@pytest.mark.parametrize("is_tcp", [False, True], ids=["unix", "tcp"])
def test_refusals_become_errors(twin: Twin, tmp_path: Path, is_tcp: bool) -> None:
    body = b'{"error":{"code":400,"message":"m","type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":8}}'
    wrong_key = b'{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}'
    with raw_server(tmp_path, [answer(400, body)], [answer(401, wrong_key)], is_tcp=is_tcp) as server:
        _, error = twin.stream(server.endpoint)
        assert isinstance(error, ContextOverflowError)
        assert (error.n_prompt_tokens, error.n_ctx) == (9, 8)
        with pytest.raises(AuthenticationError):
            twin.json(server.endpoint, "/props")


def test_a_refusal_with_status_200(twin: Twin, tmp_path: Path) -> None:
    body = b'{"error":{"code":400,"message":"m","type":"exceed_context_size_error"}}'
    with raw_server(tmp_path, [answer(200, body)]) as server:
        assert isinstance(twin.stream(server.endpoint)[1], ContextOverflowError)


def test_a_page_instead_of_a_stream(twin: Twin, tmp_path: Path) -> None:
    with raw_server(tmp_path, [answer(200, b"<html>", "text/html")]) as server:
        _, error = twin.stream(server.endpoint)
        assert isinstance(error, MalformedResponseError)
        assert "text/html" in str(error)
        with pytest.raises(MalformedResponseError):
            twin.json(server.endpoint, "/props")


@pytest.mark.parametrize("noise", [b"HTTP/1.1 abc\r\n\r\n", b"\x00\x01\x02" * 100, b"SSH-2.0-OpenSSH\r\n"])
def test_no_http_at_all(twin: Twin, tmp_path: Path, noise: bytes) -> None:
    with raw_server(tmp_path, [noise]) as server:
        _, error = twin.stream(server.endpoint)
    assert isinstance(error, ServerConnectionError)
    assert error.has_response


def test_an_error_event_comes_behind_the_chunks(twin: Twin, tmp_path: Path) -> None:
    with raw_server(tmp_path, [STREAM_HEAD + chunk(ERROR) + END]) as server:
        chunks, error = twin.stream(server.endpoint)
    assert [item.text for item in chunks] == ["Hel"]
    assert isinstance(error, ContextOverflowError)


def test_nobody_listens(twin: Twin, tmp_path: Path) -> None:
    _, error = twin.stream(Endpoint("http://localllama", socket_path=str(tmp_path / "none.sock")))
    assert isinstance(error, ServerConnectionError)
    assert (error.is_sent, error.has_response) == (False, False)
    assert "none.sock" in str(error)


def test_what_is_secret_in_an_address_is_not_shown(twin: Twin) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        port = bound.getsockname()[1]
        endpoint = Endpoint(f"http://user:hidden1@127.0.0.1:{port}/path?key=hidden2")
        _, error = twin.stream(endpoint)
    assert isinstance(error, ServerConnectionError)
    assert f"http://127.0.0.1:{port}/path" in str(error)
    assert "hidden" not in str(error)


@pytest.mark.parametrize("ending", [[RESET], []], ids=["reset", "closed"])
def test_a_break_before_the_answer(twin: Twin, tmp_path: Path, ending: list[Any]) -> None:
    with raw_server(tmp_path, ending) as server:
        _, error = twin.stream(server.endpoint)
        assert isinstance(error, ServerConnectionError)
        assert (error.is_sent, error.has_response) == (True, False)
        assert len(server.received) == 1  # nothing is sent twice behind the client's back


@pytest.mark.parametrize("ending", [[RESET], [], [END]], ids=["reset", "closed", "ended"])
def test_a_break_before_the_first_token(twin: Twin, tmp_path: Path, ending: list[Any]) -> None:
    with raw_server(tmp_path, [STREAM_HEAD + chunk(progress(0) + ROLE), *ending]) as server:
        chunks, error = twin.stream(server.endpoint)
    assert isinstance(error, ServerConnectionError)
    assert (error.is_sent, error.has_response) == (True, True)
    assert [item.text for item in chunks] == [""]


@pytest.mark.parametrize("ending", [[RESET], [], [END]], ids=["reset", "closed", "ended"])
def test_a_break_after_the_first_token(twin: Twin, tmp_path: Path, ending: list[Any]) -> None:
    with raw_server(tmp_path, [HELLO, *ending]) as server:
        chunks, error = twin.stream(server.endpoint)
    assert [item.text for item in chunks] == ["Hello"]
    assert isinstance(error, StreamInterruptedError)
    assert error.partial is not None
    assert (error.partial.text, error.partial.finish_reason) == ("Hello", None)


def test_an_end_behind_the_finish_reason_is_complete(twin: Twin, tmp_path: Path) -> None:
    with raw_server(tmp_path, [HELLO + chunk(delta("stop")) + END]) as server:
        _, error = twin.stream(server.endpoint)
    assert error is None


def test_two_event_loops_one_transport(tmp_path: Path) -> None:
    with raw_server(tmp_path, [answer(200, b'{"a":1}')]) as server:
        transport = AsyncHTTPTransport(server.endpoint)
        for _ in range(2):
            assert asyncio.run(transport.get_json("/x", NO_LIMITS)) == {"a": 1}


def test_streams_inside_streams(tmp_path: Path) -> None:
    with raw_server(tmp_path, [STREAM_HEAD + chunk(TEXT) + END]) as server:
        transport = HTTPTransport(server.endpoint)

        def nested(depth: int) -> int:
            count = 0
            for item in transport.stream(CHAT, {}, ChatStreamParser(), limits(total=20)):
                count += 1
                if item.text and depth:
                    count += nested(depth - 1)
            return count

        assert nested(4) == 6 * (2**5 - 1)  # six chunks in each of 1 + 2 + 4 + 8 + 16 streams


@pytest.mark.parametrize("is_left_early", [False, True])
def test_a_loop_without_hooks_for_generators_can_close_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_left_early: bool
) -> None:
    # The loop of nest_asyncio, which many a notebook has, is such a one: what is dropped in it cannot be awaited any more.
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)

    async def run(endpoint: Endpoint) -> None:
        sys.set_asyncgen_hooks(firstiter=None, finalizer=None)
        transport = AsyncHTTPTransport(endpoint)
        stream = transport.stream(CHAT, {}, ChatStreamParser(), limits(total=5))
        async for item in stream:
            if is_left_early and item.text:
                break
        await stream.aclose()
        del stream
        gc.collect()  # on Python 3.10 httpcore's generator is in a cycle; where no loop runs it could not be closed
        await transport.aclose()

    # The end mark, or the caller, ends the stream while the body goes on.
    with raw_server(tmp_path, [STREAM_HEAD + chunk(TEXT), STALL]) as server:
        asyncio.run(run(server.endpoint))
        server.wait_until_left()
    gc.collect()
    assert [str(fault.exc_value) for fault in ignored] == []


def test_proxies_and_passwords_of_the_environment_have_no_say(
    twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    passwords = tmp_path / "netrc"
    passwords.write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(passwords))
    with raw_server(tmp_path, [answer(200, b"{}")], is_tcp=True) as server:
        assert twin.json(server.endpoint, "/x", {"a": 1}) == {}
        assert "authorization" not in server.received[0].head.lower()


def test_keys_and_prompts_are_shown_nowhere(twin: Twin, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with raw_server(tmp_path, [HELLO, RESET], api_key="the-key") as server:
        _, error = twin.stream(server.endpoint, body={"messages": ["the-prompt"]})
        shown = [repr(HTTPTransport(server.endpoint)), repr(AsyncHTTPTransport(server.endpoint)), repr(server.endpoint)]
    shown += [str(error), repr(error), caplog.text, repr(error.__cause__) if error else ""]
    assert "the-key" in server.received[0].head
    assert not [text for text in shown if "the-key" in text or "the-prompt" in text]


def test_a_path_below_base_url(twin: Twin, tmp_path: Path) -> None:
    with raw_server(tmp_path, [answer(200, b"{}")], is_tcp=True) as server:
        twin.json(Endpoint(f"{server.endpoint.base_url}/llama"), "/props")
        assert server.received[0].head.startswith("GET /llama/props ")


def test_health(tmp_path: Path) -> None:
    loading = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
    with raw_server(tmp_path, [answer(503, loading)], [answer(200, b'{"status":"ok"}')], [STALL]) as server:
        assert [probe_health(server.endpoint, 0.3) for _ in range(3)] == ["loading", "ready", "unreachable"]
    assert probe_health(Endpoint("http://localllama", socket_path=str(tmp_path / "none")), 1) == "unreachable"


def _exception_classes(module: Any) -> list[type[Exception]]:
    return [
        item
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, Exception)
        and item.__module__.split(".")[0] == module.__name__
        and item.__name__ != "CookieConflict"  # of the cookie jar, which is not used
    ]


@pytest.mark.parametrize(
    "kind",
    _exception_classes(httpx) + _exception_classes(httpcore),
    ids=lambda kind: kind.__module__ + "." + kind.__name__,
)
def test_every_exception_of_the_libraries_is_ours_outside(kind: type[Exception]) -> None:
    error: Exception = kind.__new__(kind)
    transport = HTTPTransport(Endpoint("http://localllama", socket_path="/none"))
    with pytest.raises(LocalLlamaError) as caught, transport._mapped_errors(CallClock(TimeoutSettings())):
        raise error
    assert caught.value.__cause__ is error


def test_closing_just_before_the_request_is_sent_says_so() -> None:
    transport = HTTPTransport(Endpoint("http://127.0.0.1:9"))
    with pytest.raises(ClientClosedError), transport._mapped_errors(CallClock(TimeoutSettings())):
        transport.close()
        transport._client.get("/")
