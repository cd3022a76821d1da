"""HTTP to a llama-server: the only module, with `connection`, that knows httpx. Two short twins; all parsing is below them.

Generation is always streamed, because closing a stream frees the server's slot at once and leaving any other request does
not. Retrying is not done here: `ServerConnectionError.is_sent` and `.has_response` tell the client what is safe.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from localllama._protocol.failures import error_from_response
from localllama._protocol.request import encode_body
from localllama._protocol.stream import StreamParser
from localllama.errors import (
    ClientClosedError,
    LocalLlamaError,
    MalformedResponseError,
    ServerConnectionError,
    StreamInterruptedError,
)
from localllama.settings import TimeoutSettings
from localllama.types import ChatChunk, Endpoint

from .clock import CallClock
from .connection import AsyncConnectionTransport, ConnectionTransport, LiveSockets

__all__ = ["AsyncHTTPTransport", "HTTPTransport"]

_OK, _STREAM = 200, "text/event-stream"
_ERROR_BODY_LIMIT_BYTES = 64 * 1024 * 1024  # that of a one-shot program holds all that it said: 16 MiB before escaping
_CONNECTION_HINT = "See whether the server still runs, and read its log."
_CERTIFICATE_HINT = "Name the file of the authority that signed the server's certificate in SSL_CERT_FILE."
_TIMEOUTS = (httpx.TimeoutException, httpcore.TimeoutException)
_BROKEN = (
    httpx.HTTPError,
    httpx.StreamError,
    httpx.InvalidURL,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable,
)


class _Base:
    """What both twins share: everything that does not wait."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._live = LiveSockets()
        self._is_closed = False
        self._headers = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "localllama"}
        if endpoint.api_key is not None:
            self._headers["Authorization"] = f"Bearer {endpoint.api_key}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._where})"

    @property
    def _where(self) -> str:
        if self._endpoint.socket_path is not None:
            return self._endpoint.socket_path
        url = urlsplit(self._endpoint.base_url)  # a name, a password or a key in it is nobody's business
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"

    def _options(self) -> dict[str, Any]:
        # Proxies of the environment are for transports that httpx makes itself.
        return {
            "base_url": self._endpoint.base_url,
            "headers": self._headers,
            "timeout": None,  # the clock of each call sets the limits
        }

    def _clock(self, timeouts: TimeoutSettings, began: float | None) -> CallClock:
        if self._is_closed:
            raise ClientClosedError("the connection to the server was closed", hint="Make a new client.")
        return CallClock(timeouts, began=began)

    def _close(self) -> None:
        self._is_closed = True
        self._live.shut_down()

    @contextlib.contextmanager
    def _mapped_errors(self, clock: CallClock, parser: StreamParser | None = None) -> Iterator[None]:
        try:
            yield
        except _TIMEOUTS as error:
            raise clock.error() from error
        except _BROKEN as error:
            if self._is_closed:
                raise ClientClosedError("the client was closed while it waited for the server") from error
            if parser is not None and parser.has_begun:
                raise parser.interrupted("the connection to the server broke") from error
            raise self._connection_error(clock, f"{type(error).__name__}: {error}") from error
        except LocalLlamaError:  # two of ours are OSErrors as well
            raise
        except OSError as error:  # no descriptor is left, say
            raise self._connection_error(clock, str(error)) from error
        except RuntimeError as error:  # httpx, if `close` came in between the look at the clock and the sending
            if self._is_closed:
                raise ClientClosedError("the client was closed while it waited for the server") from error
            raise

    def _connection_error(self, clock: CallClock, reason: str) -> ServerConnectionError:
        what = "the connection broke" if clock.is_sent else "no connection"
        return ServerConnectionError(
            f"{what}: {self._where} ({reason})",
            hint=_CERTIFICATE_HINT if "CERTIFICATE_VERIFY_FAILED" in reason else _CONNECTION_HINT,
            is_sent=clock.is_sent,
            has_response=clock.has_response,
        )

    def _finish(self, parser: StreamParser, clock: CallClock) -> list[ChatChunk]:
        try:
            return parser.close()
        except StreamInterruptedError as error:
            if self._is_closed:
                raise ClientClosedError("the client was closed while it waited for the server") from error
            if parser.has_begun:
                raise
            raise self._connection_error(clock, "the answer ended before its first token") from error


