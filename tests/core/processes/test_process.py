"""Starting, watching and stopping real processes through `launch`. (How owners die: tests/deaths.)"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from localllama._processes import launch_posix
from localllama._processes.child_identity import ChildIdentity
from localllama._processes.private_directory import make_private_directory, release_lock
from localllama._processes.process import ExitStatus, LaunchPlan, ServerProcess, launch
from localllama._processes.supervisor import BOOTSTRAP, PROGRAM_VARIABLE
from localllama.errors import ServerStartError
from support.processes import ProcessIdentity
from support.waiting import wait_until

Run = Callable[..., ServerProcess]


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("b")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    return path


@pytest.fixture
def run(base: Path) -> Iterator[Run]:
    started: list[ServerProcess] = []

    def start(*argv: str, env: dict[str, str] | None = None) -> ServerProcess:
        environment = {"PATH": os.environ["PATH"]} if env is None else env
        started.append(launch(LaunchPlan(argv, environment, make_private_directory())))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def shell(run: Run, script: str) -> ServerProcess:
    return run("/bin/sh", "-c", script)


def parent_of(server: ServerProcess) -> psutil.Process:
    parent = psutil.Process(server.pid).parent()
    assert parent is not None
    return parent


def wait_for_log(server: ServerProcess, text: str) -> None:
    wait_until(lambda: text in server.log_tail(), what=f"{text!r} in the log")


def test_stop_ends_what_ignores_sigterm_and_all_that_it_started(run: Run, base: Path) -> None:
    server = shell(run, 'trap "" TERM; sleep 1000 & setsid sleep 1000 & echo up; wait; wait')
    wait_for_log(server, "up")
    family = [ProcessIdentity.of(p.pid) for p in parent_of(server).children(recursive=True)]
    wait_until(lambda: len(parent_of(server).children(recursive=True)) == 3, what="both children")
    begin = time.monotonic()
    assert server.stop() == ExitStatus(signal_number=signal.SIGKILL)
    assert time.monotonic() - begin < 1
    assert not any(member.is_alive() for member in family)
    assert list(base.iterdir()) == []
    assert psutil.Process().children() == []  # no zombie either


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("exit 0", ExitStatus(exit_code=0)),
        ("exit 3", ExitStatus(exit_code=3)),
        ("kill -ABRT $$", ExitStatus(signal_number=signal.SIGABRT)),
        # Its child holds stdout open; that must not hold up the news of its end, and the child must go too.
        ("sleep 1000 & exit 4", ExitStatus(exit_code=4)),
    ],
)
def test_exit_is_reported_at_once(run: Run, base: Path, script: str, outcome: ExitStatus) -> None:
    server = shell(run, script)
    assert server.wait_for_exit(5) == outcome
    assert server.exit_status() == outcome
    assert list(base.iterdir()) == []
    assert server.stop() == outcome


def test_wait_for_exit_keeps_its_time_limit(run: Run) -> None:
    server = run("sleep", "1000")
    begin = time.monotonic()
    assert server.wait_for_exit(0.2) is None
    assert 0.2 <= time.monotonic() - begin < 1
    assert server.exit_status() is None


@pytest.mark.parametrize(("program", "code"), [("/nowhere/llama-server", 127), ("/etc", 126), ("no-such-program", 127)])
def test_program_that_cannot_be_run_is_an_exit_status_and_a_log_line(run: Run, program: str, code: int) -> None:
    server = run(program)
    assert server.wait_for_exit(5) == ExitStatus(exit_code=code)
    assert f"cannot run {program}" in server.log_tail()


def test_log_keeps_the_last_64_kib_in_whole_lines_and_never_blocks_the_server(run: Run) -> None:
    server = shell(run, "i=0; while [ $i -lt 40000 ]; do echo line-$i-of-many; i=$((i+1)); done; echo last >&2")
    assert server.wait_for_exit(60) == ExitStatus(exit_code=0)
    lines = server.log_tail().splitlines()
    assert lines[-1] == "last"
    numbers = [int(line.split("-")[1]) for line in lines[:-1]]
    assert numbers == list(range(40000 - len(numbers), 40000))
    assert 60_000 < len(server.log_tail()) <= 64 * 1024


@pytest.mark.parametrize("ending", ["wait", "exit 0"])
def test_the_group_ends_where_the_platform_knows_no_adopted_children(
    run: Run, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """As on macOS: what the server started is nobody's child once the server is dead, but it is still in its group."""
    parts = launch_posix.program_parts("supervisor_linux")
    program = "\n".join([*parts, "load_prctl = lambda: None", "main(OwnerWatch)\n"])
    monkeypatch.setattr(launch_posix, "supervisor_program", lambda _platform: program)
    server = shell(run, f"sleep 1000 & one=$!; sleep 1000 & echo pids $one $!; {ending}")
    wait_for_log(server, "\n")
    family = [ProcessIdentity.of(int(pid)) for pid in server.log_tail().split()[1:]]
    assert server.stop() is not None
    wait_until(lambda: not any(member.is_alive() for member in family), seconds=2, what="the end of the group")


