"""The examples are run as a user runs them: as programs of their own, in an empty folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.example_programs import EXAMPLES, Run, Start


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an example; it is killed at the end of the test if it still runs."""
    programs: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: object) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        programs.append(program)
        return program

    yield start
    for program in programs:
        program.kill()
        program.communicate(timeout=30)


@pytest.fixture
def run(start: Start) -> Run:
    """Run an example to its end: exit code, stdout, stderr."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        program = start(name, *arguments)
        out, err = program.communicate(timeout=280)
        return program.returncode, out, err

    return run
