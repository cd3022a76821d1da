"""Asking a llama.cpp program what it can do, by its `--help`: version numbers are not to be trusted.

Builds outside git call themselves 0, shallow clones 330, and packages lag by years, while an unknown flag is fatal to
llama-server. So the flags that a program lists are the truth, and its version is a hint for people.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, get_args

from localllama._processes.process import LaunchPlan, launch
from localllama.errors import RuntimeBrokenError

from .environment import without_llama_variables
from .exit_reason import exit_words, loader_fault
from .one_shot_flags import ProgramForm, form_of_help, stand_in_flags
from .probe_cache import FileStamp, command_stamp, forget, forget_question, remember, remembered
from .runtime import Runtime

__all__ = [
    "forget_answers",
    "forget_foreign_programs",
    "listed_flags",
    "one_shot_form",
    "runtime_version",
    "supported_flags",
    "supports_unix_sockets",
]

_TIMEOUT_SECONDS = 20.0
_HELP_BYTES = 1 << 20
_KEPT_BYTES = 8 << 20  # of each end, of what a program says that has no help to give
_TAIL_LINES = 15
_ESSENTIAL_FLAGS = frozenset({"--model", "--host", "--port", "--ctx-size"})
# Descriptions stand 30 columns or more to the right; builds of 2024 indented the flags a little.
_ENTRY = re.compile(r" {0,12}-")
_FORMS = (*get_args(ProgramForm), None)
# What another program says to `--help`; one that breaks says no such thing.
_USAGE = re.compile(r"^\s*usage:", re.IGNORECASE | re.MULTILINE)
_FOREIGN = "another program"
_MOST_TAIL_CHARACTERS = 2000
# What is said where the kernel will not run it (`supervisor.become_server`).
_REFUSAL = re.compile(r"\Alocalllama: cannot run .*: ([^:\n]+)\n\Z", re.DOTALL)
_FLAG = re.compile(r"--?[A-Za-z][\w.-]*")
_VERSION_PATTERNS = (
    re.compile(r"version: (?P<version>\S+) \(build (?P<build>\d+), commit (?P<commit>\w+)\)"),
    re.compile(r"version: (?P<version>\d+) \((?P<commit>\w+)\)"),
)


@dataclass(frozen=True)
class _Help:
    flags: frozenset[str]
    supports_unix_sockets: bool
    form: ProgramForm | None = None


_known: dict[tuple[str, tuple[FileStamp, ...]], _Help] = {}


@dataclass(frozen=True)
class _Run:
    exit_code: int | None
    signal_number: int | None
    output: str
    is_timed_out: bool = False


def supported_flags(runtime: Runtime, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> frozenset[str]:
    """Every spelling of every flag that the program lists, such as "-c" and "--ctx-size"; removed ones are left out.

    Remembered, on disk too, for as long as the program's file does not change, and so is that it is another program; that
    it cannot answer is not.

    Raises:
        RuntimeBrokenError: It could not even print its help, or is not llama.cpp's server.
    """
    return _help(runtime, timeout_seconds).flags


def supports_unix_sockets(runtime: Runtime) -> bool:
    """Whether `--host` takes the path of a UNIX socket: llama-server since March 2025 (PR 12613), and not on Windows.

    Raises:
        RuntimeBrokenError: As `supported_flags`.
    """
    return _help(runtime, _TIMEOUT_SECONDS).supports_unix_sockets


def one_shot_form(runtime: Runtime, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> ProgramForm | None:
    """Which program answers once behind a one-shot rung; None for any other rung.

    Raises:
        RuntimeBrokenError: As `supported_flags`.
    """
    return _help(runtime, timeout_seconds).form


def listed_flags(command: Sequence[str]) -> frozenset[str]:
    """What any program lists in its `--help`; remembered like `supported_flags`.

    Raises:
        RuntimeBrokenError: It cannot be started.
    """
    runtime = Runtime("one-shot", tuple(command), " ".join(command), tuple(command))
    known = remembered("flags", command)
    if isinstance(known, list) and known and all(isinstance(flag, str) for flag in known):
        return frozenset(known)
    run = _help_run(runtime, _TIMEOUT_SECONDS)
    flags = _listed_flags(run.output[:_HELP_BYTES])
    if flags and run.exit_code == 0:
        remember("flags", command, sorted(flags))
    return flags


def runtime_version(runtime: Runtime) -> str | None:
    """What the program says of its version, such as "0.6.0-dev (build 10453)" or "build 8994"; a hint, or None.

    Remembered like the flags.
    """
    # The multi-call program knows `llama version` alone; `llama serve --version` is that of the server.
    command = [*(runtime.program or runtime.command), "--version"]
    known = remembered("version", runtime.command)
    if isinstance(known, str):
        return known
    try:
        version = _version_in(_run(command, _TIMEOUT_SECONDS).output)
    except OSError:
        return None
    if version is not None:
        remember("version", runtime.command, version)
    return version


def forget_answers(runtime: Runtime) -> None:
    """Ask the program again next time: its file is the same, but not all that it depends on may be."""
    _known.pop((runtime.kind, command_stamp(runtime.command)), None)
    forget(runtime.command)


def forget_foreign_programs() -> None:
    """Ask again whether programs that were something else are llama.cpp's."""
    forget_question(_FOREIGN)


