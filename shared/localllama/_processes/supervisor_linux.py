"""How the supervisor watches its owner on Linux, and on any other POSIX system that has no kqueue.

Part of the supervisor's program: see `supervisor`, which this file is put behind.

- The owner's pidfd becomes readable when the whole process is gone; a thread that ends does not count. Where there is
  none (before Linux 5.3, some sandboxes) the parent's pid is compared twice a second.
- PDEATHSIG ends the server when the supervisor is killed. It fires when the *thread* that forked ends, so it is safe
  here, in a process of one thread, and was not in the owner.
- It ends the server alone. If that is a script around the real one, a pipe ends the rest: the server's whole group has its
  read end, and the kernel is told to send that group SIGKILL, in the place of SIGIO, when the other end closes. We are
  the only one who has that.
- The supervisor asks PDEATHSIG for SIGCONT: if someone stopped it, it runs again when its owner dies, and sees that.
  For each thread of the owner that ends there may be one for nothing, and a SIGCONT does nothing to who is not stopped.
"""

import fcntl
import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PARENT_CHECK_MILLISECONDS = 500


class OwnerWatch:
    """Waits for descriptors, for the owner's death, and ties lives together."""

    def __init__(self, owner_pid: int, owner_descriptor: int) -> None:
        self._owner_pid = owner_pid
        self._owner_descriptor = owner_descriptor
        self._poll = select.poll()
        self._is_exit_seen = False
        self._timeout_ms: int | None = PARENT_CHECK_MILLISECONDS
        if owner_descriptor >= 0:
            self._poll.register(owner_descriptor, select.POLLIN)
            self._timeout_ms = None
        self._prctl = load_prctl()
        if self._prctl is not None:
            self._prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
            self._prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._group_tie, self._our_end = os.pipe()

    def watch(self, descriptor: int) -> None:
        """Let `wait` return when `descriptor` is readable or at its end."""
        self._poll.register(descriptor, select.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Undo `watch`."""
        self._poll.unregister(descriptor)

    def wait(self) -> set[int]:
        """Block until something is to be looked at; returns the descriptors that are ready."""
        ready = {descriptor for descriptor, _ in self._poll.poll(self._timeout_ms)}
        self._is_exit_seen = self._is_exit_seen or self._owner_descriptor in ready
        return ready

    def is_owner_gone(self) -> bool:
        """Whether the owner has died; a process whose parent died has another parent."""
        return self._is_exit_seen or os.getppid() != self._owner_pid

    def has_ended(self, pid: int) -> bool:
        """Whether our child `pid` has ended; it stays unreaped, so that its pid remains its own.

        Reaps adopted children (see `strays`) on the way.
        """
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == pid:
                return True
            os.waitpid(ended.si_pid, 0)
        return False

    def tie_to_parent(self) -> None:
        """In the child that becomes the server: die when the parent does, with the whole process group."""
        if self._prctl is not None:
            self._prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        try:
            fcntl.fcntl(self._group_tie, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(self._group_tie, fcntl.F_SETOWN, -os.getpid())
            fcntl.fcntl(self._group_tie, fcntl.F_SETFL, os.O_ASYNC)
            os.set_inheritable(self._group_tie, True)
        except (AttributeError, OSError):
            pass  # not this kernel's; the server itself is tied all the same

    def strays(self) -> list[int]:
        """Our children: once the server is reaped, those are its descendants that outlived it."""
        if self._prctl is None:
            return []
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
                return [int(pid) for pid in file.read().split()]
        except OSError:
            return []  # a kernel without CONFIG_PROC_CHILDREN, or no /proc


def load_prctl() -> "Callable[..., int] | None":
    """The C function prctl, or None where there is none."""
    try:
        import ctypes

        prctl: Callable[..., int] = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    return prctl
