"""Starting a server process and owning it: it ends when this process does, however that happens.

This module is the seam. What makes it true differs between platforms and lives in one file each: `launch_posix` (a
supervisor process) and `launch_windows` (a job object).
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STOP_SECONDS = 2.0
LOG_BYTES = 64 * 1024


@dataclass(frozen=True)
class LaunchPlan:
    """What to run.

    Attributes:
        argv: The command line; `argv[0]` is a path, or a name to be found on the PATH of `env`.
        env: The complete environment of the server; nothing of ours is added. Kept out of the repr.
        directory: The private directory of this server (see `private_directory`). From `launch` on it belongs to the
            server: it is removed with all its contents when the server has ended, also when the launch fails. None for
            a program that is asked one question, such as `--help`, and needs none.
        log_bytes: How much of what it prints is kept.
        output: A descriptor that takes all that is printed, in place of the log; -1 for the log.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    directory: Path | None
    log_bytes: int = LOG_BYTES
    output: int = -1


@dataclass(frozen=True)
class ExitStatus:
    """How a server ended.

    Attributes:
        exit_code: Its exit code; 127 or 126 if it could not be run at all (the log says why), as in a shell. None if
            it was killed or if nobody can say.
        signal_number: The signal that ended it, 9 if we did; None if it ended by itself or if nobody can say.
        is_supervisor_lost: The supervisor was killed before it could tell. The server is gone as well by then, but how
            it ended is not known.
    """

    exit_code: int | None = None
    signal_number: int | None = None
    is_supervisor_lost: bool = False


class ServerProcess(ABC):
    """A server that was started here and is ours to stop. Safe to use from any thread.

    An object that is garbage collected gives up its server as `abandon` does. In a forked child the object is not ours:
    there it can stop nothing and knows nothing.

    Attributes:
        pid: The server's process id.
        creator_pid: The process that started it, the only one that may stop it.
    """

    pid: int
    creator_pid: int

    def is_ours(self) -> bool:
        """Whether this process started the server; False in a forked child of the one that did."""
        return os.getpid() == self.creator_pid

    @abstractmethod
    def exit_status(self) -> ExitStatus | None:
        """How the server ended, or None while it runs; never blocks. None also if it is not ours."""

    @abstractmethod
    def wait_for_exit(self, timeout_seconds: float) -> ExitStatus | None:
        """Wait for the server's end and return at once when it comes; None if it still runs at the time limit."""

    @abstractmethod
    def log(self) -> str:
        """What is kept of what the server printed, both streams; whole lines, if some are lost. Also while it runs."""

    def log_tail(self) -> str:
        """The last 64 KiB, at most, of the log, which is all of it where the plan asks for no more; whole lines."""
        log = self.log()
        if len(log) <= LOG_BYTES:
            return log
        return log[-LOG_BYTES:].partition("\n")[2] or log[-LOG_BYTES:]

    @abstractmethod
    def abandon(self) -> None:
        """Give the server up: it will be killed and its directory removed, soon, but nobody waits for that.

        Takes no lock and never waits, so it may be called in finalizers, in signal handlers and at exit.
        """

    @abstractmethod
    def stop(self, timeout_seconds: float = STOP_SECONDS) -> ExitStatus | None:
        """Kill the server with all that it started, and wait for its end.

        It is SIGKILL at once: a llama-server with a request in flight does not end on SIGTERM until its client leaves.

        Args:
            timeout_seconds: How long to wait, at most.

        Returns:
            How it ended; None if that is not known yet (the kernel has not let go of it), or if it is not ours.
        """


def launch(plan: LaunchPlan) -> ServerProcess:
    """Start a server and return once its process exists; whether it then serves is for the caller to watch.

    May be called from any thread. An exception that arrives on the way, such as KeyboardInterrupt, leaves nothing
    behind.

    Raises:
        ServerStartError: No process could be started on this system, or this process is about to end itself. That the
            program cannot be run is not an error here: it shows as exit status 127 or 126.
    """
    if sys.platform == "win32":
        from .launch_windows import launch_in_job

        return launch_in_job(plan)
    else:  # noqa: RET505 - the type checker knows platforms by branches
        from .launch_posix import launch_with_supervisor

        return launch_with_supervisor(plan)
