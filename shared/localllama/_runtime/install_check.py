"""What an installation asks, quietly: a package manager's index for a name, and a runtime whether it loads a model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from .resolve import python_program

__all__ = ["ask_quietly", "fault_of_runtime"]

NOT_STARTED = 126
"""As a shell's exit code for a program that could not be started."""
_LONGEST_WORD = 200  # characters
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


def ask_quietly(command: Sequence[str]) -> tuple[int, str]:
    """Run a question to an index; its exit code, and the last line that it wrote to its standard error."""
    try:
        answer = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
    except OSError as error:
        return NOT_STARTED, error.strerror or str(error)
    lines = answer.stderr.decode("utf-8", "replace").strip().splitlines()
    return answer.returncode, lines[-1][:_LONGEST_WORD] if lines else ""


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
