"""Starts a program and ends it.

The program stays in the process group of the stand-in, which the supervisor kills as a whole, whatever happens to the owner.
On Linux the kernel also kills it when the stand-in is killed alone. What ends one run early (a caller who has left, a stop
string) kills that program and what it started, and nothing else.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["die_with_parent", "kill_with_children", "spawn"]

_PR_SET_PDEATHSIG = 1


def kill_with_children(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a program and all that it started; a wrapper script is a program too."""
    import psutil

    children = []
    with contextlib.suppress(psutil.Error):
        ours = psutil.Process(process.pid)
        with contextlib.suppress(psutil.Error):
            ours.suspend()  # so that it starts nothing while we look
        children = ours.children(recursive=True)
    with contextlib.suppress(OSError):
        process.kill()
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.kill()


def spawn(arguments: list[str]) -> subprocess.Popen[bytes]:
    options: dict[str, Any] = {"preexec_fn": _tie_to_us} if sys.platform == "linux" else {}
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        **options,
    )


def _load_prctl() -> Callable[..., int] | None:
    import ctypes

    try:
        prctl: Callable[..., int] = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None
    return prctl


# Loaded once, before there are threads: what runs between fork and exec may take no lock.
_prctl = _load_prctl() if sys.platform == "linux" else None


def die_with_parent(number: int) -> None:
    """Let the kernel send this process a signal when its parent dies; nothing where the system knows no such thing."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _tie_to_us() -> None:
    # It is sent when the thread ends that forked, which here waits for the program.
    die_with_parent(signal.SIGKILL)
