"""An imitation of kqueue for Linux, put in front of the supervisor's program, so that `supervisor_macos` can be run here.

It offers what that file uses, and no more, with macOS's meaning: level-triggered EVFILT_READ, EVFILT_PROC with
NOTE_EXIT that fires once, ESRCH for a process that has ended. It is built on poll and pidfds.
"""

import os
import select

select.KQ_FILTER_READ, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_EV_DELETE, select.KQ_NOTE_EXIT = (
    -1,
    -5,
    1,
    2,
    9,
)


class ImitatedEvent:
    def __init__(self, ident, filter, flags=0, fflags=0):  # noqa: A002 - kevent's own name
        self.ident, self.filter, self.flags, self.fflags = ident, filter, flags, fflags


class ImitatedQueue:
    def __init__(self):
        self._poll = select.poll()
        self._processes = {}

    def control(self, changes, n_events, timeout=None):
        for change in changes or ():
            if change.filter == select.KQ_FILTER_READ and change.flags == select.KQ_EV_ADD:
                self._poll.register(change.ident, select.POLLIN)
            elif change.filter == select.KQ_FILTER_READ:
                self._poll.unregister(change.ident)
            elif change.ident not in self._processes.values():
                descriptor = os.pidfd_open(change.ident)
                self._processes[descriptor] = change.ident
                self._poll.register(descriptor, select.POLLIN)
        if not n_events:
            return []
        milliseconds = None if timeout is None else timeout * 1000
        return [self._event(descriptor) for descriptor, _ in self._poll.poll(milliseconds)]

    def _event(self, descriptor):
        pid = self._processes.get(descriptor)
        if pid is None:
            return ImitatedEvent(descriptor, select.KQ_FILTER_READ)
        self._poll.unregister(descriptor)
        return ImitatedEvent(pid, select.KQ_FILTER_PROC)


select.kqueue, select.kevent = ImitatedQueue, ImitatedEvent
