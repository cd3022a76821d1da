"""Waiting until a server that was just launched answers, or is known not to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localllama._processes.process import ExitStatus, ServerProcess
from localllama.types import Endpoint

HealthProbe = Callable[[Endpoint, float], Literal["ready", "loading", "unreachable"]]
"""Asks `/health` once; the second argument is its time limit in seconds. Passed in, because HTTP lives above."""

_SHORTEST_PAUSE_SECONDS = 0.003
_LONGEST_PAUSE_SECONDS = 0.05
_PAUSE_SHARE = 0.02  # of the time waited so far: nobody waits noticeably longer than the server took
_PROBE_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True)
class Readiness:
    """How the wait ended.

    Attributes:
        outcome: "ready", "exited", "timeout" or "cancelled".
        exit_status: Of the server, where it exited.
    """

    outcome: Literal["ready", "exited", "timeout", "cancelled"]
    exit_status: ExitStatus | None = None


def wait_until_ready(
    process: ServerProcess,
    endpoint: Endpoint,
    probe: HealthProbe,
    *,
    timeout_seconds: float,
    is_cancelled: Callable[[], bool],
    on_wait: Callable[[], None],
) -> Readiness:
    """Poll `/health` while watching the child: its death ends the wait at once.

    llama-server listens before it loads the model and answers 503 until the model is ready (llama.cpp
    tools/server/server.cpp), so "connection refused" is only the first moments, and there is no limit on loading but ours.

    Args:
        process: The child.
        endpoint: Where it will listen.
        probe: Asks its health once.
        timeout_seconds: How long the wait may take.
        is_cancelled: Asked between two polls; true ends the wait.
        on_wait: Called between two polls, for progress.
    """
    began = time.monotonic()
    deadline = began + timeout_seconds
    while True:
        status = process.exit_status()
        if status is not None:
            return Readiness("exited", status)
        if is_cancelled():
            return Readiness("cancelled")
        # Looking for the file first spares a failed connection in every poll of the first milliseconds.
        if endpoint.socket_path is None or Path(endpoint.socket_path).exists():
            remaining_seconds = max(0.05, deadline - time.monotonic())
            if probe(endpoint, min(_PROBE_TIMEOUT_SECONDS, remaining_seconds)) == "ready":
                return Readiness("ready")
        if time.monotonic() >= deadline:
            return Readiness("timeout")
        on_wait()
        waited_seconds = time.monotonic() - began
        pause_seconds = min(max(_PAUSE_SHARE * waited_seconds, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        status = process.wait_for_exit(pause_seconds)
        if status is not None:
            return Readiness("exited", status)
