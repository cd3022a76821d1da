"""A server that nobody wants any more is told to end: the garbage collector, which would end it too, is only the second net."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from localllama import ClientClosedError
from localllama._server.registry import Lease, acquire_lease
from localllama._server.start import StartedServer
from localllama.types import Endpoint


class _Process:
    """Runs until it is told to end."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def exit_status(self) -> object | None:
        return object() if self.told else None

    def abandon(self) -> None:
        self.told.append("abandon")

    def stop(self) -> None:
        self.told.append("stop")


def new_lease(process: Any, before: Callable[[], None] = lambda: None) -> Lease:
    def start(generation: int, *_: object) -> StartedServer:
        before()
        return StartedServer(process, Endpoint("http://x", generation=generation), None, "")  # type: ignore[arg-type]

    return acquire_lease(secrets.token_hex(8), start, None)


def test_the_last_of_two_leases_that_are_forgotten_ends_it() -> None:
    process = _Process()
    lease = new_lease(process)
    other = acquire_lease(lease._key, lease._starter, None)
    lease.server().ensure_running(lambda _: None)
    assert other.server().running() is not None
    del lease
    gc.collect()
    assert process.told == []
    del other
    gc.collect()
    assert process.told == ["abandon"]


def test_the_last_of_two_leases_that_are_released_ends_it_and_waits() -> None:
    process = _Process()
    lease = new_lease(process)
    other = acquire_lease(lease._key, lease._starter, None)
    lease.server().ensure_running(lambda _: None)
    other.server()
    lease.release()
    assert process.told == []
    other.release()
    other.release()
    assert process.told == ["abandon", "stop"]


def test_a_server_that_came_too_late_is_stopped() -> None:
    process = _Process()
    leases: list[Lease] = []
    lease = new_lease(process, before=lambda: leases.pop().release())
    leases.append(lease)
    shared = lease.server()
    with pytest.raises(ClientClosedError) as caught:
        shared.ensure_running(lambda _: None)
    assert process.told == ["stop"]
    assert caught.value.__traceback__ is not None, "it may hold on to whatever it came through"
    assert shared.running() is None
