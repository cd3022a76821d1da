"""Odd places and odd programs: what is passed over, what is said about it, and what a program without a name of its own is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from localllama._runtime import resolve
from localllama._runtime.resolve import candidate_runtimes
from localllama.errors import ConfigurationError, RuntimeNotFoundError
from support.fake_llama_server import make_fake_llama_server


@pytest.fixture(autouse=True)
def only_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has installed must not show."""
    monkeypatch.setattr(resolve, "_PREFIXES", ())
    monkeypatch.setattr(resolve, "_library_directory", lambda: None)


def places(*directories: Path | str) -> dict[str, str]:
    return {"PATH": os.pathsep.join(map(str, directories))}


def program(path: Path, text: str = "exit 1") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a frozen program."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)


@pytest.mark.parametrize("rung", ["one-shot", "mock"])
def test_a_stand_in_for_a_server_needs_a_python(no_python: None, tmp_path: Path, rung: str) -> None:
    completion = program(tmp_path / "llama-completion")
    with pytest.raises(RuntimeNotFoundError) as caught:
        candidate_runtimes(rung, places(completion.parent), allow_mock=True)
    assert caught.value.places == (f"{rung}: sys.executable={sys.executable!r} is no Python to run it with",)


def test_a_named_one_shot_program_without_a_python_is_a_mistake(no_python: None, tmp_path: Path) -> None:
    completion = program(tmp_path / "llama-completion")
    with pytest.raises(ConfigurationError, match=f"runtime='{completion}' needs Python beside it"):
        candidate_runtimes(str(completion), places())


def test_one_file_under_two_names_is_one_rung_of_its_kind(tmp_path: Path) -> None:
    server = make_fake_llama_server(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "llama-server").symlink_to(server)
    found = candidate_runtimes(str(server), places(tmp_path, tmp_path / "other"))
    assert [runtime.command for runtime in found.runtimes] == [(str(server),)]
    assert [line for line in found.report if "llama-server" in line] == [f"runtime: {server}"]


def test_a_foreign_llama_is_no_one_shot_program(tmp_path: Path) -> None:
    foreign = program(tmp_path / "bin" / "llama", "echo usage: llama [-h] {download,model,stack}")
    with pytest.raises(RuntimeNotFoundError) as caught:
        candidate_runtimes("one-shot", places(foreign.parent))
    assert not any(line.startswith("one-shot") for line in caught.value.places)


def test_a_program_that_tells_nothing_of_itself_is_taken_for_a_server(tmp_path: Path) -> None:
    wrapper = program(tmp_path / "wrapper")
    assert candidate_runtimes(str(wrapper), places()).runtimes[0].kind == "llama-server"


def test_a_home_that_nobody_has_is_no_place(tmp_path: Path) -> None:
    server = make_fake_llama_server(tmp_path)
    found = candidate_runtimes("llama-server", places("~nobody-of-that-name/bin", tmp_path))
    assert [runtime.command for runtime in found.runtimes] == [(str(server),)]
    with pytest.raises(ConfigurationError, match="no such file"):
        candidate_runtimes("~nobody-of-that-name/llama-server", places())


def test_the_home_of_the_user_is_that_of_the_environment_given(tmp_path: Path) -> None:
    server = make_fake_llama_server(tmp_path)
    assert candidate_runtimes("~/llama-server", {"HOME": str(tmp_path)}).runtimes[0].command == (str(server),)


def test_a_plain_name_on_path_that_may_not_be_executed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llama-server-cuda").touch(0o644)
    access = os.access
    # root may run what nobody may
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.X_OK and access(path, mode))
    with pytest.raises(ConfigurationError) as caught:
        candidate_runtimes("llama-server-cuda", places(tmp_path))
    assert f"chmod +x {tmp_path / 'llama-server-cuda'}" in str(caught.value.hint)


def test_a_directory_with_the_name_of_a_program_is_told(tmp_path: Path) -> None:
    (tmp_path / "llama-server").mkdir()
    with pytest.raises(RuntimeNotFoundError) as caught:
        candidate_runtimes("llama-server", places(tmp_path))
    assert f"{tmp_path / 'llama-server'} is a directory" in caught.value.places
