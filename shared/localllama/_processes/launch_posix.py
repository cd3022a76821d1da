"""Linux, macOS and other POSIX systems: a supervisor process owns the server for us.

    owner ── lifeline, status ── supervisor (own session) ── server (own process group)

The *lifeline* is a socket pair on which nobody ever writes. Its end is the message: it ends when the owner shuts it
down, calls exec or dies, whatever way. The supervisor then kills the server's group with SIGKILL, removes the private
directory and says how it went on the *status* pipe. The server has the lifeline as its stdin: our embedded server
watches that by itself. A socket pair and not a pipe, because `shutdown` ends it even while some forked child of the
owner holds a copy. How the supervisor learns of the owner's death when the lifeline was leaked: `supervisor_linux`,
`supervisor_macos`.

Nothing here waits for a signal, uses waitpid(-1) or believes `Popen.returncode`: hosts block signals, ignore SIGCHLD
and reap children that are not theirs.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from localllama.errors import ServerStartError

from .child_identity import ChildIdentity, kill_session
from .descriptors import Descriptors
from .log_memory import LogMemory
from .private_directory import duplicate_lock, release_lock, remove_private_directory
from .process import STOP_SECONDS, ExitStatus, LaunchPlan, ServerProcess
from .supervisor import BOOTSTRAP, PROGRAM_VARIABLE, SERVER_VARIABLE_PREFIX
from .supervisor_shell import SHELL_PROGRAM

_HANDSHAKE_SECONDS = 15.0
_PATIENCE_SECONDS = 0.7  # how long `stop` leaves it to the supervisor before it does more
_REAP_SECONDS = 0.2


class _ExitFlag:
    is_set = False

    @classmethod
    def set(cls) -> None:
        cls.is_set = True


atexit.register(_ExitFlag.set)


_unreaped_supervisors: set[int] = set()
os.register_at_fork(after_in_child=_unreaped_supervisors.clear)


def _reap_supervisors() -> None:
    """Take the exit status of those that have ended, so that none stays a zombie; never waits."""
    for pid in list(_unreaped_supervisors):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # the host reaped it, or ignores SIGCHLD
            ended = pid
        if ended:
            _unreaped_supervisors.discard(pid)


class _PosixServerProcess(ServerProcess):
    creator_pid = -1  # nobody's, for `__del__` of an object whose making was interrupted

    def __init__(
        self, directory: Path | None, descriptors: Descriptors, supervisor: ChildIdentity, log: LogMemory
    ) -> None:
        self.creator_pid = os.getpid()
        self.pid = 0
        self._directory = directory
        self._descriptors = descriptors
        self._supervisor = supervisor
        self._server: ChildIdentity | None = None
        self._log = log
        self._lock = threading.RLock()  # a signal handler may come while this very thread holds it
        self._unread = b""
        self._exit: ExitStatus | None = None

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # In a finalizing interpreter the modules that this needs are being taken apart, and the kernel does it anyway.
        if not is_finalizing() and self.is_ours():
            self._descriptors.shut_lifeline()
            self._descriptors.close()

    def exit_status(self) -> ExitStatus | None:
        if not self.is_ours():
            return None
        with self._lock:
            if self._exit is None:
                self._read_status()
            return self._exit

    def wait_for_exit(self, timeout_seconds: float) -> ExitStatus | None:
        deadline = time.monotonic() + timeout_seconds
        while (outcome := self.exit_status()) is None and self.is_ours():
            if not _wait_readable(self._descriptors.get("status"), deadline):
                return self.exit_status()
        return outcome

    def log(self) -> str:
        return self._log.text()

    def abandon(self) -> None:
        if self.is_ours():
            self._descriptors.shut_lifeline()

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> ExitStatus | None:
        if not self.is_ours():
            return None
        deadline = time.monotonic() + timeout_seconds
        self._descriptors.shut_lifeline()
        outcome = self.wait_for_exit(min(_PATIENCE_SECONDS, timeout_seconds))
        if outcome is None:
            # Somebody stopped the supervisor, or the machine is very busy.
            self._supervisor.send_signal(signal.SIGCONT)
            outcome = self.wait_for_exit(min(_PATIENCE_SECONDS, deadline - time.monotonic()))
        if outcome is None and self._server is not None:
            self._server.kill_group()
            self._supervisor.send_signal(signal.SIGKILL)
            outcome = self.wait_for_exit(deadline - time.monotonic())
        if outcome is not None:
            self._supervisor.wait_for_end(_REAP_SECONDS)  # its last words come just before its end
        _reap_supervisors()
        return outcome

    def complete_start(self, deadline: float) -> None:
        """Wait for the supervisor's first words.

        Raises:
            _CannotLaunchError: They do not come.
        """
        while self._server is None:
            if not _wait_readable(self._descriptors.get("status"), deadline):
                raise _CannotLaunchError("the supervisor did not answer in time")
            with self._lock:
                self._read_status()
            if self._exit is not None and self._server is None:
                raise _CannotLaunchError("the supervisor ended before it could start the server")

    def _read_status(self) -> None:
        data = self._read_words()
        if data is None:
            if self._supervisor.is_alive():
                return
            # Its end of the pipe is still open somewhere, in a child that another thread forked at a bad moment.
            data = self._read_words() or b""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._hear(line.decode().split())
        if not data and self._exit is None:
            # A shell that supervises dies with its server and without a word; that was us, if we ended the lifeline.
            is_stopped = self._descriptors.is_lifeline_shut
            self._exit = ExitStatus(signal_number=9) if is_stopped else ExitStatus(is_supervisor_lost=True)
            self._end_without_supervisor()
        if self._exit is not None:
            _reap_supervisors()

    def _read_words(self) -> bytes | None:
        """What the supervisor says; nothing at the end, None if it has not said anything yet."""
        status = self._descriptors.get("status")
        if status < 0:
            # The host has closed all that it found, so the lifeline too: the supervisor is ending the server.
            return b""
        try:
            return os.read(status, 4096)
        except BlockingIOError:
            return None

    def _end_without_supervisor(self) -> None:
        """Do what the supervisor would have done. On Linux the kernel has killed the server, but not what it started."""
        if self._server is not None:
            self._server.kill_group()
        _reap_supervisors()
        kill_session(self._supervisor.pid)
        remove_private_directory(self._directory)

    def _hear(self, words: list[str]) -> None:
        match words:
            case ["PID", pid, start_time]:
                self.pid = int(pid)
                self._server = ChildIdentity(self.pid, start_time)
            case ["EXIT", "code", code]:
                self._exit = ExitStatus(exit_code=int(code))
            case ["EXIT", "signal", number]:
                self._exit = ExitStatus(signal_number=int(number))


def launch_with_supervisor(plan: LaunchPlan) -> ServerProcess:
    """Start the server of `plan` under a supervisor; see `process.launch`."""
    _reap_supervisors()
    try:
        return _launch_somehow(plan)
    except BaseException:
        remove_private_directory(plan.directory)
        raise


def _launch_somehow(plan: LaunchPlan) -> ServerProcess:
    if _ExitFlag.is_set or sys.is_finalizing():
        raise ServerStartError(
            "This Python process is about to end, so no server is started.",
            hint="Finish the work with the model before the program ends, not in atexit functions or finalizers.",
        )
    failures = []
    for make_command in (_python_command, _shell_command):
        try:
            return _launch(plan, make_command)
        except (_CannotLaunchError, OSError) as error:
            failures.append(str(error))
    raise ServerStartError(
        f"The process that watches over the server could not be started ({'; '.join(failures)}).",
        hint="Check that this process may start others (limits on processes, memory, open files) and that /bin/sh works.",
    )


class _CannotLaunchError(Exception):
    """This way of starting does not work here; the next one may."""


_Command = tuple[list[str], dict[str, str]]
_CommandMaker = Callable[[LaunchPlan, Descriptors], _Command]


def _launch(plan: LaunchPlan, make_command: _CommandMaker) -> ServerProcess:
    ours, theirs = Descriptors(), Descriptors()
    try:
        log = _open_channels(ours, theirs, plan.log_bytes)
        theirs.add("lock", duplicate_lock(plan.directory))
        if plan.output >= 0:
            theirs.add("output", os.dup(plan.output))
        command, environment = make_command(plan, theirs)
        supervisor_pid = _spawn(command, environment, theirs, is_shell=make_command is _shell_command)
        server = _PosixServerProcess(plan.directory, ours, ChildIdentity(supervisor_pid), log)
        theirs.close()
        server.complete_start(time.monotonic() + _HANDSHAKE_SECONDS)
    except BaseException:
        # A KeyboardInterrupt may arrive anywhere above. The end of the lifeline ends whatever was started; the directory
        # stays until the caller has tried every way.
        ours.shut_lifeline()
        ours.close()
        raise
    finally:
        theirs.close()
    release_lock(plan.directory)
    return server


def _open_channels(ours: Descriptors, theirs: Descriptors, log_bytes: int) -> LogMemory:
    lifeline, their_lifeline = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.keep_lifeline(lifeline)
    theirs.add("lifeline", their_lifeline.detach())
    status, their_status = os.pipe()
    ours.add("status", status)
    theirs.add("status", their_status)
    os.set_blocking(ours.get("status"), False)
    if hasattr(os, "pidfd_open"):
        # Opened here and passed on: opened by number there, it could be another process of that number.
        with contextlib.suppress(OSError):
            theirs.add("owner", os.pidfd_open(os.getpid()))
    log = LogMemory(log_bytes)
    theirs.add("log", log.descriptor)
    return log


def _python_command(plan: LaunchPlan, theirs: Descriptors) -> _Command:
    executable = sys.executable
    # An executable with another name is a host that embeds Python; what it would do with our arguments nobody knows.
    if getattr(sys, "frozen", False) or not Path(executable or "").name.startswith(("python", "pypy")):
        raise _CannotLaunchError(f"sys.executable is {executable!r}, not a Python interpreter")
    numbers = [str(theirs.get(name)) for name in ("lifeline", "status", "owner", "log", "lock", "output")]
    # The supervisor runs in the environment that its interpreter is known to run in; the server's travels inside, so
    # that no library path meant for the one reaches the other.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SERVER_VARIABLE_PREFIX)}
    environment.update({SERVER_VARIABLE_PREFIX + name: value for name, value in plan.env.items()})
    environment[PROGRAM_VARIABLE] = supervisor_program(
        "supervisor_macos" if hasattr(select, "kqueue") else "supervisor_linux"
    )
    command = [executable, "-I", "-S", "-c", BOOTSTRAP, "localllama-supervisor", str(os.getpid()), *numbers]
    return [*command, str(plan.directory or ""), *plan.argv], environment


def _shell_command(plan: LaunchPlan, theirs: Descriptors) -> _Command:  # noqa: ARG001 - one signature
    command = ["/bin/sh", "-c", SHELL_PROGRAM, "localllama-supervisor", str(plan.directory or ""), *plan.argv]
    return command, dict(plan.env)


@lru_cache
def supervisor_program(platform: str) -> str:
    """The source of the supervisor for one platform."""
    return "\n".join([*program_parts(platform), "main(OwnerWatch)\n"])


def program_parts(platform: str) -> list[str]:
    """The sources that make up the supervisor, in order."""
    parts = [pkgutil.get_data("localllama._processes", f"{name}.py") for name in ("supervisor", platform)]
    if None in parts:
        raise _CannotLaunchError("the supervisor's source is not there")
    return [part.decode() for part in parts if part]


def _spawn(command: list[str], environment: dict[str, str], theirs: Descriptors, *, is_shell: bool) -> int:
    # No preexec_fn: with it a fork copies the page tables of a host with gigabytes, and may hang in a lock of another
    # thread. The session of its own keeps Ctrl-C, a hangup and the signals of a notebook's interrupt away.
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=theirs.get("lifeline") if is_shell else subprocess.DEVNULL,
        stdout=theirs.get("status") if is_shell else subprocess.DEVNULL,
        stderr=theirs.get("output") if is_shell and theirs.get("output") >= 0 else subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=theirs.numbers(),
    )
    _unreaped_supervisors.add(process.pid)
    # From here on it is reaped here (`_reap_supervisors`); without a return code Popen would warn and do it too.
    process.returncode = 0
    return process.pid


def _wait_readable(descriptor: int, deadline: float) -> bool:
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