class HTTPTransport(_Base):
    """Talks to one server. Thread-safe: nothing is kept between two calls.

    Args:
        endpoint: Where the server is.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._client = httpx.Client(transport=ConnectionTransport(endpoint.socket_path, self._live), **self._options())

    def get_json(self, path: str, timeouts: TimeoutSettings, began: float | None = None) -> Any:
        """The decoded body of a GET.

        Args:
            path: What is asked for.
            timeouts: The limits.
            began: When the call that this is a part of began, on the monotonic clock; its total limit counts from there.

        Raises:
            APIStatusError: The server refused.
            ServerConnectionError: It cannot be reached, or broke off.
            RequestTimeoutError: A limit passed.
            MalformedResponseError: The body is not JSON.
        """
        return self._json("GET", path, None, timeouts, began)

    def post_json(
        self, path: str, body: Mapping[str, Any], timeouts: TimeoutSettings, began: float | None = None
    ) -> Any:
        """The decoded body of a POST; raises as `get_json` does."""
        return self._json("POST", path, encode_body(body), timeouts, began)

    def stream(
        self,
        path: str,
        body: Mapping[str, Any],
        parser: StreamParser,
        timeouts: TimeoutSettings,
        began: float | None = None,
    ) -> Generator[ChatChunk, None, None]:
        """The chunks of a streamed answer.

        Nothing is sent before the first `next`. However the generator ends, also by `close()` or garbage collection, its
        connection is closed at once and the server's slot is free.

        Raises:
            APIStatusError: The server refused, before or inside the stream.
            ServerConnectionError: It cannot be reached, or broke off before the first token.
            StreamInterruptedError: It broke off later; `.partial` holds what came.
            RequestTimeoutError: A limit passed.
            MalformedResponseError: What came makes no sense.
        """
        clock = self._clock(timeouts, began)
        content = encode_body(body)
        with self._mapped_errors(clock, parser), self._exchange("POST", path, content, clock) as response:
            if not _is_event_stream(response):
                raise _not_a_stream(response, _bounded(response.iter_bytes()))
            for data in response.iter_bytes():
                chunks = parser.feed(data)
                if chunks:
                    yield from chunks
                    clock.restart("between_tokens" if parser.has_begun else "first_token")
                if parser.is_complete:
                    break
        yield from self._finish(parser, clock)

    def close(self) -> None:
        """End every request in flight with `ClientClosedError`; from any thread, any number of times."""
        self._close()
        self._client.close()

    @contextlib.contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        content: bytes | None,
        clock: CallClock,
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> Iterator[httpx.Response]:
        request = self._client.build_request(method, path, content=content, **_extras(content, clock))
        response = self._client.send(request, stream=True)
        try:
            yield response
        finally:
            # A stream that nobody closed may be collected when the interpreter is half gone: httpx would make a timedelta
            # then, which crashes CPython. The system closes the socket.
            if not is_finalizing():
                response.close()

    def _json(
        self, method: str, path: str, content: bytes | None, timeouts: TimeoutSettings, began: float | None
    ) -> Any:
        clock = self._clock(timeouts, began)
        with self._mapped_errors(clock), self._exchange(method, path, content, clock) as response:
            if response.status_code != _OK:
                raise error_from_response(response.status_code, _bounded(response.iter_bytes()))
            return _decoded(path, response.read())


class AsyncHTTPTransport(_Base):
    """The async twin of `HTTPTransport`. It is bound to no event loop: nothing is kept between two calls.

    Args:
        endpoint: Where the server is.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._client = httpx.AsyncClient(
            transport=AsyncConnectionTransport(endpoint.socket_path, self._live), **self._options()
        )

    async def get_json(self, path: str, timeouts: TimeoutSettings, began: float | None = None) -> Any:
        """The decoded body of a GET; raises as `HTTPTransport.get_json` does."""
        return await self._json("GET", path, None, timeouts, began)

    async def post_json(
        self, path: str, body: Mapping[str, Any], timeouts: TimeoutSettings, began: float | None = None
    ) -> Any:
        """The decoded body of a POST; raises as `HTTPTransport.get_json` does."""
        return await self._json("POST", path, encode_body(body), timeouts, began)

    async def stream(
        self,
        path: str,
        body: Mapping[str, Any],
        parser: StreamParser,
        timeouts: TimeoutSettings,
        began: float | None = None,
    ) -> AsyncGenerator[ChatChunk, None]:
        """The chunks of a streamed answer; as `HTTPTransport.stream`. A cancelled task frees the slot at once."""
        clock = self._clock(timeouts, began)
        content = encode_body(body)
        with self._mapped_errors(clock, parser):
            async with self._exchange("POST", path, content, clock) as response:
                pieces = response.aiter_bytes()  # kept, see _AsyncExchange
                if not _is_event_stream(response):
                    raise _not_a_stream(response, await _abounded(pieces))
                async for data in pieces:
                    chunks = parser.feed(data)
                    if chunks:
                        for chunk in chunks:
                            yield chunk
                        clock.restart("between_tokens" if parser.has_begun else "first_token")
                    if parser.is_complete:
                        break
        for chunk in self._finish(parser, clock):
            yield chunk

    async def aclose(self) -> None:
        """End every request in flight with `ClientClosedError`; any number of times."""
        self._close()
        await self._client.aclose()

    def _exchange(self, method: str, path: str, content: bytes | None, clock: CallClock) -> _AsyncExchange:
        request = self._client.build_request(method, path, content=content, **_extras(content, clock))
        return _AsyncExchange(self._client, request)

    async def _json(
        self, method: str, path: str, content: bytes | None, timeouts: TimeoutSettings, began: float | None
    ) -> Any:
        clock = self._clock(timeouts, began)
        with self._mapped_errors(clock):
            async with self._exchange(method, path, content, clock) as response:
                if response.status_code != _OK:
                    raise error_from_response(response.status_code, await _abounded(response.aiter_bytes()))
                return _decoded(path, await response.aread())


