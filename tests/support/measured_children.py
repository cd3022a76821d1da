"""Lets coverage see our children: programs that are sealed off from everything around them.

The supervisor is run as text by `python -I -S -c`, the embedded runtime and the stand-in in front of one-shot programs by
path with `python -I -S`; no hook of coverage gets in. Where the tests are measured (`pytest --cov`), the same files are run
under their own names with a measurement around them, and nothing else changes. Servers end by signals that nobody can
handle, so what they have run is written down while they run; what a child did in its last tenth of a second, or a supervisor
that is killed, is not counted.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import coverage
import pytest

import localllama
from localllama._processes import launch_posix
from localllama._runtime import resolve

__all__ = ["measure_children"]

_PACKAGES = str(Path(coverage.__file__).parent.parent)
_PACKAGE = str(Path(localllama.__file__).parent)

_MEASURED = """
import os, sys, threading, warnings
try:
    os.getcwd()
except FileNotFoundError:
    os.chdir("/")  # coverage cannot live without
sys.path.append({packages!r})
import coverage
sys.path.remove({packages!r})
warnings.simplefilter("ignore", coverage.exceptions.CoverageWarning)  # what a child says is tested too
measurement = coverage.Coverage({data_file!r}, True, config_file=False, branch=True, include=[{package!r} + "/*"])
measurement.start()
lock, end = threading.Lock(), os._exit
def save_at_the_end():
    with lock:
        measurement.stop()
        measurement.save()
def end_measured(code):
    save_at_the_end()
    end(code)
os._exit = end_measured
"""

_SUPERVISOR = """
names = {{"__name__": "__main__"}}
for path in {paths!r}:
    exec(compile(open(path).read(), path, "exec"), names)
names["main"](names["OwnerWatch"])
"""

_SERVER = """
def save_while_it_runs():
    while not threading.Event().wait(0.1):
        with lock:
            measurement.save()
threading.Thread(target=save_while_it_runs, daemon=True).start()
sys.argv = sys.argv[1:]
import runpy
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    save_at_the_end()
"""

_SHELL = """#!/bin/sh
[ "$3" = -c ] && exec "{python}" "$@"
shift 2
exec "{python}" -I -S "{measured}" "$@"
"""


@functools.cache
def _supervisor(platform: str, data_file: str) -> str:
    directory = Path(launch_posix.__file__).parent
    paths = [str(directory / f"{name}.py") for name in ("supervisor", platform)]
    return _measurement(data_file) + _SUPERVISOR.format(paths=paths)


def _measurement(data_file: str) -> str:
    return _MEASURED.format(packages=_PACKAGES, data_file=data_file, package=_PACKAGE)


@functools.cache
def _python(directory: Path, data_file: str) -> str:
    """A program that runs `-I -S FILE ARGUMENTS...` as Python does, measured; and `-I -S -c TEXT`, not measured."""
    (directory / "measured.py").write_text(_measurement(data_file) + _SERVER)
    program = directory / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    program.write_text(_SHELL.format(python=sys.executable, measured=directory / "measured.py"))
    program.chmod(0o755)
    return str(program)


def measure_children(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Replace the program of every child that is started from here on, if this process is measured."""
    current = coverage.Coverage.current()
    if current is None:
        return
    data_file = str(Path(current.config.data_file).absolute())
    monkeypatch.setattr(launch_posix, "supervisor_program", lambda platform: _supervisor(platform, data_file))
    python = _python(directory, data_file)
    original = resolve.python_program
    monkeypatch.setattr(resolve, "python_program", lambda: python if original() == sys.executable else original())