def test_the_files_of_a_server_are_for_its_user_alone(run: Run) -> None:
    before = os.umask(0)
    try:
        server = shell(run, "umask")
    finally:
        os.umask(before)
    assert server.wait_for_exit(5) == ExitStatus(exit_code=0)
    assert server.log_tail() == "0077\n"


def test_a_supervisor_that_comes_after_its_owners_end_removes_the_directory(base: Path) -> None:
    directory = make_private_directory()
    marker = base / "started"
    lifeline, ours = os.pipe()
    status, theirs = os.pipe()
    os.close(ours)
    descriptors = [str(number) for number in (lifeline, theirs, -1, -1, -1, -1)]
    owner = "1"  # not our pid, so that to the supervisor its owner is gone
    command = [sys.executable, "-I", "-S", "-c", BOOTSTRAP, "localllama-supervisor", owner, *descriptors]
    environment = {**os.environ, PROGRAM_VARIABLE: launch_posix.supervisor_program("supervisor_linux")}
    try:
        subprocess.run(
            [*command, str(directory), "/usr/bin/touch", str(marker)],
            env=environment,
            pass_fds=(lifeline, theirs),
            start_new_session=True,
            timeout=20,
            check=True,
        )
        assert os.read(status, 100) == b"EXIT code 0\n"
    finally:
        for descriptor in (lifeline, status, theirs):
            os.close(descriptor)
    assert not directory.exists()
    assert not marker.exists()
    release_lock(directory)


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux a pipe can be made larger")
def test_all_last_words_of_a_server_are_in_its_log(run: Run, tmp_path: Path) -> None:
    """More of them than one read takes: the supervisor was not there when they were said."""
    script = """
import fcntl, os, sys, time
print("up", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.005)
fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
print("x" * 300_000, "last words", sep="\\n")
"""
    server = run(sys.executable, "-I", "-S", "-c", script, str(tmp_path / "go on"))
    wait_for_log(server, "up")
    supervisor = parent_of(server)
    supervisor.suspend()
    try:
        (tmp_path / "go on").touch()
        wait_until(lambda: psutil.Process(server.pid).status() == psutil.STATUS_ZOMBIE, what="the end of the server")
    finally:
        supervisor.resume()
    assert server.wait_for_exit(5) == ExitStatus(exit_code=0)
    assert server.log_tail() == "last words\n"


def test_more_of_the_log_is_kept_where_the_plan_asks_for_it(base: Path) -> None:
    script = "i=0; while [ $i -lt 9000 ]; do echo line-$i-of-many; i=$((i+1)); done"
    plan = LaunchPlan(("/bin/sh", "-c", script), {"PATH": os.environ["PATH"]}, make_private_directory(), 1 << 20)
    server = launch(plan)
    try:
        assert server.wait_for_exit(60) == ExitStatus(exit_code=0)
        assert server.log() == "".join(f"line-{number}-of-many\n" for number in range(9000))
        tail = server.log_tail()
        assert 60_000 < len(tail) <= 64 * 1024
        assert tail.startswith("line-")
        assert server.log().endswith(tail)
    finally:
        server.stop()


def test_log_survives_the_supervisor(run: Run, base: Path) -> None:
    server = shell(run, "echo important; sleep 1000")
    wait_for_log(server, "important")
    orphan = ProcessIdentity.of(server.pid)
    parent_of(server).kill()
    assert server.wait_for_exit(5) == ExitStatus(is_supervisor_lost=True)
    assert server.log_tail() == "important\n"
    wait_until(lambda: not orphan.is_alive(), what="the end of the killed server")
    assert list(base.iterdir()) == []


def test_lost_supervisor_takes_the_servers_children_along(run: Run) -> None:
    server = shell(run, "sleep 1000 & echo up; wait")
    wait_for_log(server, "up")
    (child,) = [ProcessIdentity.of(p.pid) for p in psutil.Process(server.pid).children()]
    parent_of(server).kill()
    assert server.wait_for_exit(5) == ExitStatus(is_supervisor_lost=True)
    wait_until(lambda: not child.is_alive(), seconds=2, what="the end of the server's child")


