"""A server that nobody wants any more is told to end: the garbage collector, which would end it too, is only the second net."""

from __future__ import annotations

import gc
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from localllama import ClientClosedError
from localllama._server.registry import Lease, _registry, acquire_lease
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
    with pytest.raises(ClientClosedError, match="closed"):  # another thread of the client may be on its way here
        lease.server()
    assert lease.is_released


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="on POSIX only: fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_waits_for_no_lock_of_its_parents_threads_and_has_no_server_yet() -> None:
    """Whoever holds a lock at that moment does not exist in the child, and never lets go."""
    lease = new_lease(_Process())
    started = lease.server().ensure_running(lambda _: None)
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lease._lock, _registry._lock:
            is_held.set()
            may_go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert is_held.wait(20)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        is_right = False
        try:
            is_without = lease.peek() is None
            is_right = is_without and lease.server().ensure_running(lambda _: None) is not started
        finally:
            os._exit(0 if is_right else 1)
    may_go.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert lease.server().running() is started
    lease.release()


_LATE = """
import atexit

@atexit.register  # before localllama is imported, so it runs after what localllama has for the exit
def late():
    try:
        client.start()
    except Exception as error:
        print(type(error).__name__, error)

from localllama import LocalLlamaClient, ServerSettings
client = LocalLlamaClient(ServerSettings(model="https://localhost:1/not-fetched.gguf"))
"""


def test_the_exit_of_the_interpreter_fetches_and_starts_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", _LATE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("ClientClosedError The interpreter is exiting")
    assert done.stderr == ""
