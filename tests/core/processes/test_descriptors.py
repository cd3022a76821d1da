"""Hosts that close every descriptor they find, as programs do that turn into daemons; and what we hold of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from localllama._processes.descriptors import Descriptor
from localllama._processes.private_directory import make_private_directory
from localllama._processes.process import LaunchPlan, launch
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX descriptors")

_HOST = """
import gc, os, sys
from localllama._processes.private_directory import make_private_directory
from localllama._processes.process import LaunchPlan, launch

directory = make_private_directory()
server = launch(LaunchPlan(["sleep", "1000"], {"PATH": "/bin:/usr/bin"}, directory))
os.closerange(3, 256)
files = [os.open(sys.argv[1], os.O_RDWR) for _ in range(40)]  # they get the numbers that were ours
status = server.wait_for_exit(10)
assert status is not None and status.is_supervisor_lost, status
server.stop()
del server
gc.collect()
closed = 0
for number in files:
    try:
        os.fstat(number)
    except OSError:
        closed += 1
# Until Python 3.13 the module mmap keeps a copy of a descriptor for itself, and closes that number in the end.
assert closed <= (sys.version_info < (3, 13)), closed
print("untouched", len(open(sys.argv[1]).read()), os.path.exists(directory))
"""


def test_what_took_the_number_of_a_closed_descriptor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file of the user"
    path.write_text("PID 1 -\nEXIT code 0\n")
    run = subprocess.run(
        [sys.executable, "-c", _HOST, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.stderr == ""
    assert run.stdout == "untouched 20 False\n"


def test_a_number_that_is_anothers_is_none(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    kept = Descriptor(reading)
    assert kept.number == reading
    os.dup2(writing, reading)  # the same kind of thing, and another one
    os.close(writing)
    with open(tmp_path / "file", "w") as file:
        os.dup2(file.fileno(), reading)
        assert kept.number == -1
        kept.close()
        os.fstat(reading)
    os.close(reading)
    assert Descriptor().number == -1


def test_the_working_directory_is_not_held_by_who_watches_over_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor lives as long as the server; a disk that it stood on could not be unmounted."""
    monkeypatch.chdir(tmp_path)
    server = launch(LaunchPlan(["sleep", "1000"], {"PATH": "/bin:/usr/bin"}, make_private_directory()))
    try:
        process = psutil.Process(server.pid)
        supervisor = process.parent()
        assert supervisor is not None
        assert process.cwd() == str(tmp_path), "relative paths mean what they mean to the owner"
        wait_until(lambda: supervisor.cwd() == "/", what="the supervisor to leave the directory")
    finally:
        server.stop()
