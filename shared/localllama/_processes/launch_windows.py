"""Windows: a job object owns the server for us. Unverified on this platform: read, not run there.

The owner holds the only handle of a job with "kill on close". When the owner is gone, however it died, the kernel closes
the handle and with it kills everything in the job: no supervisor is needed. The server is created inside the job, so
there is no moment at which it is outside. Its stdin is a pipe whose other end only the owner has, as elsewhere.

The private directory of an owner that was killed stays until the next one is made.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from pathlib import Path

from localllama.errors import ServerStartError

from .private_directory import remove_private_directory
from .process import STOP_SECONDS, ExitStatus, LaunchPlan, ServerProcess
from .windows_api import Kernel32

_KILLED = 9
_CANNOT_RUN = 126


class _Log:
    """The last bytes of the output; filled by a thread that knows nothing of the handle, which could not be dropped."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._pieces: deque[bytes] = deque()
        self._n_bytes = 0

    def keep(self, data: bytes) -> None:
        self._pieces.append(data)
        self._n_bytes += len(data)
        while self._n_bytes > self._most_bytes and len(self._pieces) > 1:
            self._n_bytes -= len(self._pieces.popleft())

    def text(self) -> str:
        return b"".join(tuple(self._pieces)).decode(errors="replace")

    def follow(self, output: int, directory: Path | None) -> None:
        """Read to the end of the output, which is the end of the server, and clear up."""
        with os.fdopen(output, "rb", buffering=0) as stream:
            while data := stream.read(65536):
                self.keep(data)
        remove_private_directory(directory)


class _JobServerProcess(ServerProcess):
    def __init__(self, plan: LaunchPlan, kernel32: Kernel32) -> None:
        self.creator_pid = os.getpid()
        self.pid = 0
        self._directory = plan.directory
        self._kernel32 = kernel32
        self._process = 0
        self._outcome: ExitStatus | None = None
        self._log = _Log(plan.log_bytes)
        self._jobs = [kernel32.create_job()]  # popped by whoever closes it: of two threads, one
        self._lifelines: list[int] = []

    def run(self, plan: LaunchPlan) -> None:
        """Start the server; from here on a thread reads its output to the end."""
        stdin, lifeline = os.pipe()
        self._lifelines.append(lifeline)
        output, their_output = os.pipe()
        try:
            self._process, self.pid = self._kernel32.create_process_in_job(
                self._jobs[0],
                plan.argv,
                plan.env,
                stdin=inheritable_handle(stdin),
                output=inheritable_handle(plan.output if plan.output >= 0 else their_output),
            )
        except OSError as error:
            self._log.keep(f"localllama: cannot run {plan.argv[0]}: {error}\n".encode())
            self._outcome = ExitStatus(exit_code=_CANNOT_RUN)
        finally:
            os.close(stdin)
            os.close(their_output)
        follow = threading.Thread(
            target=self._log.follow, args=(output, plan.directory), name="localllama-log", daemon=True
        )
        follow.start()

    def __del__(self) -> None:
        self.abandon()
        if self._process:
            self._kernel32.close(self._process)

    def exit_status(self) -> ExitStatus | None:
        return self.wait_for_exit(0.0)

    def wait_for_exit(self, timeout_seconds: float) -> ExitStatus | None:
        if self._outcome is None:
            code = self._kernel32.wait(self._process, timeout_seconds)
            if code is not None:
                self._outcome = ExitStatus(exit_code=code) if self._jobs else ExitStatus(signal_number=_KILLED)
        return self._outcome

    def log(self) -> str:
        return self._log.text()

    def abandon(self) -> None:
        for handles, close in ((self._jobs, self._kernel32.close), (self._lifelines, os.close)):
            while handles:
                try:
                    close(handles.pop())
                except IndexError:  # another thread was faster
                    break

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> ExitStatus | None:
        status = self.exit_status()
        self.abandon()
        status = status or self.wait_for_exit(timeout_seconds)
        remove_private_directory(self._directory)
        return status


def launch_in_job(plan: LaunchPlan, kernel32: Kernel32 | None = None) -> ServerProcess:
    """Start the server of `plan` in a job; see `process.launch`."""
    if sys.is_finalizing():
        raise ServerStartError("This Python process is about to end, so no server is started.")
    try:
        server = _JobServerProcess(plan, kernel32 or Kernel32())
    except OSError as error:
        remove_private_directory(plan.directory)
        raise ServerStartError(
            f"Windows gave no job object for the server: {error}.", hint="Windows 10 or later is needed."
        ) from error
    try:
        server.run(plan)
    except BaseException:
        server.abandon()
        remove_private_directory(plan.directory)
        raise
    return server


def inheritable_handle(descriptor: int) -> int:
    """The Windows handle behind a C descriptor, made inheritable."""
    if sys.platform == "win32":
        import msvcrt

        handle = msvcrt.get_osfhandle(descriptor)
        os.set_handle_inheritable(handle, True)
        return handle
    return descriptor  # for tests, which have another kernel32 as well
