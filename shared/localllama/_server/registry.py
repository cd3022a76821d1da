"""Leases: shares of the servers of this process, and the registry that finds the server of equal settings.

The child is started by the first call that needs it, whoever makes it; every other caller waits for that same start. When
the last lease is released the child is stopped.

A forked child has a new registry, and every lease that it inherited takes a new share there: its own server. It never
stops, and never uses, the server of its parent.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from localllama.errors import ClientClosedError

from .shared_server import SharedServer, Starter, refuse_starts

if TYPE_CHECKING:
    from .start import StartedServer

__all__ = ["Lease", "acquire_lease", "running_servers"]


class Lease:
    """One user's share of a server. Starts nothing by itself.

    Args:
        key: Equal keys share one server.
        starter: Starts it.
        idle_timeout_seconds: Stop the server after so long without a request.
    """

    def __init__(self, key: str, starter: Starter, idle_timeout_seconds: float | None) -> None:
        self._key = key
        self._starter = starter
        self._idle_timeout_seconds = idle_timeout_seconds
        self._lock = threading.RLock()  # a signal handler may come while this very thread holds it
        self._token: object | None = None
        self._server: SharedServer | None = None
        self._creator_pid = 0
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._is_released = False
        _all_leases.add(self)

    def server(self) -> SharedServer:
        """The shared server, taken on first use so that unused objects cost nothing.

        Raises:
            ClientClosedError: The lease was released.
        """
        with self._lock:
            if self._is_released:
                raise ClientClosedError(
                    "This client was closed.", hint="Make a new one; equal settings share a server that still runs."
                )
            if self._server is None or self._creator_pid != os.getpid():
                self._take_share()
            assert self._server is not None
            return self._server

    def _take_share(self) -> None:
        token = object()

        def before_it_counts(server: SharedServer) -> None:
            # An interrupt must not leave a share that nobody can give back.
            self._finalizer = weakref.finalize(self, _release_from_finalizer, server, token, os.getpid())

        server = _registry.share(self._key, self._starter, self._idle_timeout_seconds, token, before_it_counts)
        self._server, self._token, self._creator_pid = server, token, os.getpid()

    @property
    def is_released(self) -> bool:
        """Whether `release` was called."""
        return self._is_released

    def peek(self) -> SharedServer | None:
        """The shared server if this lease has one in this process."""
        return self._server if self._creator_pid == os.getpid() else None

    def release(self) -> None:
        """Give the share back and, if it was the last one, wait for the end of the child. Idempotent."""
        with self._lock:
            self._is_released = True
            server, token, finalizer = self._server, self._token, self._finalizer
            is_ours = self._creator_pid == os.getpid()
            self._server = self._token = self._finalizer = None
        if server is None or not is_ours:
            return
        ending = server.release(token)
        if finalizer is not None:
            finalizer.detach()  # only now: an interrupt before leaves it to the garbage collection
        _registry.forget_unwanted(server)
        if ending is not None:
            ending.process.stop()

    def reset_after_fork(self) -> None:
        """Give this lease a lock that no thread of the parent can hold."""
        self._lock = threading.RLock()  # a signal handler may come while this very thread holds it


def _release_from_finalizer(server: SharedServer, token: object, creator_pid: int) -> None:
    if os.getpid() == creator_pid:
        server.release(token)


class _Registry:
    """The shared servers of this process, by key."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may come while this very thread holds it
        self._servers: dict[str, SharedServer] = {}

    def share(
        self,
        key: str,
        starter: Starter,
        idle_timeout_seconds: float | None,
        token: object,
        before_it_counts: Callable[[SharedServer], None],
    ) -> SharedServer:
        with self._lock:
            new = SharedServer(key, starter, idle_timeout_seconds)
            server = self._servers.setdefault(key, new)
            before_it_counts(server)
            server.add(token)
            # A signal handler may have closed the only other client of it meanwhile.
            self._servers.setdefault(key, server)
            return server

    def forget_unwanted(self, server: SharedServer) -> None:
        with self._lock:
            if not server.is_wanted and self._servers.get(server.key) is server:
                self._servers.pop(server.key, None)

    def running(self) -> list[StartedServer]:
        return [started for server in list(self._servers.values()) if (started := server.running()) is not None]

    def stop_all(self) -> None:
        servers = list(self._servers.values())
        for started in self.running():
            started.process.abandon()
        for server in servers:
            server.stop()


_registry = _Registry()
_all_leases: weakref.WeakSet[Lease] = weakref.WeakSet()


def acquire_lease(key: str, starter: Starter, idle_timeout_seconds: float | None) -> Lease:
    """A lease on the server of this key; nothing is started."""
    return Lease(key, starter, idle_timeout_seconds)


def running_servers() -> list[StartedServer]:
    """The servers of this process that run, whoever holds them."""
    return _registry.running()


def _at_exit() -> None:
    refuse_starts()
    _registry.stop_all()


def _after_fork_in_child() -> None:
    global _registry  # noqa: PLW0603  # a forked child has servers of its own
    _registry = _Registry()
    for lease in list(_all_leases):
        lease.reset_after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
