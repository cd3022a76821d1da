"""Runs the program once: its files, its output, how it ended, and an end that leaves nothing of it."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from localllama._runtime.one_shot_flags import ProgramForm

from .job import Job
from .output import Counters, OutputReader, read_counters
from .spawning import kill_with_children, spawn

__all__ = ["CallerLeftError", "Outcome", "Program", "ProgramError", "Run"]

_KEPT_LOG_BYTES = 8 * 1024 * 1024  # of each end; what a program says in a crash is less
_READ_BYTES = 16384
_LAST_WORDS_SECONDS = 5.0
_HELD_SECONDS = 0.1
_SWITCHES = ("--no-escape", "-no-cnv", "--no-display-prompt", "--simple-io", "--no-warmup", "--no-context-shift")
_CHAT_SWITCHES = ("--no-escape", "--single-turn", "--simple-io", "--no-show-timings", "--no-warmup")
# One slot; and the level at which the counts of tokens are said.
_CHAT_VALUES = ("-np", "1", "-co", "off", "--reasoning-format", "none", "-lv", "3")
# The new llama-cli takes "/read FILE" at the start for a command and cuts newlines at the end, and then applies a chat
# template. So the rendered prompt stands between two guards, and the template is one that takes them off.
_GUARD = "="
_RAW_TEMPLATE = '{{ messages[0]["content"][1:-1] }}'
_ECHO_BYTES = 500
_CANCELLED = "cancel task, id_task"  # what the new llama-cli says when somebody sent it SIGINT
_EXPLAINED = re.compile(r"^\S+ E |error", re.IGNORECASE | re.MULTILINE)
_TOO_LONG = re.compile(r"prompt is too long \((\d+) tokens, max (\d+)\)")
_KEPT_FREE = 4  # tokens of the window that llama-completion takes no prompt into
_TOO_LONG_CLI = re.compile(r"request \((\d+) tokens\) exceeds the available context size \((\d+) tokens\)")


class CallerLeftError(Exception):
    """Nobody waits for the answer any more."""


class ProgramError(Exception):
    """The program did not do what it was run for.

    Attributes:
        exit_code: Its exit code, or None.
        signal_number: The signal that ended it, or None.
        stderr: All that it said; of more than 16 MiB the two ends.
        reason: "missing", "permission", "overflow", "interrupted" or "failed".
        counts: For an overflow: tokens of the prompt, and of the window.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        signal_number: int | None = None,
        stderr: str = "",
        reason: Literal["missing", "permission", "overflow", "interrupted", "failed"] = "failed",
        counts: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.signal_number = signal_number
        self.stderr = stderr
        self.reason = reason
        self.counts = counts

    @property
    def is_unexplained(self) -> bool:
        """Whether llama.cpp gave up and its reason is lost; see `Program.is_whole`."""
        return self.exit_code == 1 and self.reason == "failed" and not _EXPLAINED.search(self.stderr)


@dataclass(frozen=True)
class Outcome:
    """How an answer ended.

    Attributes:
        is_ended_by_model: The model ended it; else a limit did.
        counters: The program's own.
        has_end: The output ended as that of this program does.
    """

    is_ended_by_model: bool
    counters: Counters
    has_end: bool = True


class _Log:
    """The standard error of a program: its two ends, if it is long."""

    def __init__(self) -> None:
        self._first = bytearray()
        self._last = bytearray()
        self._n_lost = 0

    def add(self, data: bytes) -> None:
        room = _KEPT_LOG_BYTES - len(self._first)
        self._first += data[:room]
        self._last += data[room:] if room < len(data) else b""
        surplus = len(self._last) - _KEPT_LOG_BYTES
        if surplus > _READ_BYTES:
            self._n_lost += surplus
            del self._last[:surplus]

    def text(self) -> str:
        between = f"\n[... {self._n_lost} bytes left out ...]\n".encode() if self._n_lost else b""
        return (bytes(self._first) + between + bytes(self._last)).decode(errors="replace")


