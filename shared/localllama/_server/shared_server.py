"""One llama-server child through its whole life, shared by everything in this process that wants the same one.

Not started, starting, ready, dead, started again: the diagram is in ARCHITECTURE.md. Who shares it is counted by tokens; the
leases that hold these are in `registry`.

Rules that keep this free of deadlocks:

* `SharedServer._lock` is held for a few instructions only, never during a start, a stop or a wait.
* Finalizers may run at any bytecode, also in a thread that holds the lock. They only note the released lease and leave a
  lock alone that is held; whoever holds it looks at the notes after letting go.
* A signal handler may run at any bytecode too, and make, use or close a client there. So what only looks takes no lock, and
  neither does a lease that is taken or given back.
* A KeyboardInterrupt may come between any two lines. Locks are taken by `with` alone, which nothing can come into, and
  what is done in steps is done in an order in which every step may be the last.
"""

from __future__ import annotations

import contextlib
import copy
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from enum import Enum
from typing import TYPE_CHECKING, Any

from localllama.errors import ClientClosedError, LocalLlamaError, ServerCrashedError
from localllama.types import StartProgress

if TYPE_CHECKING:
    # Every client that is made comes here; what a start needs is loaded when one begins.
    from .start import StartedServer

__all__ = ["ServerState", "SharedServer", "Starter", "refuse_starts"]

Starter = Callable[[int, Callable[[], bool], Callable[[StartProgress], None]], "StartedServer"]
"""Starts one server: generation, "is it cancelled?", "tell the progress"."""

_EXIT_NEWS_SECONDS = 1.0
_RECHECK_SECONDS = 1.0  # the thread that starts may be interrupted before it can tell those who wait
_REMEMBERED_CRASHES = 8
_LONGEST_WAIT_SECONDS = 86400.0  # poll() takes no more than 24 days


class _Exit:
    has_begun = False


def refuse_starts() -> None:
    """From now on nothing is started: the interpreter exits."""
    _Exit.has_begun = True


class ServerState(Enum):
    """Where a shared server is in its life; the diagram is in ARCHITECTURE.md."""

    UNSTARTED = "unstarted"
    STARTING = "starting"
    READY = "ready"
    CRASHED = "crashed"
    STOPPED = "stopped"


