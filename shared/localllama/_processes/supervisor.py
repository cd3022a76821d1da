"""The supervisor: the parent of the server, there for nothing else than to end it when its owner is gone.

This file is never imported by the program it runs in. `launch_posix` reads it as text, puts the file of the platform
behind it (`supervisor_linux` or `supervisor_macos`, which define `OwnerWatch`) and has `python -I -S -c` execute both:
no import path is searched, so no `select.py` in the working directory and no broken site-packages can get in between.
The text travels in the environment, so that `ps` shows one short line. It uses the standard library only, and of that
only what loads fast.

The owner's side of the pact is in `launch_posix`; the words on the status pipe are

    PID <pid> <start time>    the server runs; from here on it cannot outlive us
    EXIT code <n>             it ended by itself, nothing of it is left, neither is its directory
    EXIT signal <n>           it was killed, by us or by someone else; nothing is left either

The end of the status pipe without EXIT means that the supervisor itself was killed.
"""

# contextlib and pathlib would load too slowly here.
# ruff: noqa: PTH101, PTH108, PTH106, S606, SIM105

import mmap
import os
import select
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    class Watch(Protocol):
        """What `OwnerWatch` of each platform offers."""

        def watch(self, descriptor: int) -> None: ...
        def unwatch(self, descriptor: int) -> None: ...
        def wait(self) -> set[int]: ...
        def is_owner_gone(self) -> bool: ...
        def has_ended(self, pid: int) -> bool: ...
        def tie_to_parent(self) -> None: ...
        def strays(self) -> list[int]: ...

else:
    import _signal as signal  # `signal` itself imports `enum`: 9 ms of the 30 that a start of Python takes

BOOTSTRAP = "import os; exec(os.environ['LOCALLLAMA_SUPERVISOR_PROGRAM'])"
PROGRAM_VARIABLE = "LOCALLLAMA_SUPERVISOR_PROGRAM"
LOG_HEADER_BYTES = 16
SERVER_VARIABLE_PREFIX = "LOCALLLAMA_SERVER_VARIABLE_"
LOCK_NAME = "lock"