class Run:
    """One run of the program.

    Args:
        arguments: The whole command line.
        reader: Reads its output.
        work: Its directory, removed in the end.

    Attributes:
        rest: What it wrote last, which is of the answer only if all of that came; see `Program.is_whole`.

    Raises:
        ProgramError: It cannot be started.
    """

    def __init__(self, arguments: list[str], reader: OutputReader, work: Path) -> None:
        self._reader = reader
        self._work = work
        self.rest = ""
        self._events: queue.Queue[tuple[str, bytes]] = queue.Queue(maxsize=256)
        self._log = _Log()
        try:
            self._process = spawn(arguments)
        except OSError as error:
            raise _cannot_spawn(error) from error
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._threads = [
            threading.Thread(target=self._read_text, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_log, args=(self._process.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """Tell that the caller has gone; from any thread."""
        with contextlib.suppress(queue.Full):
            self._events.put_nowait(("left", b""))
        self._kill()

    def texts(self) -> Iterator[str]:
        """The pieces of the answer as the program prints them. The last one stays in `rest`, if the end follows at once.

        The C library flushes streams at the end without a lock, "underneath" a thread that is printing (glibc's
        `_IO_cleanup`). So a program that does not wait for its printing thread may write its last piece twice, and only
        its outcome tells whether it waited.
        """
        while True:
            try:
                kind, data = self._events.get(timeout=_HELD_SECONDS if self.rest else None)
            except queue.Empty:
                kind, data = "data", b""
            if kind == "left":
                raise CallerLeftError
            text = self._reader.feed(data, is_last=kind == "end")
            if kind == "end":
                self.rest += text + self._reader.rest
                return
            if text or not data:
                held, self.rest = self.rest, text
                if held:
                    yield held

    def outcome(self) -> Outcome:
        """Wait for the end and judge it.

        Raises:
            ProgramError: The program failed.
        """
        status = self._process.wait()
        for thread in self._threads:
            thread.join(timeout=_LAST_WORDS_SECONDS)  # what it started may hold the other end of a pipe
        log = self._log.text()
        counters = read_counters(log)
        error = self._reader.error if counters.prompt_tokens is None else ""
        counts = _overflow(error or log) if error or status != 0 else None
        if counts is not None:
            raise ProgramError("the prompt does not fit", stderr=log, reason="overflow", counts=counts)
        if error:
            raise ProgramError(f"failed: {error}", exit_code=status, stderr=f"{log}\n{error}\n")
        if status != 0 or _CANCELLED in log:
            raise _failure(status, log)
        return Outcome(self._reader.is_ended_by_model, counters, self._reader.has_end)

    def stderr(self) -> str:
        """What the program said so far."""
        return self._log.text()

    def stop(self) -> None:
        """End the program, if it runs still, and remove its files."""
        if self._process.poll() is None:
            self._kill()
        self._process.wait()
        # An abandoned reader may wait with a full queue.
        with contextlib.suppress(queue.Empty):
            while True:
                self._events.get_nowait()
        shutil.rmtree(self._work, ignore_errors=True)

    def _read_text(self, output: IO[bytes]) -> None:
        with output:
            while data := os.read(output.fileno(), _READ_BYTES):
                self._events.put(("data", data))
        self._events.put(("end", b""))

    def _read_log(self, source: IO[bytes]) -> None:
        with source:
            while data := os.read(source.fileno(), _READ_BYTES):
                self._log.add(data)

    def _kill(self) -> None:
        kill_with_children(self._process)


class Program:
    """A one-shot program and how it is called.

    Args:
        command: The program.
        form: Which one.
        flags: What it lists.
        settings: Flags of every run: the model, the window, threads and so on.
        directory: Private, for files.

    Attributes:
        flags: As given.
        tells_counters: Whether it has been seen to print its counters, which are its last words.
        tells_end: Whether it has been seen to print what llama.cpp prints behind an answer.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        form: ProgramForm,
        flags: frozenset[str],
        settings: tuple[str, ...],
        directory: Path,
    ) -> None:
        self._command = command
        self._form = form
        self._settings = settings
        self._directory = directory
        self.flags = flags
        self.tells_counters = False
        self.tells_end = False

    def is_whole(self, outcome: Outcome) -> bool:
        """Whether all of the output came.

        llama.cpp prints from a thread of its own and does not wait for it at the end (issue 22142), so a program that
        ends quickly on a busy machine may lose its last words, and the answer with them. The counters come last of all;
        of a program that prints none, the end of an answer is known by the marks behind it, if it prints those.
        """
        if self.is_chat_client:
            return outcome.has_end
        if outcome.is_ended_by_model or outcome.counters.prompt_tokens is not None:
            return True
        return not self.tells_counters and (outcome.has_end or not self.tells_end)

    def is_cut(self, outcome: Outcome, n_predict: int, n_ctx: int, *, has_text: bool) -> bool:
        """Whether a limit ended the answer, and not the model.

        Args:
            outcome: How it ended.
            n_predict: The limit of the answer in tokens; none, if it is not above 0.
            n_ctx: The window in tokens.
            has_text: Whether there is any; without a word it was hardly a limit.
        """
        n_made = outcome.counters.completion_tokens
        if outcome.is_ended_by_model:
            return False
        if outcome.has_end and has_text and not self.is_chat_client:
            return True  # llama.cpp's mark of an end by the model is missing
        # Otherwise it does not say why it ended, and its counters, if there are any, must tell.
        if n_made is None:
            return False
        return n_made >= n_predict > 0 or (outcome.counters.prompt_tokens or 0) + n_made >= n_ctx

    @property
    def may_be_silent(self) -> bool:
        """Whether nothing at all may be its answer: it is not known to say more than the answer."""
        return not self.is_chat_client and not self.tells_counters

    @property
    def name(self) -> str:
        """For people."""
        return " ".join(self._command)

    @property
    def is_chat_client(self) -> bool:
        """Whether it is the new `llama-cli`, which says less of what it does."""
        return self._form == "new-cli"

    def run(self, job: Job, more_flags: tuple[str, ...] = ()) -> Run:
        """Start one run.

        Raises:
            ProgramError: It cannot be started.
        """
        work = Path(tempfile.mkdtemp(prefix="run-", dir=self._directory))
        try:
            arguments = self._arguments(job, work, more_flags)
            reader = OutputReader(
                _echo(self._guarded(job.prompt)) if self.is_chat_client else "",
                is_chat_client=self.is_chat_client,
                is_windows=sys.platform == "win32",
            )
            return Run(arguments, reader, work)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise

    def _guarded(self, prompt: str) -> str:
        return f"{_GUARD}{prompt}{_GUARD}" if self.is_chat_client else prompt

    def _arguments(self, job: Job, work: Path, more_flags: tuple[str, ...]) -> list[str]:
        # The program drops one newline at the end of the file.
        prompt_file = _written(work / "prompt", self._guarded(job.prompt) + "\n")
        arguments = [*self._command, *self._settings, "-f", prompt_file, *job.flags]
        if job.grammar is not None:
            arguments += ["--grammar-file", _written(work / "grammar", job.grammar)]
        if job.schema is not None and "--json-schema-file" in self.flags:
            arguments += ["--json-schema-file", _written(work / "schema", job.schema)]
        elif job.schema is not None:
            arguments += ["-j", job.schema]  # builds of 2024 and early 2025 have no file for it
        if self.is_chat_client:
            arguments += ["--chat-template-file", _written(work / "template", _RAW_TEMPLATE), *_CHAT_VALUES]
            wanted: tuple[str, ...] = _CHAT_SWITCHES
        else:
            wanted = _SWITCHES
        wanted = tuple(flag for flag in wanted if flag in self.flags and flag not in self._settings)
        return [*arguments, *wanted, *more_flags]


def _echo(prompt: str) -> str:
    """How the new llama-cli shows a prompt before the answer."""
    data = prompt.encode()
    if len(data) <= _ECHO_BYTES:
        return f"\n> {prompt}\n"
    return f"\n> {data[:_ECHO_BYTES].decode(errors='replace')} ... (truncated)\n"


def _cannot_spawn(error: OSError) -> ProgramError:
    message = f"could not be started: {error.strerror or error}"
    if isinstance(error, FileNotFoundError):
        return ProgramError(message, exit_code=127, reason="missing")
    if isinstance(error, PermissionError):
        return ProgramError(message, exit_code=126, reason="permission")
    return ProgramError(message, exit_code=126, stderr=str(error))


def _failure(status: int, log: str) -> ProgramError:
    signal_number = -status if status < 0 and os.name == "posix" else None
    # llama-completion exits with 130 then, the new llama-cli with 0.
    is_interrupt = status in (0, 128 + signal.SIGINT) or signal_number == signal.SIGINT
    return ProgramError(
        "was interrupted" if is_interrupt else "failed",
        exit_code=None if signal_number is not None else status,
        signal_number=signal_number,
        stderr=log,
        reason="interrupted" if is_interrupt else "failed",
    )


def _overflow(log: str) -> tuple[int, int] | None:
    for pattern in (_TOO_LONG, _TOO_LONG_CLI):
        match = pattern.search(log)
        if match:
            n_prompt, most = int(match[1]), int(match[2])
            n_ctx = most + (_KEPT_FREE if pattern is _TOO_LONG else 0)
            return n_prompt, n_ctx if n_prompt > n_ctx else most
    return None


def _written(path: Path, text: str) -> str:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline="") as file:
        file.write(text)
    return str(path)