class SharedServer:
    """One llama-server child and the leases on it."""

    def __init__(self, key: str, starter: Starter, idle_timeout_seconds: float | None) -> None:
        self.key = key
        self._starter = starter
        self._idle_timeout_seconds = idle_timeout_seconds
        self._lock = threading.Lock()
        self._tokens: set[object] = set()
        self._released: deque[object] = deque()
        self._starting: Future[StartedServer] | None = None
        self._started: StartedServer | None = None
        self._was_stopped = False
        self._generation = 0
        self._in_use: set[object] = set()
        self._last_use = time.monotonic()
        self._notes: tuple[int, dict[str, Any]] = (0, {})
        self._crash_logs: dict[int, ServerCrashedError] = {}

    # -- leases -----------------------------------------------------------------------------------------------------

    def add(self, token: object) -> None:
        """Count one more lease."""
        self._tokens.add(token)
        self._settle()

    def release(self, token: object) -> StartedServer | None:
        """Give one lease back, from any context; the child's end has begun if it was the last.

        Returns:
            The server that is ending, for callers who want to wait for its end.
        """
        self._released.append(token)
        return self._settle()

    def _settle(self) -> StartedServer | None:
        ending: StartedServer | None = None
        # The loop closes the gap between "nothing noted" and letting go of the lock, when another thread notes something.
        # The lock is not held by this thread if it is free, so that the wait for another one, which took it right now,
        # is short. (An interrupt right behind `acquire(blocking=False)` would leave it held for ever.)
        while self._released and not self._lock.locked():
            with self._lock:
                while self._released:
                    self._tokens.discard(self._released[0])
                    self._released.popleft()
                if not self._tokens and self._started is not None:
                    ending, self._started = self._started, None
                    self._was_stopped = True
            if ending is not None:
                ending.process.abandon()
        return ending

    @property
    def is_wanted(self) -> bool:
        """Whether any lease is left."""
        return bool(self._tokens)

    # -- the child --------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ServerState:
        """The state at this moment; asks the child's status, never waits."""
        # In this order, without a lock: a start that ends meanwhile has set the one before it clears the other.
        starting, started, was_stopped = self._starting, self._started, self._was_stopped
        if starting is not None:
            return ServerState.STARTING
        if started is not None:
            return ServerState.READY if started.process.exit_status() is None else ServerState.CRASHED
        return ServerState.STOPPED if was_stopped else ServerState.UNSTARTED

    def running(self) -> StartedServer | None:
        """The server if it runs, without starting or waiting."""
        started = self._started
        return started if started is not None and started.process.exit_status() is None else None

    def ready(self) -> StartedServer | None:
        """As `running`, for a call that is about to be made: the server will not be stopped for idleness under it."""
        self._last_use = time.monotonic()
        return self.running()

    def ensure_running(self, on_progress: Callable[[StartProgress], None]) -> StartedServer:
        """The running server; started, or started again, if there is none. One start at a time, shared by all callers.

        Raises:
            LocalLlamaError: The start failed; every caller that waited for it gets the same error.
        """
        while (running := self.ready()) is None:
            self._note_crash()
            mine: Future[StartedServer] = Future()
            try:
                future = self._join_start(mine)
                if future is mine:
                    self._start_into(mine, on_progress)
            finally:
                self._leave_start(mine)
            if future is None:
                continue
            try:
                return future.result(_RECHECK_SECONDS)
            except LocalLlamaError as error:
                if future is mine:
                    raise
                # One error object in several threads would collect all their tracebacks.
                raise copy.copy(error) from error
            except (_StarterInterruptedError, FutureTimeoutError):
                if future is mine:  # the starter's own TimeoutError
                    raise
        return running

    def _join_start(self, mine: Future[StartedServer]) -> Future[StartedServer] | None:
        """The start to wait for: another thread's, or `mine`, which is to be made then; None if there is a server."""
        with self._lock:
            if self._started is not None:
                joined = None
            elif self._starting is not None and not self._starting.done():
                joined = self._starting
            else:
                joined = self._starting = mine
                self._generation += 1
        self._settle()
        return joined

    def _leave_start(self, mine: Future[StartedServer]) -> None:
        """Ctrl-C belongs to the thread that it hit; the others start anew."""
        if not mine.done():
            mine.set_exception(_StarterInterruptedError())
        with self._lock:
            if self._starting is mine:
                self._starting = None
        self._settle()

    def _start_into(self, future: Future[StartedServer], on_progress: Callable[[StartProgress], None]) -> None:
        try:
            if _Exit.has_begun:
                raise ClientClosedError("The interpreter is exiting; no server is started any more.")
            started = self._starter(self._generation, lambda: not self.is_wanted, on_progress)
            if not self._adopt(started):
                started.process.stop()
                raise ClientClosedError("The client was closed while its server was starting.")
            future.set_result(started)
        except Exception as error:  # noqa: BLE001  # every waiting caller gets it, this one included
            future.set_exception(error)
        if self._idle_timeout_seconds is not None and future.exception() is None:
            _watch_idleness(self, future.result(), self._idle_timeout_seconds)

    def _adopt(self, started: StartedServer) -> bool:
        with self._lock:
            is_wanted = bool(self._tokens)
            if is_wanted:
                self._notes = (started.endpoint.generation, {})
                self._started, self._starting, self._was_stopped = started, None, False
                self._last_use = time.monotonic()
        self._settle()
        return is_wanted

    def _note_crash(self) -> None:
        dead = self._started
        if dead is not None and dead.process.exit_status() is not None:
            from .ended import crash_error

            self._give_up(dead, crash_error(dead))

    def crash_of(self, generation: int) -> ServerCrashedError | None:
        """The error that tells how the server of this generation died; None if it lives, or was stopped by us."""
        started = self._started
        if started is not None and started.endpoint.generation == generation:
            # The broken connection is often noticed before the supervisor's word about the death.
            if started.process.wait_for_exit(_EXIT_NEWS_SECONDS) is not None:
                self._note_crash()
            elif _is_deaf(started):
                from .ended import deaf_error

                self._give_up(started, deaf_error(started))
        # A copy for each caller: raised, it holds on to the frames it came through, and to the client in them.
        return copy.copy(self._crash_logs.get(generation))

    def _give_up(self, started: StartedServer, reason: ServerCrashedError) -> None:
        # First, for the others whose calls broke off: one that finds the server gone must find the reason too.
        self._crash_logs[started.endpoint.generation] = reason
        self._crash_logs.pop(started.endpoint.generation - _REMEMBERED_CRASHES, None)
        with self._lock:
            if self._started is started:
                self._started = None
        self._settle()
        started.process.stop()

    def stop_if_idle(self, timeout_seconds: float) -> bool:
        """`stop`, unless there has been a request within the last `timeout_seconds`; whether it did."""
        with self._lock:
            is_idle = self.idle_seconds() >= timeout_seconds
            # Under the same lock, so that no call gets the server now that is about to stop: see `ready`.
            stopped = self._started if is_idle else None
            if is_idle:
                self._started, self._was_stopped = None, True
        self._settle()
        if stopped is not None:
            stopped.process.stop()
        return is_idle

    def stop(self) -> None:
        """Stop the child and wait for its end; the next call starts it again if there are leases."""
        with self._lock:
            started, self._started = self._started, None
            self._was_stopped = True
        self._settle()
        if started is not None:
            started.process.stop()

    # -- requests ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Marks a request in flight, so that idleness is measured between requests and not inside one."""
        # Without the lock: an abandoned stream ends inside a garbage collection, perhaps of a thread that holds it.
        mark = object()
        self._in_use.add(mark)
        try:
            yield
        finally:
            self._last_use = time.monotonic()
            self._in_use.discard(mark)

    def idle_seconds(self) -> float:
        """How long there has been no request; 0.0 while there is one."""
        return 0.0 if self._in_use else time.monotonic() - self._last_use

    def notes(self, generation: int) -> dict[str, Any]:
        """What clients have learned of the server of this generation; forgotten with it."""
        noted_generation, notes = self._notes
        return notes if noted_generation == generation and self._started is not None else {}


