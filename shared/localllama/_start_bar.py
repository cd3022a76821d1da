"""The bar that people see while a first call fetches its model and starts its server.

In a notebook it is plain HTML in the cell's output, which needs no widgets; at a terminal rich draws it on standard error, if
rich is installed. Anywhere else, and for a start of less than half a second, there is nothing. Nothing goes to standard output.
Whoever gives `start()` a callback of their own sees that one's reports instead.
"""

from __future__ import annotations

import html
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

from .types import StartProgress

__all__ = ["shown_start"]

_DELAY_SECONDS = 0.5
_BETWEEN_DRAWINGS_SECONDS = 0.1
_MEGABYTE = 1_000_000


class _Screen(Protocol):
    def draw(self, step: StartProgress, words: str) -> None: ...

    def clear(self) -> None: ...


@contextmanager
def shown_start() -> Iterator[Callable[[StartProgress], None]]:
    """What to call with each report of the start; at the end the bar is gone."""
    bar = _Bar()
    try:
        yield bar.report
    finally:
        bar.end()


class _Bar:
    """Draws not too early and not too often, and never lets a start fail because of a bar."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self._drawn_at = 0.0
        self._screen: _Screen | None = None
        self._is_off = False

    def report(self, step: StartProgress) -> None:
        now = time.monotonic()
        is_early = now - self._began_at < _DELAY_SECONDS or now - self._drawn_at < _BETWEEN_DRAWINGS_SECONDS
        if self._is_off or is_early or step.stage == "ready":
            return
        self._drawn_at = now
        try:
            if self._screen is None:
                self._screen = _screen()
            if self._screen is None:
                self._is_off = True
            else:
                self._screen.draw(step, _words(step, now - self._began_at))
        except Exception:  # noqa: BLE001  # a closed stream or a foreign display: the start goes on without a bar
            self._is_off = True

    def end(self) -> None:
        if self._screen is None:
            return
        try:
            self._screen.clear()
        except Exception:  # noqa: BLE001  # as above
            self._is_off = True


def _words(step: StartProgress, elapsed_seconds: float) -> str:
    if step.stage == "fetching":
        done = f"{step.done_bytes / _MEGABYTE:.1f}"
        amount = f"{done} of {step.total_bytes / _MEGABYTE:.1f} MB" if step.total_bytes else f"{done} MB"
        return f"fetching {step.detail}: {amount}"
    if step.stage == "installing":
        return f"installing llama.cpp ({step.detail})"
    what = "starting the server" if step.stage == "starting" else "loading the model"
    return f"{what} ({step.detail}): {elapsed_seconds:.0f} s"


def _screen() -> _Screen | None:
    if _is_notebook():
        return _NotebookScreen()
    if sys.stderr is not None and sys.stderr.isatty() and find_spec("rich") is not None:
        return _TerminalScreen()
    return None


def _is_notebook() -> bool:
    # Only a program that runs in IPython has loaded it; a shell with a kernel is one whose outputs are displayed.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


class _NotebookScreen:
    """One output of the cell, changed in place."""

    def __init__(self) -> None:
        self._id = f"localllama-{uuid.uuid4().hex}"
        self._is_shown = False

    def draw(self, step: StartProgress, words: str) -> None:
        share = f' value="{step.done_bytes}" max="{step.total_bytes}"' if step.total_bytes else ""
        self._display({"text/html": f"<progress{share}></progress> {html.escape(words)}", "text/plain": words})

    def clear(self) -> None:
        self._display({"text/html": "", "text/plain": ""})

    def _display(self, data: dict[str, str]) -> None:
        from IPython import display

        publish: Any = display.publish_display_data
        publish(data, transient={"display_id": self._id}, update=self._is_shown)
        self._is_shown = True


class _TerminalScreen:
    """A line on standard error, drawn by rich; no thread of its own, and nobody's streams are redirected."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress: Any = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True, emoji=False),
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=None)
        self._progress.start()

    def draw(self, step: StartProgress, words: str) -> None:
        self._progress.update(
            self._task, description=words, completed=step.done_bytes, total=step.total_bytes, refresh=True
        )

    def clear(self) -> None:
        self._progress.stop()
