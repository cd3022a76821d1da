"""Ctrl-C at every point where CPython may raise it: nobody waits for ever, no lease and no server is left over."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from itertools import count
from types import FrameType
from typing import Any

import pytest

from localllama._server.registry import Lease, acquire_lease
from localllama._server.start import StartedServer
from localllama.types import Endpoint

_PACKAGE = "_server"
_PATIENCE_SECONDS = 10.0


class _Process:
    """A server process that lives until somebody ends it, or nobody knows it any more."""

    def __init__(self, running: set[int], number: int) -> None:
        self._running = running
        self._number = number
        running.add(number)

    def exit_status(self) -> object | None:
        return None if self._number in self._running else object()

    def abandon(self) -> None:
        self._running.discard(self._number)

    stop = __del__ = abandon


class _Starts:
    """What a lease starts; knows which processes run."""

    def __init__(self) -> None:
        self.running: set[int] = set()

    def __call__(self, generation: int, *_: object) -> StartedServer:
        process: Any = _Process(self.running, generation)
        return StartedServer(process, Endpoint("http://x", generation=generation), None, "")  # type: ignore[arg-type]


class _Interrupt:
    """Raises KeyboardInterrupt where CPython looks for signals: behind calls, and where a function begins."""

    def __init__(self, moment: int) -> None:
        self._left = moment
        self.has_come = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "c_call" or _PACKAGE not in frame.f_code.co_filename:
            return
        self._left -= 1
        if self._left == 0:
            self.has_come = True
            sys.setprofile(None)
            raise KeyboardInterrupt


def _interrupted(moment: int, action: Callable[[], object]) -> bool:
    interrupt = _Interrupt(moment)
    sys.setprofile(interrupt)
    try:
        action()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return interrupt.has_come


def _in_time(action: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    assert not thread.is_alive(), "it waits for ever"
    if errors:
        raise errors[0]


def _call(lease: Lease) -> StartedServer:
    return lease.server().ensure_running(lambda _: None)


def _start(lease: Lease) -> None:
    _call(lease)


def _release(lease: Lease) -> None:
    _call(lease)
    lease.release()


@pytest.mark.parametrize("action", [_start, _release], ids=["start", "release"])
def test_an_interrupt_leaves_no_trace(action: Callable[[Lease], None], request: pytest.FixtureRequest) -> None:
    for moment in count(1):
        starts = _Starts()
        key = f"{request.node.name} {moment}"
        hit, other = acquire_lease(key, starts, None), acquire_lease(key, starts, None)

        has_come = _interrupted(moment, lambda hit=hit: action(hit))  # type: ignore[misc]
        _in_time(lambda other=other: _call(other))  # type: ignore[misc]
        assert len(starts.running) == 1
        for lease in (hit, other):
            _in_time(lease.release)
        del lease, hit, other

        assert not starts.running, f"moment {moment}"
        if not has_come:
            return


class _SignalHandler(_Interrupt):
    """Runs an action where CPython runs handlers of signals, and goes on."""

    def __init__(self, moment: int, action: Callable[[], object]) -> None:
        super().__init__(moment)
        self._action = action

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        try:
            super().__call__(frame, event, argument)
        except KeyboardInterrupt:
            self._action()


@pytest.mark.parametrize("action", [_start, _release], ids=["start", "release"])
def test_a_signal_handler_may_make_look_at_and_close_a_client(
    action: Callable[[Lease], None], request: pytest.FixtureRequest
) -> None:
    """Whatever line it comes in at: the thread that it runs in may hold any lock, and cannot let go of it."""
    for moment in count(1):
        starts = _Starts()
        key = f"{request.node.name} {moment}"
        lease = acquire_lease(key, starts, None)

        def handle(key: str = key, starts: _Starts = starts) -> None:
            another = acquire_lease(key, starts, None)
            shared = another.server()
            assert shared.state is not None
            shared.ready()
            another.release()

        handler = _SignalHandler(moment, handle)

        def act(lease: Lease = lease, handler: _SignalHandler = handler) -> None:
            sys.setprofile(handler)
            action(lease)

        _in_time(act)
        _in_time(lease.release)
        assert not starts.running, f"moment {moment}"
        if not handler.has_come:
            return