class _AsyncExchange:
    """A request and the closing of its response.

    No generator: asyncio closes those in an order of chance at the end of a loop, and one that is closed before the one that
    waits in it makes an error of its end. Who stops reading keeps what it read from until then: dropped before, httpx's
    generators wait, which a loop without asyncio's hooks (nest_asyncio's) cannot do.
    """

    def __init__(self, client: httpx.AsyncClient, request: httpx.Request) -> None:
        self._client = client
        self._request = request
        self._response: httpx.Response | None = None

    async def __aenter__(self) -> httpx.Response:
        self._response = await self._client.send(self._request, stream=True)
        return self._response

    async def __aexit__(self, *exc_info: object) -> None:
        if self._response is not None:
            await self._response.aclose()


def _extras(content: bytes | None, clock: CallClock) -> dict[str, Any]:
    headers = {} if content is None else {"Content-Type": "application/json"}
    return {"headers": headers, "extensions": {"clock": clock}}


def _is_event_stream(response: httpx.Response) -> bool:
    return response.status_code == _OK and response.headers.get("Content-Type", "").lower().startswith(_STREAM)


def _not_a_stream(response: httpx.Response, body: bytes) -> LocalLlamaError:
    if response.status_code != _OK:
        return error_from_response(response.status_code, body)
    with contextlib.suppress(ValueError):
        decoded = json.loads(body)
        if isinstance(decoded, dict) and "error" in decoded:
            return error_from_response(response.status_code, body)
    kind = response.headers.get("Content-Type", "no content type")
    return MalformedResponseError(
        f"the server answered with {kind} where a stream of events was asked for",
        hint="Check base_url: is a llama-server behind it?",
    )


def _decoded(path: str, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedResponseError(
            f"the answer of {path} is not JSON ({len(body)} bytes)",
            hint="Check base_url: is a llama-server behind it?",
        ) from error


def _bounded(pieces: Iterator[bytes]) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) >= _ERROR_BODY_LIMIT_BYTES:
            break
    return bytes(body)


async def _abounded(pieces: AsyncIterator[bytes]) -> bytes:
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) >= _ERROR_BODY_LIMIT_BYTES:
            break
    return bytes(body)
