"""`install`: bring llama.cpp onto this machine."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from localllama._models.store import locate_model
from localllama._runtime.install import Method, install_runtime, methods_for, planned_command
from localllama._runtime.install_check import NOT_STARTED, ask_quietly, fault_of_runtime
from localllama.errors import ConfigurationError, LocalLlamaError

from ._defaults import DEMO_MODEL, chosen_model
from ._screen import errors, has_terminal, output

__all__ = ["install"]

_STANDARD_ERROR = 2


def install(
    method: Annotated[str, typer.Option(help="auto, brew, apt, dnf, pacman, zypper, winget or pip.")] = "auto",
    is_agreed: Annotated[bool, typer.Option("--yes", "-y", help="Run the commands without asking.")] = False,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Show the commands and run none.")] = False,
    allow_sudo: Annotated[bool, typer.Option("--sudo", help="Use sudo where root is needed.")] = False,
) -> None:
    """Install llama.cpp: Homebrew, else the system's package manager, else the wheel into this environment."""
    methods = methods_for(method)
    if is_dry:
        _print_plan(methods, allow_sudo=allow_sudo)
        return
    if not is_agreed and not has_terminal():
        raise ConfigurationError(
            "Nothing was installed: nobody can be asked here.", hint="Look with --dry-run, then add --yes."
        )

    def announce(chosen: Method, command: Sequence[str]) -> bool:
        errors().print(f"[bold]{chosen.name}:[/]", end=" ")
        errors().print(shlex.join(command), markup=False, highlight=False, soft_wrap=True)
        return is_agreed or typer.confirm("Run it?", default=True, err=True)

    attempts = install_runtime(
        methods,
        os.environ,
        run=_run,
        ask=_ask,
        announce=announce,
        fault_of=lambda chosen: _fault_of_runtime(chosen.runtime),
        allow_sudo=allow_sudo,
    )
    for attempt in attempts[:-1]:
        errors().print(f"{attempt.method}: {attempt.detail}", style="dim", markup=False, soft_wrap=True)
    output().print(f"llama.cpp is installed by {attempts[-1].method}, and it has loaded a model.")


def _print_plan(methods: Sequence[Method], *, allow_sudo: bool) -> None:
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    for method in methods:
        command = planned_command(method, os.environ, allow_sudo=allow_sudo, is_root=is_root)
        note = f"({method.program or 'pip'} is not on this machine)" if command is None else shlex.join(command)
        output().print(f"{method.name:<8}{note}", markup=False, highlight=False)


def _ask(question: Sequence[str]) -> tuple[int, str]:
    errors().print(f"Asking: {shlex.join(question)}", style="dim", markup=False, soft_wrap=True)
    return ask_quietly(question)


def _run(command: Sequence[str]) -> int:
    # Its output goes where ours goes, so that whoever waits sees what is going on. It gets no input. In an empty directory,
    # since "python -m pip" would import a `pip` from the current one.
    process: subprocess.Popen[bytes] | None = None
    with TemporaryDirectory() as empty:
        try:
            with _interrupted_later():
                process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=_STANDARD_ERROR, cwd=empty)
            return process.wait()
        except OSError as error:
            errors().print(f"{command[0]}: {error.strerror or error}", style="red", markup=False)
            return NOT_STARTED
        except KeyboardInterrupt:
            if process is not None:
                _let_end(process, command[0])
            raise


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Put a Ctrl-C off until the block has ended: in the middle of `Popen` it would lose the process that has begun."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _let_end(process: subprocess.Popen[bytes], program: str) -> None:
    """Wait for an installer that the terminal has interrupted as it did us.

    One that is killed while it cleans up or configures, as `subprocess.run` would do it, leaves a broken system behind.
    """
    try:
        # Within: who reads it may press the keys before it is all printed.
        errors().print(f"\nWaiting for {program} to end; Ctrl-C once more ends it.", style="yellow", markup=False)
        process.wait()
    except KeyboardInterrupt:
        process.terminate()


def _fault_of_runtime(runtime: str) -> str | None:
    with TemporaryDirectory() as place:
        return fault_of_runtime(runtime, _model_for_check(Path(place)))


def _model_for_check(place: Path) -> Path:
    for reference in (chosen_model(None)[0], DEMO_MODEL):
        try:
            path = locate_model(reference)
        except LocalLlamaError:
            continue
        if path is not None:
            return path
    from localllama._models.tiny import write_tiny_model

    return write_tiny_model(place / "tiny.gguf")
