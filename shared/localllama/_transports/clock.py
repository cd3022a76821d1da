"""The time limits of one call, and how far that call got."""

from __future__ import annotations

import time
from collections.abc import Callable

from localllama.errors import RequestTimeoutError
from localllama.settings import TimeoutSettings

__all__ = ["CallClock"]

_LONGEST_WAIT_SECONDS = 1e9  # some 30 years: sockets take neither infinity nor what does not fit into their nanoseconds
_HINTS = {
    "connect": "Raise connect_seconds of TimeoutSettings, or see whether the server still runs.",
    "first_token": "Raise first_token_seconds of TimeoutSettings: a long prompt, or a queue for a slot, takes its time.",
    "between_tokens": "Raise between_tokens_seconds of TimeoutSettings, or see whether the server still runs.",
    "total": "Raise total_seconds of TimeoutSettings, or set max_tokens.",
}


class CallClock:
    """Tells each read and write on the wire how long it may take.

    A limit for one `recv` is no limit for a token: llama-server sends a keep-alive comment every 30 s and its headers
    early. So every read asks this clock how much is left until the next real sign of life is due.

    Args:
        timeouts: The limits.
        now: A monotonic clock, in seconds.
        began: When the whole call began on that clock; a call may be made of several requests. Default: now.

    Attributes:
        is_sent: Whether a byte of the request may have reached the server.
        has_response: Whether a byte of the answer came.
    """

    def __init__(
        self, timeouts: TimeoutSettings, now: Callable[[], float] = time.monotonic, *, began: float | None = None
    ) -> None:
        self._timeouts = timeouts
        self._now = now
        self._waiting_since = now()
        self._started = self._waiting_since if began is None else began
        self._limit = "connect"
        self.is_sent = False
        self.has_response = False

    def restart(self, limit: str) -> None:
        """From now on wait for what `limit` ("first_token" or "between_tokens") is about."""
        self._limit = limit
        self._waiting_since = self._now()

    def remaining_seconds(self) -> float | None:
        """How long the next operation on the wire may take, None without a limit; 0 or less when time is up."""
        deadlines = self._deadlines()
        return min(min(deadlines)[0] - self._now(), _LONGEST_WAIT_SECONDS) if deadlines else None

    def error(self) -> RequestTimeoutError:
        """The error for the limit that passed first."""
        deadlines = self._deadlines()
        _, limit, seconds = min(deadlines) if deadlines else (0.0, self._limit, 0.0)
        waited_for = {
            "connect": "no connection to the server",
            "first_token": "no token came",
            "between_tokens": "no further token came",
            "total": "the call did not end",
        }[limit]
        return RequestTimeoutError(
            f"{waited_for} within {seconds:g} s ({limit}_seconds)", hint=_HINTS[limit], limit=limit, seconds=seconds
        )

    def _deadlines(self) -> list[tuple[float, str, float]]:
        seconds: float | None = getattr(self._timeouts, f"{self._limit}_seconds")
        total = self._timeouts.total_seconds
        deadlines = []
        if seconds is not None:
            deadlines.append((self._waiting_since + seconds, self._limit, seconds))
        if total is not None:
            deadlines.append((self._started + total, "total", total))
        return deadlines
