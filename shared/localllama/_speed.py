"""How fast a server has answered so far, by llama.cpp's own timings; kept in the notes about that server."""

from __future__ import annotations

from collections import deque
from typing import Any

from .types import Timings

__all__ = ["note_speed", "tokens_per_second"]

_KEY = "speed of answers"
_REMEMBERED_ANSWERS = 100
_MS_PER_SECOND = 1000.0


def note_speed(notes: dict[str, Any], timings: Timings | None) -> None:
    """Remember one whole answer. Without a lock: appending is atomic, and a fork cannot leave it half done."""
    if timings is not None and timings.predicted_n > 0 and timings.predicted_ms > 0:
        notes.setdefault(_KEY, deque(maxlen=_REMEMBERED_ANSWERS)).append((timings.predicted_n, timings.predicted_ms))


def tokens_per_second(notes: dict[str, Any]) -> float | None:
    """Tokens generated per second in the last hundred answers, prompts not counted; None if there is no answer yet."""
    answers = tuple(notes.get(_KEY, ()))
    total_ms = sum(spent_ms for _, spent_ms in answers)
    return sum(n_tokens for n_tokens, _ in answers) * _MS_PER_SECOND / total_ms if total_ms else None
