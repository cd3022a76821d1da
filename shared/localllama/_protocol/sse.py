r"""Server-sent events from bytes, cut anywhere: https://html.spec.whatwg.org/multipage/server-sent-events.html.

Lines end at `\n`, `\r\n` or `\r` and nowhere else. `str.splitlines` and `httpx.Response.iter_lines` also split at U+2028
and the like, which llama-server sends raw inside its JSON.
"""

from __future__ import annotations

from dataclasses import dataclass

from localllama.errors import MalformedResponseError

__all__ = ["DEFAULT_EVENT_LIMIT_BYTES", "SSEDecoder", "ServerSentEvent"]

DEFAULT_EVENT_LIMIT_BYTES = 64 * 1024 * 1024
"""Most bytes of one event; the largest real ones hold a whole prompt (`verbose`), some MB at most."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ServerSentEvent:
    """One event.

    Attributes:
        data: The data lines, joined with a newline.
        event: The event's type; "message" where the stream names none.
    """

    data: str
    event: str = "message"


class SSEDecoder:
    """Turns bytes into events. It holds what is unfinished, at most `limit_bytes` of it.

    Args:
        limit_bytes: Most bytes of one event.
    """

    def __init__(self, *, limit_bytes: int = DEFAULT_EVENT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._pieces: list[bytes] = []  # of the unfinished line; joined once, so that long lines cost linear time
        self._data: list[bytes] = []
        self._event = b""
        self._size_bytes = 0
        self._is_first_line = True
        self._ends_with_cr = False

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes and return the events that they complete.

        Raises:
            MalformedResponseError: An event is too large, or is not UTF-8.
        """
        if self._ends_with_cr and data:
            # The line ended at the \r already; a \n right after it belongs to the same line end.
            self._ends_with_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return []
        self._ends_with_cr = data.endswith(b"\r")
        lines = data.splitlines()  # on bytes: \n, \r\n and \r only
        unfinished = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        events: list[ServerSentEvent] = []
        for line in lines:
            if self._pieces:
                line = b"".join([*self._pieces, line])  # noqa: PLW2901 - the same line, now whole
                self._pieces.clear()
            event = self._take_line(line)
            if event is not None:
                events.append(event)
        if unfinished:
            self._pieces.append(unfinished)
            self._grow(len(unfinished))
        return events

    def close(self) -> None:
        """Forget an unfinished event, as the specification demands: it may be cut in the middle."""
        self._pieces.clear()
        self._reset()

    def _take_line(self, line: bytes) -> ServerSentEvent | None:
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        # Builds before mid-2025 wrote an error as a field of its own, `error: {...}` (server_sent_event() in
        # tools/server/utils.hpp of that time), not as data.
        if name in (b"data", b"error"):
            self._data.append(value)
            self._grow(len(value))
            if name == b"error":
                self._event = b"error"
        elif name == b"event":
            self._event = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        data, event = self._data, self._event
        self._reset()
        if not data:
            return None
        try:
            return ServerSentEvent(b"\n".join(data).decode(), event.decode() or "message")
        except UnicodeDecodeError as error:
            raise MalformedResponseError("an event of the stream is not valid UTF-8") from error

    def _reset(self) -> None:
        self._data = []
        self._event = b""
        self._size_bytes = 0

    def _grow(self, count: int) -> None:
        self._size_bytes += count
        if self._size_bytes > self._limit_bytes:
            raise MalformedResponseError(f"one event of the stream is larger than {self._limit_bytes} bytes")
