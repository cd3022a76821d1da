"""Waiting for a condition with a deadline: the only way in which tests wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], *, seconds: float = 10.0, what: str = "the condition", pause_seconds: float = 0.005
) -> T:
    """Poll `condition` until it is true and return its value; fail loudly at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s (last value: {value!r})")
        time.sleep(pause_seconds)