class LogRing:
    """The last bytes that the server printed, in memory that the owner can read even after we are gone.

    Layout: 8 bytes with the count of all bytes ever written (little endian), 8 unused, then the ring.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 0) if descriptor >= 0 else None
        self._capacity = len(self._memory) - LOG_HEADER_BYTES if self._memory else 0
        self._written = 0

    def write(self, data: bytes) -> None:
        """Append `data`, over the oldest bytes if there is no room."""
        if self._memory is None:
            return
        kept = data[-self._capacity :]
        start = (self._written + len(data) - len(kept)) % self._capacity
        until_wrap = kept[: self._capacity - start]
        rest = kept[len(until_wrap) :]
        offset = LOG_HEADER_BYTES + start
        self._memory[offset : offset + len(until_wrap)] = until_wrap
        self._memory[LOG_HEADER_BYTES : LOG_HEADER_BYTES + len(rest)] = rest
        self._written += len(data)
        # Last, so that a reader who sees the count sees the bytes as well.
        self._memory[:8] = self._written.to_bytes(8, "little")


class Supervisor:
    """Starts one server, waits for the first reason to end it, leaves nothing of it behind."""

    def __init__(self, watch: "Watch", lifeline: int, status: int, log: int, directory: str, output: int = -1) -> None:
        self._watch = watch
        self._lifeline = lifeline
        self._status = status
        self._ring = LogRing(log)
        self._directory = directory
        self._server_pid = 0
        self._server_output = -1  # our end of the pipe that it prints to
        self._output = output  # or the file
        self._is_told_to_stop = False
        self._wakeup = -1

    def run(self, command: "list[str]", environment: "dict[str, str]") -> None:
        """Run `command` until it ends or its owner is gone."""
        self._prepare_signals()
        try:
            if not self._is_unwanted():
                self._start(command, environment)
                self._tell(f"PID {self._server_pid} {start_time(self._server_pid)}\n")
                os.chdir("/")  # a working directory that is held cannot be unmounted
                self._wait_for_a_reason_to_end()
        finally:
            # Whatever went wrong above, a full pipe, a dead owner, a bug: the server must not survive it.
            self._end()

    def _is_unwanted(self) -> bool:
        poll = select.poll()
        poll.register(self._lifeline, select.POLLIN)
        return bool(poll.poll(0)) or self._watch.is_owner_gone()

    def _prepare_signals(self) -> None:
        for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGPIPE"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        self._wakeup, written_by_signals = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(written_by_signals, False)
        signal.set_wakeup_fd(written_by_signals)
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # The owner may have blocked signals; what it blocked comes to us at exec. Only now are we ready for them.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _on_terminate(self, *_: object) -> None:
        self._is_told_to_stop = True

    def _start(self, command: "list[str]", environment: "dict[str, str]") -> None:
        output = self._output
        if output < 0:
            self._server_output, output = os.pipe()
            os.set_blocking(self._server_output, False)
        supervisor_pid = os.getpid()
        self._server_pid = os.fork()
        if self._server_pid == 0:
            try:
                os.setpgid(0, 0)
                self._watch.tie_to_parent()
                if os.getppid() != supervisor_pid:
                    return
                become_server(command, environment, stdin=self._lifeline, output=output)
            finally:
                os._exit(127)
        try:
            # The child does the same; whoever comes first, the group exists before either goes on.
            os.setpgid(self._server_pid, self._server_pid)
        except OSError:
            pass  # it has already called exec, so it has done it itself
        os.close(output)

    def _wait_for_a_reason_to_end(self) -> None:
        for descriptor in (self._lifeline, self._wakeup, self._server_output):
            if descriptor >= 0:
                self._watch.watch(descriptor)
        while not self._is_told_to_stop:
            ready = self._watch.wait()
            if self._server_output in ready and not self._copy_output():
                self._watch.unwatch(self._server_output)
            # Nobody writes to the lifeline: that it is readable means that its other end is closed.
            if self._lifeline in ready or self._watch.is_owner_gone():
                return
            if self._wakeup in ready:
                os.read(self._wakeup, 4096)
                if self._watch.has_ended(self._server_pid):
                    return

    def _copy_output(self) -> bool:
        """Move what the server has printed into the ring; False at the end of its output."""
        try:
            data = os.read(self._server_output, 65536)
        except BlockingIOError:
            return True
        self._ring.write(data)
        return bool(data)

    def _end(self) -> None:
        outcome = 0
        if self._server_pid:
            self._kill_group()
            _, outcome = os.waitpid(self._server_pid, 0)
            self._kill_strays()
            if self._server_output >= 0:
                self._copy_rest_of_output()
        if self._server_pid or self._watch.is_owner_gone():
            # An owner that lives and gave us up before the start may be trying another way, in the same directory.
            remove_tree(self._directory)
        code = os.waitstatus_to_exitcode(outcome)
        self._tell(f"EXIT code {code}\n" if code >= 0 else f"EXIT signal {-code}\n")

    def _kill_group(self) -> None:
        # The leader is not reaped yet, dead or alive: its pid, and so the number of its group, cannot be another's.
        try:
            os.killpg(self._server_pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            # Not there yet (the child died before it made the group), or, on macOS, a group of zombies only.
            os.kill(self._server_pid, signal.SIGKILL)

    def _kill_strays(self) -> None:
        """End what the server started and what left its group; our own children by then, where the platform can."""
        while strays := self._watch.strays():
            for pid in strays:
                os.kill(pid, signal.SIGKILL)
            for pid in strays:
                os.waitpid(pid, 0)

    def _copy_rest_of_output(self) -> None:
        # A stray may still hold the other end, so the end of the data is either its end or a moment without any.
        while True:
            try:
                data = os.read(self._server_output, 65536)
            except BlockingIOError:
                return
            if not data:
                return
            self._ring.write(data)

    def _tell(self, line: str) -> None:
        try:
            os.write(self._status, line.encode())
        except OSError:
            pass  # the owner is gone; whoever waits for the server's end sees that by other means


def become_server(command: "list[str]", environment: "dict[str, str]", *, stdin: int, output: int) -> "NoReturn":
    """Replace this process, just forked, by the server."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    os.dup2(stdin, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        os.write(2, f"localllama: cannot run {command[0]}: {error.strerror}\n".encode(errors="replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def start_time(pid: int) -> str:
    """When `pid` started, in the kernel's ticks since boot; "-" where there is no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the program stands in parentheses and may hold anything, parentheses too.
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return "-"


def remove_tree(path: str) -> None:
    """Remove a directory and all in it, following no link; what cannot be removed stays.

    The lock goes last: who is killed in between leaves what the next start can tell from a directory in use.
    """
    if not path:
        return
    try:
        os.chmod(path, 0o700)  # a strange umask may have made it ours and closed to us
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name == LOCK_NAME):
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(entry.path)
                else:
                    _unlink(entry.path)
        os.rmdir(path)
    except OSError:
        return


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # owner and supervisor may remove the same directory, and either of them be killed: both go on


def main(make_watch: "Callable[[int, int], Watch]") -> None:
    """Entry point; the arguments are those that `launch_posix` passes.

    Args:
        make_watch: `OwnerWatch` of the platform: called with the owner's pid and its pidfd (or -1).
    """
    owner_pid, lifeline, status, owner_descriptor, log, lock, output = (int(text) for text in sys.argv[2:9])
    directory, command = sys.argv[9], sys.argv[10:]
    for descriptor in (lifeline, status, owner_descriptor, log, lock, output):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    if os.getpgrp() != os.getpid():
        os._exit(1)  # we were not started in a session of our own; a Ctrl-C or a hangup would reach us
    environment = {
        name[len(SERVER_VARIABLE_PREFIX) :]: value
        for name, value in os.environ.items()
        if name.startswith(SERVER_VARIABLE_PREFIX)
    }
    watch = make_watch(owner_pid, owner_descriptor)
    Supervisor(watch, lifeline, status, log, directory, output).run(command, environment)
    os._exit(0)  # there is nothing to finalize, and the owner may be waiting to reap us
