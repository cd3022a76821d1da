"""The magics, in a real kernel: cells share a server, an interrupted cell leaves it, `stop` ends it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupyter_client
import psutil
import pytest

from support.waiting import wait_until


class Notebook:
    def __init__(self, directory: Path) -> None:
        self.kernels = jupyter_client.KernelManager(kernel_name="python3")
        self.kernels.start_kernel(cwd=str(directory))
        self.client = self.kernels.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str, at_output: Any = lambda: None) -> tuple[str, dict[str, Any]]:
        pieces: list[str] = []

        def note(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                pieces.append(message["content"]["text"])
                at_output()

        reply = self.client.execute_interactive(code, timeout=120, output_hook=note)
        return "".join(pieces), reply["content"]

    def pid(self) -> int:
        return int(re.findall(r"runs, pid (\d+)", self.run("%localllama status")[0])[0])


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    made = Notebook(tmp_path)
    assert made.run("%load_ext localllama")[1]["status"] == "ok"
    yield made
    made.client.stop_channels()
    made.kernels.shutdown_kernel(now=True)


def test_cells_share_a_server_that_stop_ends(notebook: Notebook, micro_model: Path) -> None:
    assert notebook.run("%localllama")[0] == "no model is in use\n"
    for _ in range(2):
        text, reply = notebook.run(f"%%llm {micro_model} max_tokens=8\nHello")
        assert reply["status"] == "ok", reply
        assert text.strip()
    pid = notebook.pid()
    assert notebook.run("%localllama stop")[0] == "no model is in use\n"
    wait_until(lambda: not psutil.pid_exists(pid), seconds=10, what="the end of the server")


def test_interrupting_a_cell_leaves_the_server(notebook: Notebook, micro_model: Path) -> None:
    notebook.run(f"%%llm {micro_model} max_tokens=8\nHello")
    pid = notebook.pid()
    interrupted: list[bool] = []

    def interrupt() -> None:
        if not interrupted:
            interrupted.append(True)
            notebook.kernels.interrupt_kernel()

    _, reply = notebook.run(f"%%llm {micro_model} max_tokens=7000\nHello", interrupt)
    assert reply["status"] == "error"
    assert reply["ename"] == "KeyboardInterrupt"
    assert notebook.pid() == pid
    assert notebook.run(f"%%llm {micro_model} max_tokens=8\nHello")[1]["status"] == "ok"
    assert notebook.pid() == pid


def test_mistakes_say_what_is_right(notebook: Notebook) -> None:
    assert notebook.run("%localllama fly")[1]["ename"] == "ConfigurationError"
    assert notebook.run("%%llm smollm2-135m max_tokns=8\nHello")[1]["ename"] == "ConfigurationError"
    assert notebook.run("%%llm one two\nHello")[1]["ename"] == "ConfigurationError"
