"""The command line in a process of its own, since huggingface_hub reads its settings once, when it is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.hub_fetch import hub_environment

_PROGRAM = """
import sys, time
time.sleep = lambda seconds: None
from localllama.cli.app import run
run(sys.argv[1:])
"""


def localllama(*arguments: str, endpoint: str, cache: Path) -> tuple[int, str]:
    """Run the command line against a hub, with the store in the cache; returns the exit code and standard error."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        env=hub_environment(endpoint, cache),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr
