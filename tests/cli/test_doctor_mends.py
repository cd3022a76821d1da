"""`doctor --fix`, an answer that fails, and the same in words for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from localllama._runtime import resolve
from support.fake_llama_server import Behaviour, make_fake_llama_server
from support.file_server import served


@pytest.fixture
def address(micro_model: Path) -> Iterator[str]:
    """A URL of the micro model."""
    with served(micro_model) as url:
        yield url


def test_a_missing_model_is_fetched_and_answers(command, address: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(tmp_path / "models"))
    before = command("doctor", "--model", address)
    assert before.code == 1
    assert "is not on this machine" in before.out
    assert f"To mend model:  localllama models pull {address}" in before.out
    assert "All is well" not in before.out
    after = command("doctor", "--model", address, "--fix", "--json")
    found = {item["what"]: item for item in json.loads(after.out)}
    assert found["answer"]["detail"].startswith("1 token generated")
    assert after.code == 0


def test_a_model_that_cannot_be_fetched_is_a_fault(command, address: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(tmp_path / "models"))
    outcome = command("doctor", "--model", f"{address}.not-there.gguf", "--fix", "--json")
    found = {item["what"]: item for item in json.loads(outcome.out)}
    assert outcome.code == 1
    assert found["model"]["state"] == "fault"
    assert found["model"]["fix"]


def test_a_server_that_starts_and_answers_nothing_is_a_fault(command, micro_model: Path, tmp_path: Path) -> None:
    body = json.dumps({"error": {"code": 500, "message": "out of luck", "type": "server_error"}})
    program = make_fake_llama_server(tmp_path, Behaviour(error_status=500, error_body=body))
    outcome = command("doctor", "--model", str(micro_model), "--runtime", str(program), "--json")
    found = {item["what"]: item for item in json.loads(outcome.out)}
    assert outcome.code == 1
    assert found["answer"]["state"] == "fault"
    assert "out of luck" in found["answer"]["detail"]


def test_runtime_without_any_is_4_and_says_what_to_do(command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(resolve, "_PREFIXES", ())
    monkeypatch.setattr(resolve, "_library_directory", lambda: None)
    outcome = command("runtime")
    assert outcome.code == 4
    assert "PATH and the usual prefixes: no llama-server" in outcome.out
    assert "localllama install" in outcome.err
