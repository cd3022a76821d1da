"""`doctor` on machines that are broken in one way each: it names the fault and the command that mends it."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from localllama._runtime import resolve


def _findings(command, *arguments: str) -> tuple[int, dict[str, dict]]:
    outcome = command("doctor", "--json", *arguments)
    return outcome.code, {item["what"]: item for item in json.loads(outcome.out)}


def test_a_sound_machine_ends_with_a_real_token(command, micro_model: Path) -> None:
    code, found = _findings(command, "--model", str(micro_model))
    assert code == 0
    assert found["answer"]["state"] == "ok"
    assert found["answer"]["detail"].startswith("1 token")


def test_no_runtime(command, micro_model: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(resolve, "_PREFIXES", ())
    monkeypatch.setattr(resolve, "_library_directory", lambda: None)
    code, found = _findings(command, "--model", str(micro_model))
    assert code == 1
    assert found["runtime"]["state"] == "fault"
    assert found["runtime"]["fix"] == "localllama install"


def test_a_server_that_dies_of_sigill(command, micro_model: Path, tmp_path: Path, monkeypatch) -> None:
    server = tmp_path / "llama-server"
    server.write_text("#!/bin/sh\nkill -ILL $$\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    outcome = command("doctor", "--model", str(micro_model))
    assert outcome.code == 0
    assert "SIGILL" in outcome.out
    assert str(server) in outcome.out
    assert "remove or reinstall" in outcome.out


@pytest.mark.parametrize("reference", ["/nowhere/model.gguf", "no-such-model"])
def test_a_missing_model(command, reference: str) -> None:
    code, found = _findings(command, "--model", reference)
    assert code == 1
    assert reference in found["model"]["detail"]
    assert found["model"]["fix"] == "localllama models use smollm2-135m"


def test_a_damaged_model(command, micro_model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(micro_model.read_bytes()[:50_000])
    code, found = _findings(command, "--model", str(damaged))
    assert code == 1
    assert found["model"]["state"] == "fault"
    assert str(damaged) in found["model"]["detail"]
    assert "localllama models use" in found["model"]["fix"], "a file of the user's own is not ours to remove"


def test_a_full_disk(command, micro_model: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
    _, found = _findings(command, "--model", str(micro_model))
    assert found["disk"]["state"] == "note"
    assert "LOCALLLAMA_MODELS" in found["disk"]["fix"]
