"""Lets coverage see the supervisor, a program that is sealed off from everything around it.

It is run as text by `python -I -S -c`, so no hook of coverage gets in. Where the tests are measured, the same two files are
run under their own names with a measurement of their own around them; nothing else changes, and a supervisor that is
killed is not measured at all.
"""

from __future__ import annotations

import functools
from pathlib import Path

import coverage
import pytest

from localllama._processes import launch_posix

__all__ = ["measure_supervisors"]

_PROGRAM = """
import sys
sys.path.append({packages!r})
import coverage
measurement = coverage.Coverage(data_file={data_file!r}, data_suffix=True, branch=True, include=[{pattern!r}])
measurement.start()
names = {{"__name__": "__main__"}}
for path in {paths!r}:
    exec(compile(open(path).read(), path, "exec"), names)
end = os._exit
def end_measured(code):
    measurement.stop()
    measurement.save()
    end(code)
os._exit = end_measured
names["main"](names["OwnerWatch"])
"""


@functools.cache
def _measured(platform: str, data_file: str) -> str:
    directory = Path(launch_posix.__file__).parent
    paths = [str(directory / f"{name}.py") for name in ("supervisor", platform)]
    packages = str(Path(coverage.__file__).parent.parent)
    pattern = str(directory / "supervisor*.py")
    return _PROGRAM.format(packages=packages, data_file=data_file, paths=paths, pattern=pattern)


def measure_supervisors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the program of every supervisor that is started from here on, if this process is measured."""
    current = coverage.Coverage.current()
    if current is not None:
        data_file = str(Path(current.config.data_file).absolute())
        monkeypatch.setattr(launch_posix, "supervisor_program", lambda platform: _measured(platform, data_file))
