"""Runs owner programs, kills them, and proves that nothing of them is left.

What a trial starts is found by a token in its environment, and its directories by a base directory of its own; so the
proof does not depend on anything that the code under test reports.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from localllama._processes.private_directory import sweep_private_directories
from localllama._processes.supervisor import BOOTSTRAP
from support.processes import ProcessIdentity, processes_with_token
from support.waiting import wait_until

TOKEN = "LOCALLLAMA_TEST_TOKEN"
GONE_SECONDS = 2.0
N_PARALLEL = 4
SECOND_INTERRUPT_SECONDS = 6.0
OWNER = Path(__file__).with_name("owners") / "owner.py"


def n_repeats() -> int:
    return int(os.environ.get("LOCALLLAMA_TEST_REPEATS", "3"))


def repeat(trial: Callable[[int], None], *, times: int | None = None) -> None:
    """Run `trial(number)` again and again, a few at a time; report how many failed, and the first failure."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            trial(number)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    total = times or n_repeats()
    with ThreadPoolExecutor(N_PARALLEL) as pool:
        list(pool.map(run, range(total)))
    if failures:
        raise AssertionError(f"{len(failures)} of {total} trials failed; the first: {failures[0]}") from failures[0]


class Trial:
    """One owner program.

    Args:
        scenario: A name in `owners/owner.py`.
        mode: "standin", "client" or "busy"; see `owners/starting.py`.
        model: The model for the last two.
        terminal: Path of a terminal that becomes the owner's.
        command: Another program than owner.py.
        environment: More variables for it.
    """

    def __init__(
        self,
        scenario: str,
        mode: str = "standin",
        *,
        model: Path | None = None,
        terminal: str = "",
        command: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.token = secrets.token_hex(8)
        # Not pytest's tmp_path: its length would not leave room for a socket's name.
        self.base = Path(tempfile.mkdtemp(prefix="lld-"))
        variables = {k: v for k, v in os.environ.items() if k not in (TOKEN, "XDG_RUNTIME_DIR")}
        variables |= {"DEATHS_TOKEN": self.token, "TMPDIR": str(self.base), "DEATHS_MODEL": str(model)}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process: subprocess.Popen[str] = subprocess.Popen(
            command or [sys.executable, str(OWNER), scenario, mode, *([terminal] if terminal else [])],
            env=variables | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            text=True,
        )
        self._heard: list[str] = []
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listener.start()
        self.owner = ProcessIdentity.of(self._process.pid)

    def __enter__(self) -> Trial:  # noqa: PYI034 - typing has no Self in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        # Everything the owner has forked is in its session, whatever it has become.
        for pid in {*processes_with_token("DEATHS_TOKEN", self.token), *self.left(), self._process.pid}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait(10)
        self._listener.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
        shutil.rmtree(self.base, ignore_errors=True)

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            self._heard.append(line.strip())

    def hear(self, word: str, *, seconds: float = 60) -> str:
        """Wait until the owner prints a line that begins with `word`, and return it."""

        def heard() -> str | None:
            if self._process.poll() is not None and not self._listener.is_alive() and not self._matching(word):
                raise AssertionError(f"the owner ended before it said {word}: {self.errors()}")
            return self._matching(word)

        return str(wait_until(heard, seconds=seconds, what=f"{word} from the owner"))

    def wait_for_file(self, path: Path) -> None:
        """Wait until what the owner has started writes this file."""
        wait_until(path.exists, seconds=60, what=f"{path.name}; the owner says: {self.errors()}")

    def interrupt_until(self, word: str) -> None:
        """Interrupt the owner until it says `word`: one that arrives inside a finalizer Python itself throws away.

        With a long pause: on a busy machine a second one would hit what the owner does about the first.
        """

        last = 0.0

        def interrupted() -> str | None:
            nonlocal last
            if time.monotonic() - last > SECOND_INTERRUPT_SECONDS:
                last = time.monotonic()
                self.kill(signal.SIGINT)
            return self._matching(word)

        wait_until(interrupted, seconds=40, what=word)

    def _matching(self, word: str) -> str | None:
        return next((line for line in self._heard if line.split()[:1] == [word]), None)

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:]

    def left(self) -> list[int]:
        """Pids of servers, their children and supervisors."""
        return processes_with_token(TOKEN, self.token)

    def supervisors(self) -> list[int]:
        return [pid for pid in self.left() if b"localllama-supervisor" in _command_line(pid)]

    def servers(self) -> list[int]:
        """Pids of processes whose parent is a supervisor."""
        supervisors = self.supervisors()
        return [pid for pid in self.left() if _parent(pid) in supervisors and pid not in supervisors]

    def supervisor(self) -> int:
        (pid,) = self.supervisors()
        return pid

    def is_supervised_by_python(self) -> bool:
        return BOOTSTRAP.encode() in _command_line(self.supervisors()[0])

    def server(self) -> int:
        (pid,) = self.servers()
        return pid

    def own_server(self) -> int:
        """The one that the owner itself has started, and no child of it."""
        (pid,) = [pid for pid in self.servers() if _parent(_parent(pid)) == self._process.pid]
        return pid

    def directories(self) -> list[Path]:
        return [path for path in self.base.iterdir() if path.name.startswith("localllama-")]

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal the owner."""
        os.kill(self._process.pid, number)

    def wait_owner(self, seconds: float = 20) -> int:
        return self._process.wait(seconds)

    def assert_serving(self) -> None:
        """The server is there: a trial in which nothing was started proves nothing."""
        assert len(self.servers()) == 1, f"servers: {self.servers()}, all: {self.left()}, {self.errors()}"
        assert self.directories()

    def wait_until_servers_are(self, pids: list[int]) -> None:
        wait_until(lambda: self.servers() == pids, seconds=GONE_SECONDS, what=f"the servers to be {pids}")

    def assert_gone(self, seconds: float = GONE_SECONDS) -> None:
        """No server, no supervisor, no directory, no socket."""
        wait_until(lambda: not self.left(), seconds=seconds, what="the end of server and supervisor")
        wait_until(lambda: not self.directories(), seconds=seconds, what="the removal of the private directory")

    def assert_gone_but_for_a_directory(self) -> None:
        """As `assert_gone`, where nobody lived who could remove the directory: the next start does."""
        wait_until(lambda: not self.left(), seconds=GONE_SECONDS, what="the end of server and supervisor")
        for directory in self.directories():
            try:
                names = [path.name for path in directory.iterdir()]
            except FileNotFoundError:
                continue  # a supervisor that came too late to be found has just removed it
            # Without a lock it is removed too, but for a maker's sake not at once; then nothing else is in it.
            assert "lock" in names or set(names) <= {"lock.new"}, f"left without a lock: {names}"
        # A supervisor that is between fork and exec has no environment to be found by, but it has the lock.
        wait_until(self._nothing_is_locked, seconds=GONE_SECONDS, what="the end of whoever holds the directory's lock")

    def _nothing_is_locked(self) -> bool:
        sweep_private_directories(str(self.base))
        return not any((path / "lock").exists() for path in self.directories())


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