def test_stop_is_quick_even_if_somebody_stopped_the_supervisor(run: Run, base: Path) -> None:
    server = run("sleep", "1000")
    identity = ProcessIdentity.of(server.pid)
    parent_of(server).suspend()
    begin = time.monotonic()
    assert server.stop() is not None
    assert time.monotonic() - begin < 2
    assert not identity.is_alive()
    assert list(base.iterdir()) == []


def test_stop_ends_the_group_of_a_server_whose_supervisor_does_nothing_any_more(
    run: Run, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = shell(run, "sleep 1000 & echo up; wait")
    wait_for_log(server, "up")
    family = [ProcessIdentity.of(p.pid) for p in [parent_of(server), *parent_of(server).children(recursive=True)]]
    send_signal = ChildIdentity.send_signal

    def without_waking(child: ChildIdentity, number: int) -> None:
        if number != signal.SIGCONT:
            send_signal(child, number)

    monkeypatch.setattr(ChildIdentity, "send_signal", without_waking)
    parent_of(server).suspend()
    assert server.stop(3) is not None
    wait_until(lambda: not any(member.is_alive() for member in family), seconds=2, what="the end of all")
    assert list(base.iterdir()) == []


def test_dropped_or_abandoned_handle_gives_the_server_up(base: Path) -> None:
    for give_up in (lambda server: None, lambda server: server.abandon()):
        server = launch(LaunchPlan(["sleep", "1000"], dict(os.environ), make_private_directory()))
        identity = ProcessIdentity.of(server.pid)
        give_up(server)
        del server
        wait_until(lambda identity=identity: not identity.is_alive(), seconds=2, what="the end of the server")
        wait_until(lambda: not list(base.iterdir()), seconds=2, what="the removal of the directory")


def test_server_sees_its_own_environment_and_nothing_of_ours(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report"
    script = (
        "import json, os, signal, sys;"
        "fds = {n: os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')};"
        "found = dict(env=dict(os.environ), args=sys.argv[2:], umask=os.umask(0),"
        " blocked=len(signal.pthread_sigmask(signal.SIG_BLOCK, [])), cwd=os.getcwd(),"
        " term=signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, hup=signal.getsignal(signal.SIGHUP) == signal.SIG_DFL,"
        " fds=fds, leads=os.getpgrp() == os.getpid(), session=os.getsid(0));"
        "open(sys.argv[1], 'w').write(json.dumps(found))"
    )
    env = {
        "PATH": "/usr/bin",
        "LD_LIBRARY_PATH": "/nowhere",
        "PYTHONHASHSEED": "1",
        "WORD": "gr\u00fc\u00df \U0001f999",
    }
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    try:
        server = run(sys.executable, "-I", "-S", "-c", script, str(report), "", "a b", "\u00e9", env=env)
        supervisor = parent_of(server).pid
        assert server.wait_for_exit(20) == ExitStatus(exit_code=0), server.log_tail()
    finally:
        signal.signal(signal.SIGHUP, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    found = json.loads(report.read_text())
    assert {name: found["env"].get(name) for name in env} == env
    assert set(found["env"]) - set(env) <= {"LC_CTYPE"}  # Python's own, in a C locale
    assert found["args"] == ["", "a b", "\u00e9"]
    assert found["umask"] == 0o077
    assert (found["blocked"], found["term"], found["hup"]) == (0, True, True)
    # Beside the three: what ties the group to the supervisor, a pipe to which nobody writes (`supervisor_linux`).
    others = [found["fds"][number] for number in found["fds"] if int(number) > 2]
    assert [what.partition(":")[0] for what in others] == (["pipe"] if sys.platform == "linux" else [])
    assert found["leads"]
    assert found["session"] == supervisor
    assert found["cwd"] == str(Path.cwd())


def test_secrets_are_in_no_command_line_and_no_repr(run: Run) -> None:
    plan = LaunchPlan(["sleep", "1000"], {"PATH": "/usr/bin:/bin", "LLAMA_API_KEY": "s3cret"}, Path("/x"))
    assert "s3cret" not in repr(plan)
    server = run("sleep", "1000", env=dict(plan.env))
    for process in (psutil.Process(server.pid), parent_of(server)):
        assert "s3cret" not in " ".join(process.cmdline())
    assert len(" ".join(parent_of(server).cmdline())) < 1000


def test_nothing_is_left_open_after_many_starts(run: Run) -> None:
    run("true").wait_for_exit(5)
    own = psutil.Process()
    before = (own.num_fds(), own.num_threads())
    for _ in range(20):
        server = launch(LaunchPlan(["sleep", "1000"], dict(os.environ), make_private_directory()))
        assert server.stop() == ExitStatus(signal_number=signal.SIGKILL)
        del server
    assert (own.num_fds(), own.num_threads()) == before
    wait_until(has_no_zombie, seconds=2, what="the supervisors to be reaped")


def has_no_zombie() -> bool:
    launch_posix._reap_supervisors()
    return not [c for c in psutil.Process().children() if c.status() == psutil.STATUS_ZOMBIE]


def test_many_threads_start_and_stop_at_once(run: Run) -> None:
    outcomes: list[ExitStatus | None] = []

    def work() -> None:
        for _ in range(5):
            server = launch(LaunchPlan(["sleep", "1000"], dict(os.environ), make_private_directory()))
            assert psutil.pid_exists(server.pid)
            outcomes.append(server.stop())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [ExitStatus(signal_number=signal.SIGKILL)] * 30


def test_forked_child_can_stop_nothing(run: Run) -> None:
    server = run("sleep", "1000")
    child = os.fork()
    if child == 0:
        is_refused = not server.is_ours() and server.stop() is None and server.exit_status() is None
        server.abandon()
        os._exit(0 if is_refused else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server.wait_for_exit(0.3) is None


def test_shell_stands_in_where_the_executable_is_no_python(
    run: Run, base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    for executable in ("/usr/bin/uwsgi", "", str(broken), str(tmp_path / "python-that-is-not-there")):
        monkeypatch.setattr(sys, "executable", executable)
        server = shell(run, 'trap "" TERM; sleep 1000 & wait')
        assert parent_of(server).name() == "sh"
        family = [ProcessIdentity.of(p.pid) for p in [parent_of(server), *parent_of(server).children(recursive=True)]]
        assert server.stop() == ExitStatus(signal_number=signal.SIGKILL)
        wait_until(lambda family=family: not any(m.is_alive() for m in family), seconds=1, what="the end of all")
        assert list(base.iterdir()) == []
        assert shell(run, "exit 7").wait_for_exit(5) == ExitStatus(exit_code=7)
        assert shell(run, "kill -SEGV $$").wait_for_exit(5) == ExitStatus(signal_number=signal.SIGSEGV)


def test_no_supervisor_at_all_is_a_clear_error(run: Run, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")

    def no_more_processes(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_more_processes)
    with pytest.raises(ServerStartError, match=r"uwsgi.*temporarily unavailable") as caught:
        run("sleep", "1000")
    assert caught.value.hint
    assert list(base.iterdir()) == []


def test_program_that_is_about_to_end_starts_nothing(base: Path) -> None:
    program = (
        "import atexit\n"
        "def late():\n"
        "    try: launch(LaunchPlan(['sleep', '1000'], {'PATH': '/bin'}, make_private_directory()))\n"
        "    except ServerStartError as error: print(error)\n"
        "atexit.register(late)\n"
        "from localllama._processes.process import LaunchPlan, launch\n"
        "from localllama._processes.private_directory import make_private_directory\n"
        "from localllama.errors import ServerStartError\n"
        "import localllama._processes.launch_posix\n"
    )
    ended = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert "about to end" in ended.stdout
    assert ended.stderr == ""
    assert list(base.iterdir()) == []


def test_handle_that_is_alive_at_exit_warns_of_nothing(base: Path) -> None:
    program = (
        "from localllama._processes.process import LaunchPlan, launch\n"
        "from localllama._processes.private_directory import make_private_directory\n"
        "server = launch(LaunchPlan(['sleep', '1000'], {'PATH': '/bin:/usr/bin'}, make_private_directory()))\n"
        "print(server.pid)\n"
    )
    ended = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    wait_until(lambda: not psutil.pid_exists(int(ended.stdout)), seconds=2, what="the end of the server")
    wait_until(lambda: not list(base.iterdir()), seconds=2, what="the removal of the directory")


def test_supervisor_program_is_ascii() -> None:
    """It travels in the environment, and a C locale must not change it."""
    for platform in ("supervisor_linux", "supervisor_macos"):
        assert launch_posix.supervisor_program(platform).isascii()
