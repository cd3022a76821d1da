"""A program in a terminal: a pty, with its Ctrl-C, its end of file and its size."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

from support.waiting import wait_until

SECONDS = 60.0


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, arguments: list[str], environ: dict[str, str]) -> None:
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, "-m", "localllama", *arguments], environ)
        self.seen = ""
        self.code: int | None = None

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: str) -> str:
        """Wait until `text` is printed; returns what came with it, and forgets it."""
        deadline = time.monotonic() + SECONDS
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} did not come; there was {self.seen!r}"
            self._read()
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def interrupt_until(self, text: str) -> None:
        """Press Ctrl-C until `text` comes. Python's `input` may miss one that comes just as it begins to wait."""
        deadline = time.monotonic() + SECONDS
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} did not come; there was {self.seen!r}"
            self.type("\x03")
            pause = time.monotonic() + 2
            while text not in self.seen and time.monotonic() < pause:
                self._read()
        self.seen = self.seen.partition(text)[2]

    def expect_more(self) -> None:
        """Wait until anything else is printed."""
        while not self.seen.strip():
            self._read()

    def _read(self) -> None:
        if select.select([self._descriptor], [], [], 0.1)[0]:
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:
                data = b""
            assert data, f"it ended; there was {self.seen!r}"
            self.seen += data.decode("utf-8", "replace")

    def wait(self) -> int:
        def ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            return bool(pid)

        wait_until(ended, seconds=SECONDS, what="the end of the program")
        assert self.code is not None
        return self.code

    def close(self) -> None:
        os.close(self._descriptor)
        if self.code is None:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
