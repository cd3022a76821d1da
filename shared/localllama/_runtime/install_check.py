"""What an installation asks, quietly: a package manager's index for a name, and a runtime whether it loads a model."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from .resolve import python_program

__all__ = ["ask_quietly", "exit_of", "fault_of_runtime"]

NOT_STARTED = 126
"""As a shell's exit code for a program that could not be started."""
TIMED_OUT = 124
"""As that of `timeout`."""
_QUESTION_SECONDS = 300.0  # dnf fetches its whole index for one
_POLL_SECONDS = 0.2
_LONGEST_WORD = 200  # characters
_LAST_BYTES = 1 << 16
_CHECK = """
import os, sys
sys.path.extend(path for path in sys.argv[3].split(os.pathsep) if path not in sys.path)
from localllama import (
    ChatRequest, LocalLlamaClient, LocalLlamaError, Message, SamplingSettings, ServerSettings
)
settings = ServerSettings(model=sys.argv[1], runtime=sys.argv[2], n_threads=1)
try:
    with LocalLlamaClient(settings, sampling=SamplingSettings(max_tokens=1)) as client:
        client.chat(ChatRequest((Message("user", "Hello"),)))
except LocalLlamaError as error:
    sys.exit(" ".join(error.message.split()))
"""


def ask_quietly(command: Sequence[str], while_waiting: Callable[[], None] | None = None) -> tuple[int, str]:
    """Run a question to an index; its exit code, and the last line that it wrote to its standard error.

    Args:
        command: The question.
        while_waiting: Called again and again until there is an answer; an error that it raises ends the question.
    """
    # Into a file: a pipe is open for as long as anything that the package manager left behind.
    with TemporaryFile() as words:
        try:
            process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words)
        except OSError as error:
            return NOT_STARTED, error.strerror or str(error)
        deadline = time.monotonic() + _QUESTION_SECONDS
        with process:
            try:
                while (code := exit_of(process)) is None:
                    if while_waiting is not None:
                        while_waiting()
                    if time.monotonic() > deadline:
                        process.kill()
                        return TIMED_OUT, f"no answer within {_QUESTION_SECONDS:.0f} seconds"
            except BaseException:
                process.kill()
                raise
        words.seek(max(0, words.seek(0, os.SEEK_END) - _LAST_BYTES))
        lines = words.read().decode("utf-8", "replace").strip().splitlines()
    return code, lines[-1][:_LONGEST_WORD] if lines else ""


def exit_of(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code of a process, for which it waits a moment; None if it still runs."""
    try:
        return process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def fault_of_runtime(runtime: str, model: Path) -> str | None:
    """Load a model with one rung, so that no other one vouches for it.

    In a new process, which sees a package that was installed a moment ago.

    Args:
        runtime: The rung.
        model: A file.

    Returns:
        None if a token was generated, else why not.
    """
    python = python_program()
    if python is None:
        return f"sys.executable={sys.executable!r} is no Python to try it with"
    paths = os.pathsep.join(path for path in sys.path if path and Path(path).is_absolute())
    with TemporaryDirectory() as empty:  # "python -c" would import what lies in the current directory
        answer = subprocess.run(
            [python, "-c", _CHECK, str(model.absolute()), runtime, paths],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=empty,
            text=True,
            errors="replace",
            check=False,
        )
    if answer.returncode == 0:
        return None
    return answer.stderr.strip().splitlines()[-1] if answer.stderr.strip() else "it does not load a model"
