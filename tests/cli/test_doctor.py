"""`doctor` on machines that are broken in one way each: it names the fault and the command that mends it."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from localllama._models import store
from localllama._models.catalog import catalog_entry
from localllama._runtime import resolve
from localllama.cli import _machine_findings
from support.fake_llama_server import Behaviour, make_fake_llama_server


def _findings(command, *arguments: str) -> tuple[int, dict[str, dict]]:
    outcome = command("doctor", "--json", *arguments)
    return outcome.code, {item["what"]: item for item in json.loads(outcome.out)}


def test_a_sound_machine_ends_with_a_real_token(command, micro_model: Path) -> None:
    code, found = _findings(command, "--model", str(micro_model))
    assert code == 0
    assert found["answer"]["state"] == "ok"
    assert found["answer"]["detail"].startswith("1 token")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all of PATH, on a machine without a runtime."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(resolve, "_PREFIXES", ())
    monkeypatch.setattr(resolve, "_library_directory", lambda: None)
    return programs


def _all_findings(command, *arguments: str) -> tuple[int, list[dict]]:
    outcome = command("doctor", "--json", *arguments)
    return outcome.code, json.loads(outcome.out)


def _about(findings: list[dict], what: str, words: str) -> dict:
    found = [item for item in findings if item["what"] == what and words in item["detail"]]
    assert len(found) == 1, findings
    return found[0]


@pytest.mark.parametrize("name", ["config.json", "models.json"])
def test_a_broken_file_of_the_user_is_named(command, own_configuration: Path, name: str) -> None:
    own_configuration.parent.mkdir()
    own_configuration.with_name(name).write_text('{\n"a": }')
    code, found = _findings(command)
    assert code == 1
    assert str(own_configuration.with_name(name)) in found["model"]["detail"]
    assert found["model"]["fix"].startswith("Correct")


def test_no_runtime(command, micro_model: Path, bare: Path) -> None:
    code, found = _findings(command, "--model", str(micro_model))
    assert code == 1
    assert found["runtime"]["state"] == "fault"
    assert found["runtime"]["fix"] == "localllama install"
    assert "embedded: xllamacpp is not installed" in found["runtime"]["detail"]


@pytest.mark.parametrize("choice", ["embedded", "llama-server"])
def test_the_rung_that_was_asked_for_is_missing(command, micro_model: Path, bare: Path, choice: str) -> None:
    code, found = _findings(command, "--model", str(micro_model), "--runtime", choice)
    assert code == 1
    assert found["runtime"]["state"] == "fault"
    assert found["runtime"]["fix"] == "localllama install"


def test_a_server_that_is_not_executable(command, micro_model: Path, bare: Path, monkeypatch) -> None:
    server = make_fake_llama_server(bare)
    server.chmod(0o644)
    code, found = _all_findings(command, "--model", str(micro_model))
    assert code == 1
    (named,) = (item for item in found if item["fix"] == f"chmod +x {server}")
    assert named["detail"] == f"{server} is not executable"
    monkeypatch.setenv("LOCALLLAMA_RUNTIME", str(server))
    code, found = _all_findings(command, "--model", str(micro_model))
    assert code == 1
    assert f"chmod +x {server}" in _about(found, "runtime", "is not executable")["fix"]


def _foreign_program(path: Path) -> None:
    path.write_bytes(b"\x7fELF" + bytes(60))
    path.chmod(0o755)


_BROKEN = {
    "wrong architecture": (_foreign_program, "could not be started"),
    "missing library": (
        lambda path: make_fake_llama_server(path.parent, Behaviour(missing_library="libggml-cuda.so.1")),
        "libggml-cuda.so.1",
    ),
    "SIGILL": (lambda path: make_fake_llama_server(path.parent, Behaviour(help_signal="SIGILL")), "ended by SIGILL"),
}


@pytest.mark.parametrize("kind", _BROKEN)
def test_a_broken_server(command, micro_model: Path, bare: Path, kind: str) -> None:
    make, words = _BROKEN[kind]
    server = bare / "llama-server"
    make(server)
    code, found = _all_findings(command, "--model", str(micro_model))
    assert code == 1
    item = _about(found, "runtime", words)
    assert str(server) in item["detail"]
    assert item["fix"] == f"localllama install; and remove or reinstall {server}"
    assert _about(found, "runtime", "no llama.cpp that runs")["fix"] == "localllama install"


def test_a_broken_program_that_answers_once_is_named_and_not_our_python(command, micro_model: Path, bare: Path) -> None:
    _foreign_program(bare / "llama-completion")
    _, found = _all_findings(command, "--model", str(micro_model))
    assert _about(found, "runtime", "could not be started")["fix"].endswith(f"reinstall {bare}/llama-completion")


def test_a_server_that_dies_while_it_loads(command, micro_model: Path, tmp_path: Path, monkeypatch) -> None:
    server = make_fake_llama_server(tmp_path, Behaviour(load_signal="SIGILL"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    code, found = _all_findings(command, "--model", str(micro_model))
    assert code == 0, "the embedded runtime answers"
    item = _about(found, "runtime passed over", "SIGILL")
    assert str(server) in item["detail"]
    assert "localllama install" in item["fix"]


def test_a_broken_wheel(command, micro_model: Path, bare: Path, tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "site" / "xllamacpp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')\n")
    monkeypatch.setattr(resolve, "_library_directory", lambda: str(package.parent))
    code, found = _all_findings(command, "--model", str(micro_model))
    assert code == 1
    item = _about(found, "runtime", "libgomp.so.1")
    assert item["fix"] == "pip install --force-reinstall --no-deps xllamacpp"


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


def test_no_model_set_and_none_here(command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(store, "package_directories", lambda _: [])
    code, found = _findings(command)
    assert code == 1
    assert "smollm2-135m" in found["model"]["detail"]
    assert found["model"]["fix"] == "localllama models pull smollm2-135m"
    assert found["answer"]["detail"] == "not tried: there is no model"


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


def test_a_damaged_model_of_ours(command, tmp_path: Path, monkeypatch) -> None:
    entry = catalog_entry("smollm2-135m")
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(tmp_path))
    monkeypatch.setattr(store, "package_directories", lambda _: [])
    damaged = tmp_path / entry.name / entry.file_name
    damaged.parent.mkdir()
    with damaged.open("wb") as file:
        file.truncate(entry.size_bytes)
    code, found = _findings(command)
    assert code == 1
    assert found["model"]["fix"] == "localllama models rm smollm2-135m, then localllama models pull smollm2-135m"


@pytest.mark.parametrize("beside_bytes", [-1, 1000])
def test_a_model_larger_than_the_memory(command, micro_model: Path, monkeypatch, beside_bytes: int) -> None:
    memory = namedtuple("memory", "total available")  # noqa: PYI024
    available = micro_model.stat().st_size + beside_bytes
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(2**30, available))
    code, found = _findings(command, "--model", str(micro_model))
    assert code == 1
    assert found["memory for the model"]["state"] == "fault"
    assert found["memory for the model"]["fix"].startswith("localllama init")
    assert found["answer"]["detail"] == "not tried: the model does not fit into the memory"


@pytest.mark.parametrize("kind", ["a file", "forbidden"])
def test_an_unwritable_data_directory(command, micro_model: Path, tmp_path: Path, monkeypatch, kind: str) -> None:
    directory = tmp_path / "data"
    if kind == "a file":
        directory.touch()
    else:
        directory.mkdir()
        access = os.access
        monkeypatch.setattr(
            os, "access", lambda path, mode: access(path, mode) and not (path == directory and mode & os.W_OK)
        )
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(directory / "models"))
    code, found = _findings(command, "--model", str(micro_model))
    assert code == 0, "the model is here, so nothing needs to be written"
    assert found["model store"]["state"] == "note"
    assert str(directory) in found["model store"]["detail"]
    assert "LOCALLLAMA_MODELS" in found["model store"]["fix"]


def test_a_framework_that_is_too_old(command, micro_model: Path, monkeypatch) -> None:
    real = _machine_findings.version
    monkeypatch.setattr(_machine_findings, "version", lambda name: "0.3.1" if name == "langchain-core" else real(name))
    code, found = _findings(command, "--model", str(micro_model))
    assert code == 1
    assert found["langchain-core"]["state"] == "fault"
    assert "langchain-core 0.3.1 is installed" in found["langchain-core"]["detail"]
    assert found["langchain-core"]["fix"].startswith('pip install "langchain-core')
    assert ">=1.7" in found["langchain-core"]["fix"]


def test_variables_of_llama_cpp(command, micro_model: Path, monkeypatch) -> None:
    _, found = _findings(command, "--model", str(micro_model))
    assert "environment" not in found
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "64")
    code, found = _findings(command, "--model", str(micro_model))
    assert code == 0
    assert found["environment"]["state"] == "note"
    assert "LLAMA_ARG_CTX_SIZE" in found["environment"]["detail"]
    assert found["environment"]["fix"].startswith("unset LLAMA_ARG_CTX_SIZE")
