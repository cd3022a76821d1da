"""One server that several threads want at the same time: the states it goes through, and who is told what."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from localllama import ClientClosedError, ServerCrashedError, ServerStartError, StartProgress
from localllama._server import ended, shared_server
from localllama._server.shared_server import ServerState, SharedServer
from localllama._server.start import StartedServer
from localllama.types import Endpoint
from support.waiting import wait_until

Start = Callable[[], None]


class _Process:
    is_stopped = False

    def exit_status(self) -> object | None:
        return object() if self.is_stopped else None

    def stop(self) -> None:
        self.is_stopped = True

    abandon = stop


def quiet(_: StartProgress) -> None:
    """Nobody looks."""


def shared(start: Start, process: _Process | None = None) -> SharedServer:
    def starter(generation: int, *_: object) -> StartedServer:
        start()
        made: Any = process or _Process()
        return StartedServer(made, Endpoint("http://x", generation=generation), None, "")  # type: ignore[arg-type]

    server = SharedServer("key", starter, None)
    server.add(object())
    return server


class _Gate:
    """A start that lasts until a test lets it go on."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failures = [failure]
        self.has_come, self.may_go = threading.Event(), threading.Event()
        self.n_starts = 0

    def __call__(self) -> None:
        self.n_starts += 1
        self.has_come.set()
        assert self.may_go.wait(20)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure


def in_thread(server: SharedServer, outcomes: list[Any]) -> threading.Thread:
    def run() -> None:
        try:
            outcomes.append(server.ensure_running(quiet))
        except BaseException as error:  # noqa: BLE001
            outcomes.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_the_states_of_a_life() -> None:
    gate, process, outcomes = _Gate(), _Process(), list[Any]()
    server = shared(gate, process)
    assert server.state is ServerState.UNSTARTED
    thread = in_thread(server, outcomes)
    assert gate.has_come.wait(20)
    assert server.state is ServerState.STARTING
    gate.may_go.set()
    thread.join(20)
    assert server.state is ServerState.READY
    process.is_stopped = True
    assert server.state is ServerState.CRASHED
    server.stop()
    assert server.state is ServerState.STOPPED


def test_whom_the_last_lease_has_stopped_is_stopped_and_not_new() -> None:
    server = shared(lambda: None)
    server.ensure_running(quiet)
    server.release(next(iter(server._tokens)))
    assert server.state is ServerState.STOPPED
    server.add(object())
    server.ensure_running(quiet)
    assert server.state is ServerState.READY


def test_the_reasons_of_old_crashes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a log of 64 KiB; a service whose server dies once an hour must not keep them all."""
    monkeypatch.setattr(ended, "crash_error", lambda _: ServerCrashedError("killed"))
    monkeypatch.setattr(_Process, "wait_for_exit", lambda process, _: process.exit_status(), raising=False)
    server = shared(lambda: None)
    for _ in range(20):
        started = server.ensure_running(quiet)
        started.process.stop()
        assert server.crash_of(started.endpoint.generation) is not None
    told = [generation for generation in range(1, 21) if server.crash_of(generation) is not None]
    assert 0 < len(told) < 10
    assert told[-1] == 20


def both_wait(gate: _Gate) -> list[Any]:
    """Two threads want a server; the first is held at the gate until the second waits for it."""
    server = shared(gate)
    outcomes: list[Any] = []
    threads = [in_thread(server, outcomes)]
    assert gate.has_come.wait(20)
    joined = threading.Event()
    join = server._join_start

    def noticed(mine: Any) -> Any:
        future = join(mine)
        joined.set()
        return future

    server._join_start = noticed  # type: ignore[method-assign]
    threads.append(in_thread(server, outcomes))
    assert joined.wait(20)
    gate.may_go.set()
    for thread in threads:
        thread.join(20)
    assert len(outcomes) == 2
    return outcomes


def test_who_waits_for_a_start_gets_its_server() -> None:
    gate = _Gate()
    first, second = both_wait(gate)
    assert first is second
    assert gate.n_starts == 1


def test_who_waits_for_a_start_that_fails_gets_an_error_of_his_own() -> None:
    failure = ServerStartError("no memory", hint="a smaller model")
    outcomes = both_wait(_Gate(failure))
    assert [str(error) for error in outcomes] == [str(failure)] * 2
    (copied,) = (error for error in outcomes if error is not failure)
    assert copied.__cause__ is failure
    assert copied.hint == "a smaller model"


def test_who_waits_for_a_start_that_was_interrupted_starts_anew() -> None:
    gate = _Gate(KeyboardInterrupt())
    outcomes = both_wait(gate)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["KeyboardInterrupt", "StartedServer"]
    assert gate.n_starts == 2


def test_nothing_starts_in_an_interpreter_that_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_server._Exit, "has_begun", True)
    gate = _Gate()
    with pytest.raises(ClientClosedError, match="exiting"):
        shared(gate).ensure_running(quiet)
    assert gate.n_starts == 0


def test_a_server_that_was_let_go_while_it_started_is_stopped() -> None:
    gate, process, outcomes = _Gate(), _Process(), list[Any]()
    server = shared(gate, process)
    thread = in_thread(server, outcomes)
    assert gate.has_come.wait(20)
    server.release(next(iter(server._tokens)))
    gate.may_go.set()
    thread.join(20)
    assert isinstance(outcomes[0], ClientClosedError)
    wait_until(lambda: process.is_stopped, what="the end of the process")
    assert server.running() is None


def test_a_server_that_was_long_in_coming_is_not_idle_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large model loads for longer than an idle server may live; nobody could use it meanwhile."""
    now = [0.0]
    monkeypatch.setattr(shared_server, "time", SimpleNamespace(monotonic=lambda: now[0]))
    server = shared(lambda: now.__setitem__(0, 300.0))
    started = server.ensure_running(quiet)
    assert not server.stop_if_idle(60)
    assert server.running() is started
    now[0] += 60
    assert server.stop_if_idle(60)


def test_a_living_server_on_tcp_has_not_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no socket file that could be gone; a broken connection is then no more than that."""
    monkeypatch.setattr(_Process, "wait_for_exit", lambda *_: None, raising=False)
    server = shared(lambda: None)
    started = server.ensure_running(quiet)
    assert server.crash_of(started.endpoint.generation) is None
    assert server.running() is started
