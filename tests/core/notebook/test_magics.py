"""The magics, in a real kernel: cells share a server, `stop` ends it, `status` and `doctor` say how it is."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

from support.notebook import Notebook
from support.waiting import wait_until


def pid_of(notebook: Notebook) -> int:
    return int(re.findall(r"runs, pid (\d+)", notebook.run_well("%localllama status").text)[0])


def test_cells_share_a_server_that_stop_ends(notebook: Notebook, micro_model: Path) -> None:
    assert notebook.run("%localllama").text == "no model is in use\n"
    for _ in range(2):
        assert notebook.run_well(f"%%llm {micro_model} max_tokens=8\nHello").text.strip()
    pid = pid_of(notebook)
    assert notebook.run("%localllama stop").text == "no model is in use\n"
    wait_until(lambda: not psutil.pid_exists(pid), seconds=10, what="the end of the server")


def test_status_shows_memory_and_speed(notebook: Notebook, micro_model: Path) -> None:
    notebook.run_well(f"%%llm {micro_model} max_tokens=8 ignore_eos=true\nHello")
    status = notebook.run_well("%localllama status").text
    assert re.fullmatch(rf"{micro_model}: runs, pid \d+, \d+ MB, \d+\.\d tokens per second\n", status)


def test_interrupting_a_cell_leaves_the_server(notebook: Notebook, micro_model: Path) -> None:
    notebook.run_well(f"%%llm {micro_model} max_tokens=8\nHello")
    pid = pid_of(notebook)
    reply = notebook.run_interrupted(f"%%llm {micro_model} max_tokens=7000 ignore_eos=true\nHello").reply
    assert reply["status"] == "error"
    assert reply["ename"] == "KeyboardInterrupt"
    assert pid_of(notebook) == pid
    notebook.run_well(f"%%llm {micro_model} max_tokens=8\nHello")
    assert pid_of(notebook) == pid


def test_doctor_says_what_is_here_and_that_it_answers(notebook: Notebook, micro_model: Path) -> None:
    outputs = notebook.run_well(f"%localllama doctor {micro_model}")
    assert re.search(r"^ok +runtime: .", outputs.text, re.MULTILINE)
    assert re.search(r"^ok +answer: 1 token generated", outputs.text, re.MULTILINE)
    assert outputs.text.endswith("All is well.\n")


def test_doctor_says_how_to_mend_a_fault(notebook: Notebook, tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<html>not a model</html>")
    text = notebook.run_well("%localllama doctor ./page.gguf").text
    assert re.search(r"^fault +model: .*page\.gguf", text, re.MULTILINE)
    assert "\nTo mend model: " in text
    assert "All is well" not in text


def test_mistakes_say_what_is_right(notebook: Notebook) -> None:
    assert notebook.run("%localllama fly").reply["ename"] == "ConfigurationError"
    assert notebook.run("%localllama stop everything").reply["ename"] == "ConfigurationError"
    assert notebook.run("%%llm smollm2-135m max_tokns=8\nHello").reply["ename"] == "ConfigurationError"
    assert notebook.run("%%llm one two\nHello").reply["ename"] == "ConfigurationError"
