"""`doctor` on machines that are broken in one way each: it names the fault and the command that mends it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from support.fake_llama_server import Behaviour, make_fake_llama_server

from .conftest import Command


def findings(answer: object) -> dict[str, dict[str, str]]:
    return {item["what"]: item for item in json.loads(answer.stdout)}  # type: ignore[attr-defined]


def test_a_sound_machine(localllama: Command) -> None:
    answer = localllama("doctor")
    assert answer.returncode == 0, answer.stdout
    assert "All is well." in answer.stdout
    assert "1 token generated" in answer.stdout


def test_no_runtime(localllama: Command, tmp_path: Path) -> None:
    answer = localllama("doctor", "--runtime", "llama-server", "--json", PATH=str(tmp_path), HOME=str(tmp_path))
    assert answer.returncode == 1
    found = findings(answer)["runtime"]
    assert (found["state"], found["fix"]) == ("fault", "localllama install")


def test_a_server_that_dies_while_it_loads_is_named_though_the_next_one_answers(
    localllama: Command, tmp_path: Path
) -> None:
    program = make_fake_llama_server(tmp_path, Behaviour(load_signal="SIGILL"))
    answer = localllama("doctor", "--json", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert answer.returncode == 0, answer.stdout
    found = findings(answer)
    assert str(program) in found["runtime passed over"]["detail"]
    assert "SIGILL" in found["runtime passed over"]["detail"]
    assert found["answer"]["state"] == "ok"


def test_a_model_that_is_not_here(localllama: Command, tmp_path: Path) -> None:
    answer = localllama("doctor", "--model", "qwen3-4b", "--json", HF_HOME=str(tmp_path))
    assert answer.returncode == 1
    assert findings(answer)["model"]["fix"] == "localllama models pull qwen3-4b"


def test_a_damaged_model(localllama: Command, micro_model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(micro_model.read_bytes()[:100_000])
    answer = localllama("doctor", "--model", str(damaged), "--json")
    assert answer.returncode == 1
    found = findings(answer)["model"]
    assert found["state"] == "fault"
    assert str(damaged) in found["detail"]
    assert found["fix"]
