"""Standard output for what was asked for, standard error for everything else; plain text where nobody looks at it."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, Task, TextColumn, TransferSpeedColumn
from rich.text import Text

from localllama.errors import ConfigurationError, LocalLlamaWarning
from localllama.types import StartProgress

__all__ = ["agreed", "errors", "has_terminal", "output", "print_json", "shown_bytes", "starting", "warnings_as_notes"]

_KILO = 1000
_WIDEST = 10_000


class _Notes(Console):
    """Breaks no text that it is given, so that a path or a command can be copied and found; a bar it fits to the width."""

    def print(self, *values: Any, **options: Any) -> None:
        if all(isinstance(value, str) for value in values):
            options.setdefault("soft_wrap", True)
        super().print(*values, **options)


class _Amount(DownloadColumn):
    """How much has come; nothing where nothing is fetched."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.completed or task.total else Text()


@lru_cache
def errors() -> Console:
    """The console for people. Names stay as they are: to Rich, `:x:` in a path is an emoji. It heeds NO_COLOR and TERM=dumb."""
    return _Notes(stderr=True, highlight=False, emoji=False)


@lru_cache
def output() -> Console:
    """The console for results."""
    is_narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    # For a program a line of a table stays one line.
    return Console(soft_wrap=True, highlight=False, emoji=False, width=None if is_narrow else _WIDEST)


def has_terminal() -> bool:
    """Whether somebody can type; a program that was started without standard input has none."""
    return sys.stdin is not None and sys.stdin.isatty()


def agreed(question: str, *, default: bool = False) -> bool:
    """Ask for a yes.

    Raises:
        ConfigurationError: Nobody answers, and there is no terminal where somebody could.
    """
    refusal = ConfigurationError("Nothing was done: nobody can be asked here.", hint="Add --yes.")
    if sys.stdin is None:
        raise refusal
    try:
        return typer.confirm(question, default=default, err=True)
    except typer.Abort:
        if has_terminal():
            raise
        raise refusal from None


def print_json(value: Any) -> None:
    """One JSON document for programs, without colours."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def shown_bytes(size_bytes: float) -> str:
    """Such as "98.4 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < _KILO:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= _KILO
    return f"{size_bytes:.1f} TB"


@contextmanager
def warnings_as_notes() -> Iterator[list[str]]:
    """Our warnings as notes on standard error, each once; yields their texts."""
    seen: list[str] = []

    def note(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, LocalLlamaWarning) and str(message) not in seen:
            seen.append(str(message))
            errors().print("[yellow]Note:[/]", end=" ")
            errors().print(str(message), markup=False, highlight=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", LocalLlamaWarning)
        warnings.showwarning = note
        yield seen


def _silent(_: StartProgress) -> None:
    """Nobody is there to see it."""


@contextmanager
def starting() -> Iterator[Callable[[StartProgress], None]]:
    """A progress bar on standard error while a model is fetched and loaded; nothing where that is no terminal."""
    if not errors().is_terminal:  # Rich 13 ends a bar that was never shown with an empty line
        yield _silent
        return
    columns = (TextColumn("{task.description}"), BarColumn(), _Amount(), TransferSpeedColumn())
    with Progress(*columns, console=errors(), transient=True) as progress:
        task = progress.add_task("", total=None, visible=False)

        def report(step: StartProgress) -> None:
            if step.stage == "fetching":
                words = f"fetching {step.detail}"
                progress.update(
                    task, description=words, completed=step.done_bytes, total=step.total_bytes, visible=True
                )
            elif step.stage != "ready":
                progress.update(
                    task, description=f"{step.stage} ({step.detail})", completed=0, total=None, visible=True
                )

        yield report
