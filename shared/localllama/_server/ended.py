"""What is said of a server that has ended: how, why, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localllama._processes.process import ExitStatus
from localllama._runtime.exit_reason import exit_words
from localllama.errors import ServerCrashedError

if TYPE_CHECKING:
    from .start import StartedServer

__all__ = ["crash_error", "deaf_error", "describe_exit", "last_lines"]

_LOG_TAIL_LINES = 25


def last_lines(log: str) -> str:
    """The end of a log, short enough for an error message."""
    return "\n".join(log.rstrip().splitlines()[-_LOG_TAIL_LINES:])


def describe_exit(status: ExitStatus) -> str:
    """How a process ended, in words."""
    if status.is_supervisor_lost and status.exit_code is None and status.signal_number is None:
        return "ended in an unknown way (its supervisor was killed)"
    return exit_words(status.exit_code, status.signal_number)


def crash_error(dead: StartedServer) -> ServerCrashedError:
    """For a server that died while it served."""
    status = dead.process.exit_status() or ExitStatus()
    return ServerCrashedError(
        f"The llama.cpp server ({dead.runtime.origin}) {describe_exit(status)} while it served.",
        hint="The log says why; if memory ran out, lower n_ctx, n_gpu_layers or parallel.",
        exit_code=status.exit_code,
        signal_number=status.signal_number,
        log_tail=last_lines(dead.process.log_tail()),
        command=dead.command,
    )


def deaf_error(started: StartedServer) -> ServerCrashedError:
    """For a server that runs and can no longer be reached."""
    return ServerCrashedError(
        f"The llama.cpp server no longer listens on {started.endpoint.socket_path}: another program told it to end, or "
        "removed its socket.",
        hint="Make another call: it starts a new server. Keep cleaners away from localllama-* directories.",
        log_tail=last_lines(started.process.log_tail()),
        command=started.command,
    )
