"""Descriptors that stay ours only as long as the host lets them.

Programs that turn into daemons, and some test runners, close every descriptor that they find. The number may be another's
by the time we come back to it: a file of the user's, a connection. So each is known by its number and by what was behind
it, and is read, shut and closed only while it is still that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from typing import ClassVar

_STDERR = 2


class Descriptor:
    """An open descriptor of ours, and what it was when we got it.

    Args:
        number: The open descriptor; -1 is none.
    """

    def __init__(self, number: int = -1) -> None:
        self._number = number
        self._identity = _identity(number)

    @property
    def number(self) -> int:
        """The number; -1 if there is none, it was closed, or it is another's by now."""
        is_ours = self._number >= 0 and _identity(self._number) == self._identity
        return self._number if is_ours else -1

    def close(self) -> None:
        """Close it, if it is still ours. Idempotent."""
        number, self._number = self.number, -1
        if number >= 0:
            os.close(number)


def _identity(number: int) -> tuple[int, int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mode


class Descriptors:
    """Descriptors of one launch. A fork closes them in the child, whatever line the other threads are at."""

    _registry: ClassVar[dict[int, Descriptors]] = {}

    def __init__(self) -> None:
        self._open: dict[str, Descriptor] = {}
        self._lifeline: socket.socket | None = None
        self._lifeline_descriptor = Descriptor()
        self.is_lifeline_shut = False
        Descriptors._registry[id(self)] = self

    def keep_lifeline(self, lifeline: socket.socket) -> None:
        """Take over our end of the lifeline; as an object, which no interrupt can lose between two steps."""
        self._lifeline = lifeline
        self._lifeline_descriptor = Descriptor(lifeline.fileno())

    def add(self, name: str, descriptor: int) -> None:
        """Take over an open descriptor (-1 is none)."""
        if descriptor < 0:
            return
        if descriptor <= _STDERR:
            # The host has closed its standard streams; in the supervisor these three numbers are taken.
            low, descriptor = descriptor, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
            os.close(low)
        self._open[name] = Descriptor(descriptor)

    def get(self, name: str) -> int:
        """The number, or -1 if there is none or it is closed."""
        kept = self._open.get(name)
        return -1 if kept is None else kept.number

    def numbers(self) -> list[int]:
        """Those that are open."""
        return [number for kept in self._open.values() if (number := kept.number) >= 0]

    def shut_lifeline(self) -> None:
        """End the lifeline for everyone, whoever else holds a copy. Its number stays taken until `close`."""
        self.is_lifeline_shut = True
        lifeline = self._lifeline
        if lifeline is not None and self._lifeline_descriptor.number >= 0:
            with contextlib.suppress(OSError):  # the other end is gone already
                lifeline.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all that are still ours."""
        while self._open:
            self._open.popitem()[1].close()
        if self._lifeline is not None:
            if self._lifeline_descriptor.number < 0:
                self._lifeline.detach()
            self._lifeline.close()
        Descriptors._registry.pop(id(self), None)

    @classmethod
    def close_all_in_forked_child(cls) -> None:
        """Leave to the parent what is the parent's."""
        for descriptors in list(cls._registry.values()):
            descriptors.close()


os.register_at_fork(after_in_child=Descriptors.close_all_in_forked_child)
