"""A process that we started, and that we signal only while it is surely still that one."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from .descriptors import Descriptor
from .supervisor import start_time

if TYPE_CHECKING:
    import psutil

_ROUNDS = 5  # a member may fork while the others are being killed


class ChildIdentity:
    """Holds on to one process: by a pidfd on Linux, by pid and start time elsewhere.

    Args:
        pid: A child of ours, or of our supervisor.
        started: When it started as its parent saw it (`supervisor.start_time`); "-" if that is not known.
    """

    def __init__(self, pid: int, started: str = "-") -> None:
        self.pid = pid
        self._pidfd = Descriptor()
        self._process: psutil.Process | None = None
        try:
            self._pidfd = Descriptor(os.pidfd_open(pid))
        except AttributeError:
            self._process = _by_start_time(pid)
        except OSError as error:
            if not isinstance(error, ProcessLookupError):  # a kernel or a sandbox without pidfds
                self._process = _by_start_time(pid)
        # Its parent may have reaped it before we came, and the pid may be another's by now.
        if started not in ("-", start_time(pid)):
            self.close()
            self._process = None

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the process; from here on it cannot be signalled."""
        self._pidfd.close()

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        pidfd = self._pidfd.number
        if pidfd >= 0:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            return not poll.poll(0)
        if self._process is None:
            return False
        import psutil

        with contextlib.suppress(OSError, psutil.Error):  # its parent may reap it between the two questions
            return bool(self._process.is_running() and self._process.status() != "zombie")
        return False

    def wait_for_end(self, timeout_seconds: float) -> None:
        """Wait until it has ended, a zombie counting as ended, or the time is over."""
        pidfd = self._pidfd.number
        if pidfd >= 0:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(timeout_seconds * 1000)
            return
        deadline = time.monotonic() + timeout_seconds
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)

    def send_signal(self, number: int) -> None:
        """Signal this process, if it is there."""
        with contextlib.suppress(OSError):
            pidfd = self._pidfd.number
            if pidfd >= 0:
                signal.pidfd_send_signal(pidfd, number)
            elif self.is_alive():
                os.kill(self.pid, number)

    def kill_group(self) -> None:
        """Kill this process and, if it leads a process group of its own, that group."""
        with contextlib.suppress(OSError):
            if self.is_alive() and os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, signal.SIGKILL)
        self.send_signal(signal.SIGKILL)


def kill_session(leader: int) -> None:
    """Kill what is left of a session whose leader, a child of ours, is dead and reaped.

    The number of a session stays taken while anyone is in it, so whoever is in it now was started by that leader, unless
    the number belongs to a living process: then the session was empty and the number is another's.
    """
    import psutil

    with contextlib.suppress(ProcessLookupError):
        os.getsid(leader)
        return
    for _ in range(_ROUNDS):
        members = [pid for pid in psutil.pids() if _session_of(pid) == leader]
        if not members:
            return
        for pid in members:
            member = ChildIdentity(pid)
            if _session_of(pid) == leader:
                member.send_signal(signal.SIGKILL)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _by_start_time(pid: int) -> psutil.Process | None:
    import psutil

    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None
