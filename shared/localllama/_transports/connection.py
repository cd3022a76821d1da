"""One connection for each request, below httpx: sockets that obey a `CallClock` and can be shut down from outside.

No connection is kept for the next request. It costs some 0.1 ms on a UNIX socket, and in return nothing of the usual
trouble exists: no idle connection that the server has closed (llama-server does so after 5 s or 100 requests), no pool that
nested streams exhaust, no state bound to an event loop or copied by a fork, and no worker thread of the server tied up.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any

import anyio
import httpcore
import httpx

from localllama._frames import LettingGo

from .clock import CallClock

__all__ = ["AsyncConnectionTransport", "ConnectionTransport", "LiveSockets"]

_FULL_BACKLOG_PAUSE_SECONDS = 0.005


class LiveSockets:
    """The sockets in use, so that another thread can end what waits on them."""

    def __init__(self) -> None:
        self._streams: set[Any] = set()

    def add(self, stream: Any) -> None:
        """Note a network stream of httpcore."""
        self._streams.add(stream)

    def discard(self, stream: Any) -> None:
        """Forget it."""
        self._streams.discard(stream)

    def shut_down(self) -> None:
        """End all of them: whoever waits for bytes there sees the end of the stream at once."""
        for stream in list(self._streams):
            with contextlib.suppress(OSError):  # it has just ended by itself
                sock = stream.get_extra_info("socket")
                if sock is not None:
                    sock.shutdown(socket.SHUT_RDWR)


def _left(clock: CallClock, timeout: float | None, timed_out: type[Exception]) -> float | None:
    limits = [seconds for seconds in (timeout, clock.remaining_seconds()) if seconds is not None]
    if limits and min(limits) <= 0:
        raise timed_out("the time is up")
    return min(limits, default=None)


def _is_backlog_full(error: httpcore.ConnectError) -> bool:
    # Linux refuses a non-blocking connect to a UNIX socket with EAGAIN while the queue of the listener is full. That of
    # llama-server has 5 places (CPPHTTPLIB_LISTEN_BACKLOG), so a burst of calls meets it.
    return isinstance(error.__cause__, BlockingIOError)


class _ClockedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, clock: CallClock, live: LiveSockets) -> None:
        self._stream = stream
        self._clock = clock
        self._live = live
        live.add(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, _left(self._clock, timeout, httpcore.ReadTimeout))
        self._clock.has_response = self._clock.has_response or bool(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._clock.is_sent = True
        with LettingGo():  # httpcore drops the error, and reads what the server said before
            self._stream.write(buffer, _left(self._clock, timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._live.discard(self)
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(self._clock, timeout, httpcore.ConnectTimeout)
        self._live.discard(self)
        return _ClockedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._clock, self._live)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _ClockedNetwork(httpcore.NetworkBackend):
    def __init__(self, clock: CallClock, live: LiveSockets) -> None:
        self._network = httpcore.SyncBackend()
        self._clock = clock
        self._live = live

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(self._clock, timeout, httpcore.ConnectTimeout)
        stream = self._network.connect_tcp(host, port, left, local_address, socket_options)
        return self._connected(stream)

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        while True:
            left = _left(self._clock, timeout, httpcore.ConnectTimeout)
            try:
                return self._connected(self._network.connect_unix_socket(path, left, socket_options))
            except httpcore.ConnectError as error:
                if not _is_backlog_full(error):
                    raise
            time.sleep(_FULL_BACKLOG_PAUSE_SECONDS)

    def _connected(self, stream: httpcore.NetworkStream) -> httpcore.NetworkStream:
        self._clock.restart("first_token")
        return _ClockedStream(stream, self._clock, self._live)


class _ResponseStream(httpx.SyncByteStream):
    def __init__(self, stream: Any, connection: httpcore.HTTPConnection) -> None:
        self._stream = stream
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._connection.close()


class ConnectionTransport(httpx.BaseTransport):
    """Opens a connection, sends one request, closes it.

    Requests carry their `CallClock` in `extensions["clock"]`.

    Args:
        socket_path: A UNIX socket; None for TCP to the host of the URL.
        live: Where the sockets in use are noted.
    """

    def __init__(self, socket_path: str | None, live: LiveSockets) -> None:
        self._socket_path = socket_path
        self._live = live

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it; the body of the response is read as it comes."""
        core_request = _core_request(request)
        connection = httpcore.HTTPConnection(
            core_request.url.origin,
            ssl_context=_ssl_context(request),
            uds=self._socket_path,
            network_backend=_ClockedNetwork(request.extensions["clock"], self._live),
        )
        try:
            response = connection.handle_request(core_request)
        except BaseException:
            connection.close()
            raise
        return httpx.Response(
            response.status, headers=response.headers, stream=_ResponseStream(response.stream, connection)
        )


