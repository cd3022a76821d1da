"""`chat` in a real terminal: a pty, with its Ctrl-C, its end of file and its size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.micro_model import build_micro_model
from support.terminal import Terminal

N_CTX = 65536


@pytest.fixture
def terminal(environ: dict[str, str], tmp_path: Path) -> Iterator[Terminal]:
    # A window so long that no answer ends by itself before it is interrupted, however busy the machine is.
    model = build_micro_model(tmp_path / "endless.gguf", n_ctx_train=N_CTX)
    arguments = ["chat", "--temperature", "0", "--model", str(model), "--n-ctx", str(N_CTX)]
    opened = Terminal(arguments, environ | {"TERM": "xterm"})
    yield opened
    opened.close()


def test_a_conversation_with_an_interrupted_answer(terminal: Terminal, tmp_path: Path) -> None:
    terminal.expect("> ")
    terminal.type("Hello\n")
    terminal.expect("Hello")
    terminal.expect_more()
    terminal.resize(10, 40)
    # The micro model writes until the window is full; the answer is stopped, the program goes on.
    terminal.type("\x03")
    terminal.expect("(stopped)")
    terminal.expect("> ")
    terminal.interrupt_until("/exit or Ctrl-D ends")
    terminal.expect("> ")
    saved = tmp_path / "saved.json"
    terminal.type(f"/save {saved}\n")
    terminal.expect("(saved in")
    turns = json.loads(saved.read_text())
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert turns[0]["content"] == "Hello"
    terminal.type(f"/save {saved}\n")
    terminal.expect("(saved in")
    other = tmp_path / "other.txt"
    other.write_text("IMPORTANT")
    terminal.type(f"/save {other}\n")
    terminal.expect("there already")
    assert other.read_text() == "IMPORTANT"
    terminal.type("/reset\n")
    terminal.expect("(forgotten)")
    terminal.type("/nonsense\n")
    terminal.expect("/reset forgets")
    terminal.type("/exit\n")
    assert terminal.wait() == 0


def test_end_of_file_ends_it(terminal: Terminal) -> None:
    terminal.expect("> ")
    terminal.type("\x04")
    assert terminal.wait() == 0


def test_a_place_where_nothing_can_be_saved_ends_no_conversation(terminal: Terminal) -> None:
    for name in ("~nobody-of-this-name/x", "/nowhere/x", "x" * 300, "/"):
        terminal.expect("> ")
        terminal.type(f"/save {name}\n")
        terminal.expect("is there already" if name == "/" else "cannot be written")
    terminal.expect("> ")
    terminal.type("/exit\n")
    assert terminal.wait() == 0
