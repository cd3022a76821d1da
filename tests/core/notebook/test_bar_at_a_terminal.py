"""The bar of a start where no page is: a line on standard error if that is a terminal, and nothing at all elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from localllama import StartProgress, _start_bar
from localllama._start_bar import shown_start


class _Screen(io.StringIO):
    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def shown(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool = True, delay_seconds: float = 0.0) -> str:
    """What a start of two reports writes to standard error."""
    screen = _Screen(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(_start_bar, "_DELAY_SECONDS", delay_seconds)
    monkeypatch.setattr(_start_bar, "_BETWEEN_DRAWINGS_SECONDS", 0)
    with shown_start() as report:
        report(StartProgress("fetching", 1.0, done_bytes=1_500_000, total_bytes=3_000_000, detail="[red]m[/]"))
        report(StartProgress("starting", 1.0, detail="llama-server"))
    return screen.getvalue()


def test_a_terminal_shows_each_step_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch)
    assert "fetching [red]m[/]: 1.5 of 3.0 MB" in text
    assert "starting the server (llama-server)" in text
    erase_line = "\x1b[2K"
    assert text.rindex(erase_line) > text.rindex("llama-server"), "the bar stays behind"


def test_a_file_is_written_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, is_terminal=False) == ""


def test_a_short_start_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, delay_seconds=3600) == ""