def _version_in(output: str) -> str | None:
    for pattern in _VERSION_PATTERNS:
        match = pattern.search(output)
        if match:
            found = match.groupdict()
            return f"{found['version']} (build {found['build']})" if "build" in found else f"build {found['version']}"
    return None


def _help(runtime: Runtime, timeout_seconds: float) -> _Help:
    key = (runtime.kind, command_stamp(runtime.command))
    known = _known.get(key)
    if known is None:
        known = _known[key] = _ask(runtime, timeout_seconds)
    return known


def _kept_help(runtime: Runtime) -> _Help | None:
    answer = remembered(f"help of {runtime.kind}", runtime.command)
    try:
        flags, supports_unix, form = answer
        is_well_formed = all(isinstance(flag, str) for flag in flags) and form in _FORMS and bool(flags)
        return _Help(frozenset(flags), supports_unix is True, form) if is_well_formed else None
    except (TypeError, ValueError):
        return None


def _ask(runtime: Runtime, timeout_seconds: float) -> _Help:
    if runtime.kind in ("embedded", "mock"):
        # The same table that the child prints; a process less before the first token. The mock takes what any rung takes.
        from .embedded_flags import help_text

        return _Help(_listed_flags(help_text()), supports_unix_sockets=True)
    kept = _kept_help(runtime)
    if kept is not None:
        return kept
    question = f"{_FOREIGN}, not {runtime.kind}"
    known = remembered(question, runtime.command)
    if isinstance(known, str):
        raise _broken(runtime, _foreign_words(runtime), known)
    run = _help_run(runtime, timeout_seconds)
    flags = _listed_flags(run.output[:_HELP_BYTES])
    help_ = _read_help(runtime, run, flags)
    if help_ is not None:
        remember(
            f"help of {runtime.kind}", runtime.command, [sorted(help_.flags), help_.supports_unix_sockets, help_.form]
        )
        return help_
    fault = loader_fault(run.output)
    if run.is_timed_out:
        reason = f"did not print its help within {timeout_seconds:g} s"
    elif run.exit_code == 0 or (run.exit_code is not None and fault is None and _USAGE.search(run.output)):
        remember(question, runtime.command, _tail(run.output))
        reason = _foreign_words(runtime)
    else:
        reason = exit_words(run.exit_code, run.signal_number)
        reason += f": {fault}" if fault else ""
    raise _broken_in_help(runtime, reason, run)


def _broken_in_help(runtime: Runtime, reason: str, run: _Run) -> RuntimeBrokenError:
    error = _broken(runtime, reason, run.output)
    error.exit_code, error.signal_number = run.exit_code, None if run.is_timed_out else run.signal_number
    error.stderr = run.output if runtime.kind == "one-shot" else ""
    return error


def _foreign_words(runtime: Runtime) -> str:
    name = "llama-completion" if runtime.kind == "one-shot" else "llama-server"
    return f"does not list {name}'s flags, so it is another program"