def _close_at_once(closing: Coroutine[Any, Any, None]) -> None:
    """Close something without letting the loop turn, which would suspend whoever closes.

    At the end of a loop asyncio closes all async generators at the same time, and one whose closing is suspended makes it
    log "asynchronous generator is already running" for each generator that it reads from.
    """
    try:
        closing.send(None)
    except StopIteration:
        return
    closing.close()


class _AsyncClockedStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream, clock: CallClock, live: LiveSockets) -> None:
        self._stream = stream
        self._clock = clock
        self._live = live
        live.add(self)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's name
        data = await self._stream.read(max_bytes, _left(self._clock, timeout, httpcore.ReadTimeout))
        self._clock.has_response = self._clock.has_response or bool(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self._clock.is_sent = True
        with LettingGo():
            await self._stream.write(buffer, _left(self._clock, timeout, httpcore.WriteTimeout))

    async def aclose(self) -> None:
        self._live.discard(self)
        _close_at_once(self._stream.aclose())  # anyio closes the socket and then lets the loop turn

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        left = _left(self._clock, timeout, httpcore.ConnectTimeout)
        self._live.discard(self)
        stream = await self._stream.start_tls(ssl_context, server_hostname, left)
        return _AsyncClockedStream(stream, self._clock, self._live)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _AsyncClockedNetwork(httpcore.AsyncNetworkBackend):
    def __init__(self, clock: CallClock, live: LiveSockets) -> None:
        self._network = httpcore.AnyIOBackend()
        self._clock = clock
        self._live = live

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        left = _left(self._clock, timeout, httpcore.ConnectTimeout)
        stream = await self._network.connect_tcp(host, port, left, local_address, socket_options)
        return self._connected(stream)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        while True:
            left = _left(self._clock, timeout, httpcore.ConnectTimeout)
            try:
                return self._connected(await self._network.connect_unix_socket(path, left, socket_options))
            except httpcore.ConnectError as error:
                if not _is_backlog_full(error):
                    raise
            await anyio.sleep(_FULL_BACKLOG_PAUSE_SECONDS)

    def _connected(self, stream: httpcore.AsyncNetworkStream) -> httpcore.AsyncNetworkStream:
        self._clock.restart("first_token")
        return _AsyncClockedStream(stream, self._clock, self._live)


class _AsyncResponseStream(httpx.AsyncByteStream):
    def __init__(self, stream: Any, connection: httpcore.AsyncHTTPConnection) -> None:
        self._stream = stream
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            yield data

    async def aclose(self) -> None:
        await self._connection.aclose()
        # Else httpcore does it when its generator is dropped, where a loop without asyncio's hooks for generators, such as
        # that of nest_asyncio, cannot wait for it.
        _close_at_once(self._stream.aclose())


class AsyncConnectionTransport(httpx.AsyncBaseTransport):
    """The async twin of `ConnectionTransport`."""

    def __init__(self, socket_path: str | None, live: LiveSockets) -> None:
        self._socket_path = socket_path
        self._live = live

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it; the body of the response is read as it comes."""
        core_request = _core_request(request)
        connection = httpcore.AsyncHTTPConnection(
            core_request.url.origin,
            ssl_context=_ssl_context(request),
            uds=self._socket_path,
            network_backend=_AsyncClockedNetwork(request.extensions["clock"], self._live),
        )
        try:
            response = await connection.handle_async_request(core_request)
        except BaseException:
            await connection.aclose()
            raise
        return httpx.Response(
            response.status, headers=response.headers, stream=_AsyncResponseStream(response.stream, connection)
        )


def _core_request(request: httpx.Request) -> httpcore.Request:
    url = httpcore.URL(
        scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path
    )
    return httpcore.Request(method=request.method, url=url, headers=request.headers.raw, content=request.stream)


def _ssl_context(request: httpx.Request) -> ssl.SSLContext | None:
    # Loading the certificates takes 20 ms, which a call over a UNIX socket must not pay, and any other only once.
    return _default_ssl_context() if request.url.scheme == "https" else None


@functools.cache
def _default_ssl_context() -> ssl.SSLContext:
    # It reads SSL_CERT_FILE and SSL_CERT_DIR: how a server with a certificate of one's own can be reached at all.
    return httpx.create_ssl_context(trust_env=True)
