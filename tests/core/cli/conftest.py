"""The command line as a user runs it: a process of its own, with a configuration directory of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environ(tmp_path: Path, micro_model: Path) -> dict[str, str]:
    """The environment of the command: the micro model is the default, nothing of the user's own is read."""
    values = {name: value for name, value in os.environ.items() if not name.startswith("LOCALLLAMA_")}
    values |= {"LOCALLLAMA_CONFIG_DIR": str(tmp_path / "config"), "LOCALLLAMA_MODEL": str(micro_model)}
    return values | {"NO_COLOR": "1", "COLUMNS": "200"}


@pytest.fixture
def localllama(environ: dict[str, str]) -> Command:
    def run(*arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(
            [sys.executable, "-m", "localllama", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=environ | more,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in answer.stderr, answer.stderr
        return answer

    return run
