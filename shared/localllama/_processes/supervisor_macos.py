"""How the supervisor watches its owner on macOS and the BSDs. Unverified on this platform: read, not run there.

Part of the supervisor's program: see `supervisor`, which this file is put behind. (Tests run it on Linux, on an
imitation of kqueue.)

- kqueue's NOTE_EXIT tells of the owner's death. It also covers a lifeline that leaked into another child: these
  systems cannot make descriptors that are close-on-exec from the start.
- Nothing like PDEATHSIG exists. If the supervisor is killed the owner sees that at the status pipe and kills the server;
  if both are killed at once, the end of the server's own stdin, the lifeline, has to do.
"""

import os
import select as _select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# Typed as Any: where there is no kqueue, the type checker knows none of its names.
select: "Any" = _select
PARENT_CHECK_SECONDS = 0.5
N_EVENTS = 16


class OwnerWatch:
    """Waits for descriptors, for the owner's death, and for the server's."""

    def __init__(self, owner_pid: int, owner_descriptor: int) -> None:  # noqa: ARG002 - there is no pidfd here
        self._owner_pid = owner_pid
        self._queue: Any = select.kqueue()
        self._ended: set[int] = set()
        self._watch_exit(owner_pid)

    def watch(self, descriptor: int) -> None:
        """Let `wait` return when `descriptor` is readable or at its end."""
        self._change(descriptor, select.KQ_FILTER_READ, select.KQ_EV_ADD)

    def unwatch(self, descriptor: int) -> None:
        """Undo `watch`."""
        self._change(descriptor, select.KQ_FILTER_READ, select.KQ_EV_DELETE)

    def wait(self) -> set[int]:
        """Block until something is to be looked at; returns the descriptors that are ready."""
        events = self._queue.control(None, N_EVENTS, PARENT_CHECK_SECONDS)
        self._ended.update(event.ident for event in events if event.filter == select.KQ_FILTER_PROC)
        return {event.ident for event in events if event.filter == select.KQ_FILTER_READ}

    def is_owner_gone(self) -> bool:
        """Whether the owner has died; a process whose parent died has another parent."""
        return self._owner_pid in self._ended or os.getppid() != self._owner_pid

    def has_ended(self, pid: int) -> bool:
        """Whether our child `pid` has ended; it stays unreaped, so that its pid remains its own.

        os.waitid is missing here before Python 3.13, so the question is put to kqueue, which answers for a child that
        ended earlier as well: until it is reaped it counts as there, and its note comes at once.
        """
        if pid not in self._ended:
            self._watch_exit(pid)
            for event in self._queue.control(None, N_EVENTS, 0):
                if event.filter == select.KQ_FILTER_PROC:
                    self._ended.add(event.ident)
        return pid in self._ended

    def tie_to_parent(self) -> None:
        """Nothing: see above."""

    def strays(self) -> list[int]:
        """None that could be known."""
        return []

    def _watch_exit(self, pid: int) -> None:
        try:
            self._change(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
        except ProcessLookupError:
            self._ended.add(pid)

    def _change(self, ident: int, kind: int, action: int, note: int = 0) -> None:
        self._queue.control([select.kevent(ident, kind, action, note)], 0)
