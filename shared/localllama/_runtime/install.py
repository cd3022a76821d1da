"""Installing llama.cpp: which package managers there are here, what each is told, and in which order.

Homebrew first on macOS and Linux, then the system's own package manager, and the wheel into this environment as the last.
Nothing here runs without `run`, which the caller gives; `sudo` is used only where it was asked for. That a program was
installed proves nothing: the caller has to load a model with it (`fault_of`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from localllama.errors import ConfigurationError, LlamaRuntimeError

from .exit_reason import exit_words
from .resolve import python_program

__all__ = ["METHODS", "Attempt", "Method", "install_runtime", "methods_for", "planned_command"]

Outcome = Literal["installed", "unknown package", "failed", "does not work", "missing", "needs rights"]

_WHEEL = "xllamacpp>=2026.10.11549"


@dataclass(frozen=True)
class Method:
    """One way to install.

    Attributes:
        name: As `localllama install --method` takes it.
        program: The package manager; "" for pip, which is part of this environment.
        command: What it is told, without the program.
        needs_root: Only root may do it.
        systems: Values of `sys.platform` that it is for.
        question: Asks the manager's index for the package, with an exit code other than 0 if it has none; empty: it is not
            asked, its own error tells.
    """

    name: str
    program: str
    command: tuple[str, ...]
    needs_root: bool = False
    systems: tuple[str, ...] = ("linux",)
    question: tuple[str, ...] = ()

    @property
    def runtime(self) -> str:
        """The rung of the ladder that it installs."""
        return "embedded" if self.name == "pip" else "llama-server"


# Package names: Homebrew, Debian's pool (sid and later, Ubuntu's universe), Fedora, Arch and winget as of 2026. A system whose
# index lacks the name answers the question with an error, and the method is passed over.
METHODS: tuple[Method, ...] = (
    Method("brew", "brew", ("install", "llama.cpp"), systems=("darwin", "linux"), question=("info", "llama.cpp")),
    Method(
        "apt",
        "apt-get",
        ("install", "-y", "llama.cpp"),
        needs_root=True,
        question=("install", "--simulate", "-qq", "llama.cpp"),
    ),
    Method("dnf", "dnf", ("install", "-y", "llama-cpp"), needs_root=True, question=("info", "llama-cpp")),
    Method("pacman", "pacman", ("-S", "--noconfirm", "llama.cpp"), needs_root=True, question=("-Si", "llama.cpp")),
    Method(
        "zypper",
        "zypper",
        ("--non-interactive", "install", "llama.cpp"),
        needs_root=True,
        question=("--non-interactive", "search", "--match-exact", "llama.cpp"),
    ),
    Method(
        "winget",
        "winget",
        ("install", "--exact", "--id", "ggml.llamacpp", "--accept-source-agreements", "--accept-package-agreements"),
        systems=("win32",),
    ),
    Method("pip", "", (_WHEEL,), systems=("linux", "darwin", "win32")),
)


@dataclass(frozen=True)
class Attempt:
    """What became of one method.

    Attributes:
        method: Its name.
        command: What was run, or would have been.
        outcome: How it went.
        detail: Said to people.
    """

    method: str
    command: tuple[str, ...]
    outcome: Outcome
    detail: str = ""


def methods_for(choice: str, system: str = sys.platform) -> tuple[Method, ...]:
    """The methods to try, in order.

    Raises:
        ConfigurationError: `choice` is neither "auto" nor a method.
    """
    if choice == "auto":
        return tuple(method for method in METHODS if system in method.systems)
    found = tuple(method for method in METHODS if method.name == choice)
    if not found:
        names = ", ".join(method.name for method in METHODS)
        raise ConfigurationError(f"There is no method {choice!r}.", hint=f"It is one of auto, {names}.")
    return found


def planned_command(
    method: Method, environ: Mapping[str, str], *, allow_sudo: bool, is_root: bool
) -> tuple[str, ...] | None:
    """The whole command line; None if the package manager is not on this machine."""
    if method.name == "pip":
        python = python_program()
        if python is None:
            return None
        if importlib.util.find_spec("pip") is not None:
            return (python, "-m", "pip", "install", *method.command)
        uv = _program("uv", environ)
        return (uv, "pip", "install", "--python", python, *method.command) if uv else None
    program = _program(method.program, environ)
    if program is None:
        return None
    if method.needs_root and not is_root and allow_sudo:
        sudo = _program("sudo", environ)
        return (sudo, program, *method.command) if sudo else (program, *method.command)
    return (program, *method.command)


def _program(name: str, environ: Mapping[str, str]) -> str | None:
    # Not from a relative entry: whoever can write into the current directory could put a package manager in our way.
    entries = environ.get("PATH", "").split(os.pathsep)
    found = shutil.which(name, path=os.pathsep.join(entry for entry in entries if os.path.isabs(entry)))  # noqa: PTH117
    return found if found is not None and os.path.isabs(found) else None  # noqa: PTH117


def install_runtime(
    methods: Iterable[Method],
    environ: Mapping[str, str],
    *,
    run: Callable[[Sequence[str]], int],
    ask: Callable[[Sequence[str]], tuple[int, str]],
    announce: Callable[[Method, Sequence[str]], bool],
    fault_of: Callable[[Method], str | None],
    allow_sudo: bool = False,
    is_root: bool | None = None,
) -> list[Attempt]:
    """Try one method after the other until a model can be loaded.

    Args:
        methods: From `methods_for`.
        environ: PATH is read from it.
        run: Runs an installer with its output shown; returns its exit code.
        ask: Runs a question to an index, quietly; returns its exit code and the last words of its standard error.
        announce: Shows a command before it runs; False passes it over.
        fault_of: Loads a model with what a method has installed; None if that went well, else why it did not.
        allow_sudo: Use sudo where root is needed.
        is_root: Whether this is root; default: find out.

    Returns:
        What became of each method; the last one is "installed".

    Raises:
        LlamaRuntimeError: None of them led to a runtime that works; tells what became of each.
    """
    root = is_root if is_root is not None else hasattr(os, "geteuid") and os.geteuid() == 0
    attempts: list[Attempt] = []
    for method in methods:
        command = planned_command(method, environ, allow_sudo=allow_sudo, is_root=root)
        attempt = _attempt(method, command, run, ask, announce, environ, may_write=root or allow_sudo)
        if attempt.outcome == "installed":
            fault = fault_of(method)
            if fault is None:
                return [*attempts, attempt]
            attempt = Attempt(method.name, attempt.command, "does not work", fault)
        attempts.append(attempt)
    told = "; ".join(f"{attempt.method}: {attempt.detail or attempt.outcome}" for attempt in attempts)
    raise LlamaRuntimeError(
        f"No method led to a llama.cpp that works. {told}",
        hint="localllama doctor says what is there.",
    )


def _attempt(
    method: Method,
    command: tuple[str, ...] | None,
    run: Callable[[Sequence[str]], int],
    ask: Callable[[Sequence[str]], tuple[int, str]],
    announce: Callable[[Method, Sequence[str]], bool],
    environ: Mapping[str, str],
    *,
    may_write: bool,
) -> Attempt:
    if command is None:
        return Attempt(method.name, (), "missing", f"{method.program or 'pip'} is not on this machine")
    if method.question:
        question = (_program(method.program, environ) or method.program, *method.question)
        code, words = ask(question)
        if code:
            # No manager tells a package that it does not know from an index that it cannot read, so its words are told.
            said = f" ({words})" if words else ""
            return Attempt(method.name, command, "unknown package", f"its index gives no {method.command[-1]}{said}")
    if method.needs_root and not may_write:
        return Attempt(
            method.name,
            command,
            "needs rights",
            f"needs root: run `{' '.join(command)}` as root, or `localllama install --sudo`",
        )
    if not announce(method, command):
        return Attempt(method.name, command, "failed", "was not agreed to")
    code = run(command)
    if code:
        ended = exit_words(code if code > 0 else None, -code if code < 0 else None)
        return Attempt(method.name, command, "failed", f"`{' '.join(command)}` {ended}")
    return Attempt(method.name, command, "installed")
