"""The bar of a start that takes long: in a notebook, at a terminal, and nowhere else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localllama import StartProgress, _start_bar
from support.file_server import served
from support.notebook import Notebook

AT_ONCE = "from localllama import _start_bar; _start_bar._DELAY_SECONDS = 0"

SCRIPT = f"""
import sys
if sys.argv[2] == "no rich":
    sys.modules["rich"] = None
{AT_ONCE}
from localllama import LocalLlamaClient, SamplingSettings, ServerSettings
with LocalLlamaClient(ServerSettings(model=sys.argv[1]), sampling=SamplingSettings(max_tokens=4)) as client:
    client.complete("once")
    print("answered")
"""


@pytest.fixture
def address(micro_model: Path) -> Iterator[str]:
    """A URL of the micro model."""
    with served(micro_model) as url:
        yield url


def test_a_cell_shows_how_far_the_fetch_and_the_start_are(notebook: Notebook, address: str, tmp_path: Path) -> None:
    notebook.run_well(f"import os; os.environ['LOCALLLAMA_MODELS'] = {str(tmp_path / 'models')!r}\n{AT_ONCE}")
    notebook.run_well("_start_bar._BETWEEN_DRAWINGS_SECONDS = 0")
    outputs = notebook.run_well(f"%%llm {address} max_tokens=4\nHello")
    pages = [shown["text/html"] for shown in outputs.displays]
    assert re.search(r'<progress value="\d+" max="\d+"></progress> fetching .*: [\d.]+ of [\d.]+ MB', pages[0])
    assert any("starting the server" in page for page in pages)  # the micro model may be loaded before it is asked
    assert pages[-1] == "", "the bar stays behind"
    assert outputs.streams["stderr"] == ""
    assert "MB" not in outputs.text
    assert notebook.run_well(f"%%llm {address} max_tokens=4\nHello").displays == [], "nothing is started here"


def test_a_start_that_takes_no_time_shows_nothing(notebook: Notebook, micro_model: Path) -> None:
    notebook.run_well("from localllama import _start_bar; _start_bar._DELAY_SECONDS = 3600")
    assert notebook.run_well(f"%%llm {micro_model} max_tokens=4\nHello").displays == []


def test_a_callback_of_the_caller_takes_the_place_of_the_bar(notebook: Notebook, micro_model: Path) -> None:
    notebook.run_well(f"{AT_ONCE}\nfrom localllama import LocalLlamaClient, ServerSettings\nstages = set()")
    notebook.run_well(f"client = LocalLlamaClient(ServerSettings(model={str(micro_model)!r}))")
    outputs = notebook.run_well("client.start(lambda step: stages.add(step.stage)); stages")
    assert "'ready'" in outputs.result["text/plain"]
    assert outputs.displays == []


def run_script(model: Path, *, at_terminal: bool, word: str = "") -> tuple[str, str]:
    """Standard output, a pipe, and what came to the terminal or the pipe of standard error."""
    screen, standard_error = os.openpty() if at_terminal else os.pipe()
    command = [sys.executable, "-c", SCRIPT, str(model), word]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    shown = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=standard_error, env=environment) as process:
        os.close(standard_error)
        while True:
            try:
                piece = os.read(screen, 4096)
            except OSError:  # how a terminal says that its other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.stdout is not None
        printed = process.stdout.read().decode()
    os.close(screen)
    assert process.returncode == 0, shown
    return printed, shown.decode()


def test_a_terminal_shows_it_on_standard_error(micro_model: Path) -> None:
    printed, shown = run_script(micro_model, at_terminal=True)
    assert printed == "answered\n"
    assert "the server" in shown or "the model" in shown


@pytest.mark.parametrize(("at_terminal", "word"), [(False, ""), (True, "no rich")])
def test_nothing_is_shown_to_programs_or_without_rich(micro_model: Path, at_terminal: bool, word: str) -> None:
    assert run_script(micro_model, at_terminal=at_terminal, word=word) == ("answered\n", "")


def test_an_installation_is_no_loading_model() -> None:
    step = StartProgress("installing", 3.0, detail="brew install llama.cpp")
    assert _start_bar._words(step, 4.0) == "installing llama.cpp (brew install llama.cpp)"