class _StarterInterruptedError(Exception):
    """The thread that was starting the server was interrupted."""


def _is_deaf(started: StartedServer) -> bool:
    """Whether the server runs, and nobody can reach it any more.

    Cleaners of temporary directories remove what looks old. And llama-server stops listening when somebody sends it
    SIGTERM, but ends only after the last request in flight.
    """
    path = started.endpoint.socket_path
    if path is None:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # a full queue is a sign of life
            probe.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return True
    except OSError:  # also where this process has no descriptor left, which says nothing of the server
        return False
    return False


def _watch_idleness(server: SharedServer, started: StartedServer, timeout_seconds: float) -> None:
    """Stop `started` once it has had no request for so long. One daemon thread for the life of that child."""
    reference = weakref.ref(server)

    def watch() -> None:
        wait_seconds = min(timeout_seconds, _LONGEST_WAIT_SECONDS)
        while started.process.wait_for_exit(wait_seconds) is None:
            shared = reference()
            if shared is None or shared.running() is not started or shared.stop_if_idle(timeout_seconds):
                return
            wait_seconds = min(max(0.01, timeout_seconds - shared.idle_seconds()), _LONGEST_WAIT_SECONDS)
            del shared

    threading.Thread(target=watch, name="localllama-idle", daemon=True).start()
