"""`make demo` as its user sees it: both answers, the times, no process left; and an end by Ctrl-C or by an error."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.processes import ProcessIdentity
from support.waiting import wait_until

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo.py"

# A shell that runs the tests in the background has them ignore Ctrl-C, and a child inherits that.
RUN_WITH_CTRL_C = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _start(model: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN_WITH_CTRL_C, str(DEMO), "--model", str(model)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_demo_answers_through_both_frameworks(micro_model: Path) -> None:
    out, err = (demo := _start(micro_model)).communicate(timeout=240)
    assert demo.returncode == 0, err
    answers = re.findall(r"^(LangChain|LlamaIndex)\n  > .+\n  (.+)$", out, re.MULTILINE)
    assert [name for name, _ in answers] == ["LangChain", "LlamaIndex"]
    assert all(len(text) > 20 for _, text in answers)
    for name in ("LangChain", "LlamaIndex"):
        assert re.search(rf"{name}: first token +\d+\.\d\d s, then \d+ tokens/s \(\d+ tokens\)", out)
    gone = re.search(r"Nothing is left running: processes ([\d and]+) are gone", out)
    assert gone
    assert not any(psutil.pid_exists(int(pid)) for pid in re.findall(r"\d+", gone[1]))
    assert "ready after" in err
    assert "\r" not in err, "control characters where there is no terminal"


def _interrupted(model: Path) -> tuple[int, str, list[ProcessIdentity]]:
    """The demo's exit code after a Ctrl-C while it answers, what it said, and the processes of its server."""
    demo = _start(model)
    try:
        assert demo.stdout is not None
        wait_until(lambda: psutil.Process(demo.pid).children(recursive=True), seconds=60, what="the server's start")
        assert demo.stdout.readline().startswith("Model: ")
        servers = [ProcessIdentity.of(child.pid) for child in psutil.Process(demo.pid).children(recursive=True)]
        os.kill(demo.pid, signal.SIGINT)
        _, err = demo.communicate(timeout=60)
    finally:
        demo.kill()
    return demo.returncode, err, servers


def test_ctrl_c_ends_the_demo_and_its_server(micro_model: Path) -> None:
    for _ in range(5):
        code, err, servers = _interrupted(micro_model)
        # Python loses an interrupt that comes within a weak reference's callback, as an import has them.
        if "Exception ignored in" not in err:
            break
    assert code == 130, err
    assert "Traceback" not in err
    assert len(servers) >= 2, "a supervisor and a server"
    wait_until(lambda: not any(server.is_alive() for server in servers), seconds=5, what="the end of the server")


@pytest.mark.parametrize(("model", "word"), [("./missing.gguf", "missing.gguf"), ("smollm2-135n", "smollm2-135m")])
def test_an_error_is_told_with_its_remedy(model: str, word: str) -> None:
    out, err = (demo := _start(model)).communicate(timeout=60)
    assert demo.returncode == 1
    assert word in err
    assert "Hint: " in err
    assert "Traceback" not in err + out
