"""Processes on systems that lack something: no pidfds, no memory without a name, no locks, not Windows."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from localllama._processes import private_directory
from localllama._processes.child_identity import ChildIdentity, kill_session
from localllama._processes.launch_windows import launch_in_job
from localllama._processes.private_directory import make_private_directory, remove_private_directory
from localllama._processes.process import ExitStatus, LaunchPlan, ServerProcess, launch
from localllama._processes.windows_api import Kernel32
from localllama.errors import ConfigurationError, ServerStartError
from support.waiting import wait_until

Spawn = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("b")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    return path


# -- without pidfds ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["macOS", "refused by a sandbox"])
def no_pidfds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    if request.param == "macOS":
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts shell scripts, each in a session of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_child_is_signalled_while_it_lives_and_a_zombie_is_dead(no_pidfds: None, spawn: Spawn) -> None:
    process = spawn("exec sleep 1000")
    child = ChildIdentity(process.pid)
    child.wait_for_end(0.0)
    assert child.is_alive()
    child.send_signal(signal.SIGTERM)
    child.wait_for_end(10)
    assert not child.is_alive()
    assert process.poll() == -signal.SIGTERM


def test_a_group_goes_with_its_leader(no_pidfds: None, spawn: Spawn) -> None:
    process = spawn("sleep 1000 & echo $!; wait")
    assert process.stdout is not None
    member = psutil.Process(int(process.stdout.readline()))
    ChildIdentity(process.pid).kill_group()
    assert process.wait(10) == -signal.SIGKILL
    wait_until(lambda: not member.is_running() or member.status() == psutil.STATUS_ZOMBIE, what="the end of the member")


def test_another_process_with_the_same_number_is_left_alone(no_pidfds: None, spawn: Spawn) -> None:
    process = spawn("exec sleep 1000")
    child = ChildIdentity(process.pid, "1")  # started when the machine was, as its parent says
    assert not child.is_alive()
    child.kill_group()
    assert process.poll() is None


def test_a_process_that_is_gone_is_nobody(no_pidfds: None, spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    process = spawn("exec sleep 1000")
    child = ChildIdentity(process.pid)

    def reaped(_: psutil.Process) -> str:
        raise psutil.NoSuchProcess(process.pid)

    with monkeypatch.context() as patched:
        patched.setattr(psutil.Process, "status", reaped)  # between two questions of ours
        assert not child.is_alive()
    process.kill()
    process.wait()
    assert not ChildIdentity(process.pid).is_alive()


def test_a_session_whose_leader_lives_is_not_ours_to_kill(spawn: Spawn) -> None:
    process = spawn("exec sleep 1000")
    kill_session(process.pid)
    assert process.poll() is None


# -- the log ----------------------------------------------------------------------------------------------------------


def run(script: str) -> ServerProcess:
    return launch(LaunchPlan(["/bin/sh", "-c", script], {"PATH": os.environ["PATH"]}, make_private_directory()))


def test_without_memfd_the_log_is_in_shared_memory_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    server = run("echo first; echo second; exit 3")
    assert server.wait_for_exit(10) == ExitStatus(exit_code=3)
    assert server.log() == "first\nsecond\n"
    assert not list(Path("/dev/shm").glob("localllama-*"))


def test_without_any_such_memory_the_server_runs_and_there_is_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setitem(sys.modules, "_posixshmem", None)
    server = run("echo first; exit 3")
    assert server.wait_for_exit(10) == ExitStatus(exit_code=3)
    assert server.log() == ""


# -- private directories ----------------------------------------------------------------------------------------------


def test_a_file_system_without_locks_is_passed_over_and_left_clean(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_directory, "_bases", lambda: [str(base)])

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    n_descriptors = psutil.Process().num_fds()
    with pytest.raises(ConfigurationError, match=f"{base}: No locks available"):
        make_private_directory()
    assert list(base.iterdir()) == []
    assert psutil.Process().num_fds() == n_descriptors


def test_a_file_in_the_place_of_the_base_is_passed_over(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "file").touch()
    monkeypatch.setattr(private_directory, "_bases", lambda: [str(base / "file")])
    with pytest.raises(ConfigurationError, match="file is not a directory"):
        make_private_directory()


def test_what_a_killed_maker_has_left_without_a_lock_goes_after_a_while(base: Path) -> None:
    left = base / "localllama-0123456789"
    left.mkdir(mode=0o700)
    hours_ago = time.time() - 7200
    os.utime(left, (hours_ago, hours_ago))
    directory = make_private_directory()
    assert list(base.iterdir()) == [directory]
    remove_private_directory(directory)


def test_a_directory_that_goes_while_it_is_looked_at_hinders_nobody(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = base / "localllama-0123456789"
    gone.mkdir(mode=0o700)
    lstat = os.lstat

    def lstat_too_late(path: str) -> os.stat_result:
        if Path(path) == gone:
            gone.rmdir()
        return lstat(path)

    monkeypatch.setattr(os, "lstat", lstat_too_late)
    directory = make_private_directory()
    assert list(base.iterdir()) == [directory]
    remove_private_directory(directory)
    remove_private_directory(None)  # of a program that had none


# -- the launcher for Windows -----------------------------------------------------------------------------------------


class Job(Kernel32):
    """A job that refuses, or that is interrupted while a process is made in it."""

    def __init__(self, refusal: BaseException) -> None:
        super().__init__(library=object())
        self.refusal = refusal
        self.closed: list[int] = []

    def create_job(self) -> int:
        return 1000

    def create_process_in_job(self, *_: object, **__: object) -> tuple[int, int]:
        raise self.refusal

    def close(self, handle: int) -> None:
        self.closed.append(handle)


def test_elsewhere_there_are_no_jobs() -> None:
    plan = LaunchPlan(["llama-server"], {}, make_private_directory())
    with pytest.raises(ServerStartError, match="gave no job object") as caught:
        launch_in_job(plan)
    assert isinstance(caught.value.__cause__, OSError)
    assert plan.directory is not None
    assert not plan.directory.exists()


def test_an_interrupt_closes_the_job_and_removes_the_directory() -> None:
    plan = LaunchPlan(["llama-server"], {}, make_private_directory())
    job = Job(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        launch_in_job(plan, job)
    assert job.closed == [1000]
    assert plan.directory is not None
    wait_until(lambda: not plan.directory.exists(), what="the removal of the directory")


def test_no_job_for_an_interpreter_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = LaunchPlan(["llama-server"], {}, None)
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    with pytest.raises(ServerStartError, match="about to end"):
        launch_in_job(plan, Job(OSError()))


def test_an_exit_code_is_asked_for_only_after_the_end() -> None:
    asked: list[str] = []

    def exit_code(_: object, code: object) -> int:
        asked.append("exit code")
        code._obj.value = 5  # type: ignore[attr-defined]
        return 1

    waits = [258, 0]
    library = SimpleNamespace(WaitForSingleObject=lambda *_: waits.pop(0), GetExitCodeProcess=exit_code)
    kernel32 = Kernel32(library)
    assert kernel32.wait(7, 0.0) is None
    assert asked == []
    assert kernel32.wait(7, 0.0) == 5