def _read_help(runtime: Runtime, run: _Run, flags: frozenset[str]) -> _Help | None:
    if runtime.kind == "one-shot":
        form = form_of_help(" ".join([Path(runtime.program[0]).name, *runtime.program[1:]]).lower(), flags)
        return _Help(stand_in_flags(flags), hasattr(socket, "AF_UNIX"), form) if form is not None else None
    return _Help(flags, ".sock" in run.output) if flags >= _ESSENTIAL_FLAGS else None


def _help_run(runtime: Runtime, timeout_seconds: float) -> _Run:
    try:
        run = _run([*(runtime.program or runtime.command), "--help"], timeout_seconds)
    except OSError as error:
        raise _refused(runtime, error.strerror or str(error)) from error
    refusal = _REFUSAL.search(run.output)
    if refusal:
        raise _refused(runtime, refusal.group(1))
    return run


def _refused(runtime: Runtime, words: str) -> RuntimeBrokenError:
    """It could not even be started; `words` are those of the system."""
    program = (runtime.program or runtime.command)[0]
    if words == os.strerror(errno.ENOENT) and Path(program).exists():
        words += ". The file is there, but not the interpreter or the loader that it names"
    elif words == os.strerror(errno.ENOEXEC):
        words += ". It was built for another processor, or is no program"
    return _broken(runtime, f"could not be started: {words}", "")


def _broken(runtime: Runtime, reason: str, output: str) -> RuntimeBrokenError:
    return RuntimeBrokenError(
        f"{runtime.origin} {reason}.",
        hint=f"Run `{' '.join(runtime.program or runtime.command)} --help` by hand, reinstall llama.cpp, "
        'or use the embedded runtime: pip install "localllama[runtime]"',
        runtime=runtime.origin,
        log_tail=_tail(output),
    )


def _tail(output: str) -> str:
    return "\n".join(output.rstrip().splitlines()[-_TAIL_LINES:])[-_MOST_TAIL_CHARACTERS:]


def _run(command: list[str], timeout_seconds: float) -> _Run:
    """Run a program to its end, or for so long, and leave nothing of it.

    It is launched like a server: one that hangs, serves instead of answering, or starts others is gone when this returns,
    and also when this process is killed meanwhile.
    """
    env = without_llama_variables(os.environ)
    # A config.ini of llama.cpp could name a flag that this build refuses.
    env["XDG_CONFIG_HOME"] = os.devnull
    with _nameless_file() as output:
        plan = LaunchPlan(command, env, directory=None, output=output.fileno())
        process = launch(plan)
        try:
            status = process.wait_for_exit(timeout_seconds)
        finally:
            process.stop()
        text = _both_ends(output) or process.log_tail()
    if status is None:
        return _Run(None, None, text, is_timed_out=True)
    return _Run(status.exit_code, status.signal_number, text)


def _nameless_file() -> IO[bytes]:
    # In memory where that can be: there may be no directory for temporary files that can be written to.
    try:
        return os.fdopen(os.memfd_create("localllama-output"), "w+b")
    except (AttributeError, OSError):
        return tempfile.TemporaryFile()


def _both_ends(file: IO[bytes]) -> str:
    n_lost = file.seek(0, os.SEEK_END) - 2 * _KEPT_BYTES
    file.seek(0)
    if n_lost <= 0:
        return file.read().decode("utf-8", "replace")
    first = file.read(_KEPT_BYTES)
    file.seek(-_KEPT_BYTES, os.SEEK_END)
    return (first + f"\n[... {n_lost} bytes left out ...]\n".encode() + file.read()).decode("utf-8", "replace")


def _listed_flags(text: str) -> frozenset[str]:
    flags: set[str] = set()
    entry: list[str] = []

    def close_entry() -> None:
        # Builds of 2026 still list the flags that they no longer take.
        if entry and "argument has been removed" not in " ".join(" ".join(entry).split()):
            flags.update(_flags_of(entry[0]))

    for line in text.splitlines():
        if _ENTRY.match(line):
            close_entry()
            entry = [line]
        elif entry:
            entry.append(line)
    close_entry()
    return frozenset(flags)


def _flags_of(line: str) -> list[str]:
    flags = []
    for word in line.split():
        name = word.removesuffix(",")
        if not _FLAG.fullmatch(name):
            break
        flags.append(name)
        if not word.endswith(","):
            break
    return flags
