"""The Windows launcher against an imitation of kernel32 that really starts processes: the order of calls, the outcome.

It shows that the calls fit together; that Windows does what its documentation says, it cannot show.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from localllama._processes import windows_api
from localllama._processes.launch_windows import launch_in_job
from localllama._processes.private_directory import make_private_directory
from localllama._processes.process import ExitStatus, LaunchPlan
from localllama._processes.windows_api import Kernel32, environment_block
from support.waiting import wait_until

JOB = 1000


class JobOfProcesses(Kernel32):
    """Jobs by hand: closing one kills what was created in it."""

    def __init__(self) -> None:
        super().__init__(library=object())
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.closed: list[int] = []

    def create_job(self) -> int:
        return JOB

    def create_process_in_job(
        self, job: int, argv: Sequence[str], env: Mapping[str, str], *, stdin: int, output: int
    ) -> tuple[int, int]:
        assert job == JOB
        process = subprocess.Popen(list(argv), env=dict(env), stdin=stdin, stdout=output, stderr=output)
        self.processes[process.pid] = process
        return process.pid, process.pid

    def wait(self, process: int, timeout_seconds: float) -> int | None:
        try:
            return self.processes[process].wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self, handle: int) -> None:
        self.closed.append(handle)
        if handle == JOB:
            for process in self.processes.values():
                process.kill()


def plan(script: str) -> LaunchPlan:
    return LaunchPlan(["/bin/sh", "-c", script], dict(os.environ), make_private_directory())


def test_stop_closes_the_job_and_removes_the_directory() -> None:
    kernel32 = JobOfProcesses()
    what = plan("echo hello; exec sleep 1000")
    server = launch_in_job(what, kernel32)
    wait_until(lambda: server.log_tail() == "hello\n", what="the log")
    assert server.exit_status() is None
    assert server.wait_for_exit(0.01) is None
    assert server.stop() == ExitStatus(signal_number=signal.SIGKILL)
    assert kernel32.closed.count(JOB) == 1
    assert not what.directory.exists()


def test_exit_code_and_removal_without_a_stop() -> None:
    what = plan("exit 5")
    server = launch_in_job(what, JobOfProcesses())
    assert server.wait_for_exit(5) == ExitStatus(exit_code=5)
    wait_until(lambda: not what.directory.exists(), what="the removal of the directory")
    assert server.stop() == ExitStatus(exit_code=5)


def test_log_keeps_the_last_bytes() -> None:
    lines = "i=0; while [ $i -lt 9 ]; do echo line $i; i=$((i+1)); read wait; done"
    what = LaunchPlan(["/bin/sh", "-c", lines], dict(os.environ), make_private_directory(), log_bytes=15)
    server = launch_in_job(what, JobOfProcesses())
    for number in range(3):
        wait_until(lambda number=number: f"line {number}\n" in server.log(), what=f"line {number}")  # type: ignore[misc]
        os.write(server._lifelines[0], b"\n")  # type: ignore[attr-defined]
    wait_until(lambda: server.log() == "line 2\nline 3\n", what="the last two lines")
    server.stop()


def test_dropped_handle_closes_the_job_and_the_process() -> None:
    kernel32 = JobOfProcesses()
    what = plan("exec sleep 1000")
    server = launch_in_job(what, kernel32)
    pid = server.pid
    del server
    assert kernel32.closed == [JOB, pid]
    kernel32.processes[pid].wait(5)
    wait_until(lambda: not what.directory.exists(), what="the removal of the directory")


def test_server_reads_the_end_of_its_stdin_when_it_is_given_up() -> None:
    server = launch_in_job(plan("read line; echo end"), JobOfProcesses())
    os.close(server._lifelines.pop())  # type: ignore[attr-defined]
    assert server.wait_for_exit(5) == ExitStatus(exit_code=0)
    wait_until(lambda: server.log_tail() == "end\n", what="the log")


def test_program_that_cannot_be_run_is_an_exit_status_and_a_log_line() -> None:
    what = LaunchPlan(["/nowhere/llama-server"], {}, make_private_directory())
    server = launch_in_job(what, JobOfProcesses())
    assert server.exit_status() == ExitStatus(exit_code=126)
    assert "cannot run /nowhere/llama-server" in server.log_tail()
    wait_until(lambda: not what.directory.exists(), what="the removal of the directory")


class Library:
    """Records what is asked of kernel32."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.limit_flags = 0
        self.attributes: list[int] = []
        self.refused = ""

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append((name, arguments))
            return 0 if name == self.refused else 7

        return call

    def SetInformationJobObject(self, job: Any, kind: int, limits: Any, size: int) -> int:  # noqa: N802
        self.calls.append(("SetInformationJobObject", ()))
        assert kind == 9
        assert size == ctypes.sizeof(windows_api._ExtendedLimits)
        self.limit_flags = limits._obj.BasicLimitInformation.LimitFlags
        return 0 if self.refused == "SetInformationJobObject" else 1

    def CreateProcessW(self, *arguments: Any) -> int:  # noqa: N802
        self.calls.append(("CreateProcessW", arguments))
        arguments[9]._obj.hProcess, arguments[9]._obj.hThread, arguments[9]._obj.dwProcessId = 21, 22, 23
        return 1

    def UpdateProcThreadAttribute(self, _list: Any, _flags: int, kind: Any, *_: Any) -> int:  # noqa: N802
        self.attributes.append(kind.value)
        return 1


def test_calls_to_kernel32() -> None:
    library = Library()
    kernel32 = Kernel32(library)
    job = kernel32.create_job()
    assert library.limit_flags == 0x2000
    assert kernel32.create_process_in_job(job, ["a b", "c"], {"X": "1"}, stdin=3, output=4) == (21, 23)
    assert library.attributes == [0x20002, 0x2000D]
    (arguments,) = [arguments for name, arguments in library.calls if name == "CreateProcessW"]
    assert arguments[1].value == '"a b" c'
    assert arguments[5] & 0x80000, "without EXTENDED_STARTUPINFO_PRESENT the job list is ignored"
    startup = arguments[8]._obj
    assert (startup.StartupInfo.hStdInput, startup.StartupInfo.hStdOutput, startup.StartupInfo.hStdError) == (3, 4, 4)
    assert startup.StartupInfo.cb == ctypes.sizeof(startup)
    assert [name for name, _ in library.calls][-2:] == ["DeleteProcThreadAttributeList", "CloseHandle"]


def test_refused_limit_closes_the_job() -> None:
    library = Library()
    library.refused = "SetInformationJobObject"
    with pytest.raises(OSError, match="kernel32"):
        Kernel32(library).create_job()
    assert library.calls[-1][0] == "CloseHandle"


def test_environment_block_is_sorted_and_ends_with_two_nuls() -> None:
    block = environment_block({"b": "2", "A": "1", "c": "\u00e9"})
    assert block[:] == "A=1\0b=2\0c=\u00e9\0\0"
