"""From a bare virtual environment to an answer: the wheel without a runtime, `localllama install`, `localllama ask`.

The installer is real here: pip, with the configuration of this machine. Of a real model, the small one of the demo.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.smollm2,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform == "win32", reason="the paths of a virtual environment elsewhere"),
]


@dataclass(frozen=True)
class Machine:
    """A virtual environment that knows nothing of this checkout, and a user without any configuration."""

    bin: Path
    environ: dict[str, str]
    home: Path

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run the installed command line; its standard output."""
        ended = subprocess.run(
            [str(self.bin / "localllama"), *arguments],
            cwd=self.home,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert ended.returncode == code, f"{arguments}: code {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        assert "Traceback" not in ended.stderr
        return ended.stdout

    def findings(self, *, code: int) -> dict[str, dict[str, str]]:
        """What `doctor` finds, by what was looked at."""
        return {item["what"]: item for item in json.loads(self.run("doctor", "--json", code=code))}


def _run(command: list[str], cwd: Path, environ: dict[str, str]) -> None:
    ended = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"


@pytest.fixture
def machine(tmp_path: Path, smollm2_model: Path) -> Machine:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("LOCALLLAMA_", "PYTHON"))}
    environ.pop("VIRTUAL_ENV", None)
    _run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        tmp_path,
        environ,
    )
    (wheel,) = tmp_path.glob("*.whl")
    _run([sys.executable, "-m", "venv", str(tmp_path / "venv")], tmp_path, environ)
    programs = tmp_path / "venv" / "bin"
    _run([str(programs / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[cli]"], tmp_path, environ)
    environ |= {
        # Nothing but this environment: a llama-server of this machine would serve before anything is installed.
        "PATH": str(programs),
        "LOCALLLAMA_CONFIG_DIR": str(tmp_path / "configuration"),
        "LOCALLLAMA_CACHE": str(tmp_path / "cache"),
        "LOCALLLAMA_MODEL": str(smollm2_model),
        "NO_COLOR": "1",
    }
    return Machine(programs, environ, tmp_path)


def test_from_a_bare_environment_to_an_answer(machine: Machine) -> None:
    before = machine.findings(code=1)
    if before["runtime"]["state"] == "ok":
        pytest.skip(f"a runtime in one of the usual prefixes serves here: {before['runtime']['detail']}")
    assert before["runtime"]["state"] == "fault"
    assert before["runtime"]["fix"] == "localllama install"
    assert before["model"]["state"] == "ok"
    assert "answer" not in before
    machine.run("ask", "What is the capital of France?", code=4)

    assert "installed by pip" in machine.run("install", "--method", "pip", "--yes")

    after = machine.findings(code=0)
    assert after["runtime"]["state"] == "ok"
    assert "xllamacpp" in after["runtime"]["detail"]
    assert after["answer"]["detail"].startswith("1 token")
    answer = json.loads(machine.run("ask", "What is the capital of France?", "--max-tokens", "16", "--json"))
    assert len(answer["text"].split()) > 3, answer
    assert answer["usage"]["completion_tokens"] > 3
