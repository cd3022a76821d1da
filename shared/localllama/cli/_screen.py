"""Standard output for what was asked for, standard error for everything else; plain text where nobody looks at it."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, Task, TextColumn, TransferSpeedColumn
from rich.text import Text

from localllama.errors import LocalLlamaWarning
from localllama.types import StartProgress

__all__ = ["errors", "output", "print_json", "shown_bytes", "starting", "warnings_as_notes"]

_KILO = 1000


class _Amount(DownloadColumn):
    """How much has come; nothing where nothing is fetched."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.completed or task.total else Text()


@lru_cache
def errors() -> Console:
    """The console for people. Names stay as they are: to Rich, `:x:` in a path is an emoji. It heeds NO_COLOR and TERM=dumb."""
    return Console(stderr=True, highlight=False, emoji=False)


@lru_cache
def output() -> Console:
    """The console for results."""
    return Console(soft_wrap=True, highlight=False, emoji=False)


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
