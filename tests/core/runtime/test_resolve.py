"""The ladder: what is found, in which order, and what is said about it."""

from __future__ import annotations

import errno
import importlib.util
import os
import stat
import sys
from pathlib import Path

import pytest

from localllama._runtime import resolve
from localllama._runtime.resolve import candidate_runtimes
from localllama.errors import ConfigurationError, RuntimeNotFoundError
from support.fake_llama_server import make_fake_llama_server


@pytest.fixture(autouse=True)
def no_usual_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has installed must not show."""
    monkeypatch.setattr(resolve, "_PREFIXES", ("~/.local/bin",))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    (directory / ".local" / "bin").mkdir(parents=True)
    return directory


def environ(home: Path, *directories: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), "PATH": os.pathsep.join(map(str, directories)), **more}


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_order_of_the_ladder(tmp_path: Path, home: Path) -> None:
    given, on_path = tmp_path / "given", tmp_path / "on_path"
    for directory in (given, on_path):
        directory.mkdir()
    named = make_fake_llama_server(given)
    found = make_fake_llama_server(on_path)
    in_prefix = make_fake_llama_server(home / ".local" / "bin")
    candidates = candidate_runtimes(str(named), environ(home, on_path))
    assert [runtime.kind for runtime in candidates.runtimes] == ["llama-server"] * 3 + ["embedded"]
    assert [runtime.command[0] for runtime in candidates.runtimes[:3]] == [str(named), str(found), str(in_prefix)]
    assert all(str(path) in "\n".join(candidates.report) for path in (named, found, in_prefix))


def test_the_variable_counts_only_where_code_says_auto(tmp_path: Path, home: Path) -> None:
    named = make_fake_llama_server(tmp_path)
    variables = environ(home, LOCALLLAMA_RUNTIME=str(named))
    assert candidate_runtimes("auto", variables).runtimes[0].command == (str(named),)
    assert [runtime.kind for runtime in candidate_runtimes("embedded", variables).runtimes] == ["embedded"]


def test_one_file_under_two_names_is_tried_once(tmp_path: Path, home: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for directory in (first, second):
        directory.mkdir()
    program = make_fake_llama_server(first)
    (second / "llama-server").symlink_to(program)
    found = candidate_runtimes("llama-server", environ(home, first, second)).runtimes
    assert [runtime.command for runtime in found] == [(str(program),)]


def test_the_multi_call_program_serves(tmp_path: Path, home: Path) -> None:
    server = make_fake_llama_server(tmp_path, name="impl")
    program = script(tmp_path / "bin" / "llama", f'[ "$1" = serve ] || exit 1\nshift\nexec {server} "$@"')
    found = candidate_runtimes("llama-server", environ(home, program.parent)).runtimes
    assert [(runtime.kind, runtime.command) for runtime in found] == [("llama", (str(program), "serve"))]


def test_another_program_called_llama_is_no_rung(tmp_path: Path, home: Path) -> None:
    program = script(tmp_path / "bin" / "llama", "echo usage: llama [-h] {download,model,stack}")
    candidates = candidate_runtimes("auto", environ(home, program.parent))
    assert [runtime.kind for runtime in candidates.runtimes] == ["embedded"]
    assert any(str(program) in line and "not llama.cpp" in line for line in candidates.report)


@pytest.mark.parametrize("is_multi_call", [False, True])
def test_a_wrapper_of_any_name_is_told_by_its_help(tmp_path: Path, home: Path, is_multi_call: bool) -> None:
    server = make_fake_llama_server(tmp_path, name="impl")
    guard = '[ "$1" = serve ] || exit 1\nshift\n' if is_multi_call else ""
    wrapper = script(tmp_path / "my-wrapper.sh", f'{guard}exec {server} "$@"')
    runtime = candidate_runtimes(str(wrapper), environ(home)).runtimes[0]
    assert runtime.kind == ("llama" if is_multi_call else "llama-server")
    assert runtime.command == ((str(wrapper), "serve") if is_multi_call else (str(wrapper),))


def test_a_plain_name_is_looked_up_on_path(tmp_path: Path, home: Path) -> None:
    program = make_fake_llama_server(tmp_path, name="llama-server-cuda")
    assert candidate_runtimes("llama-server-cuda", environ(home, tmp_path)).runtimes[0].command == (str(program),)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "there is no such file"),
        ("directory", "is a directory"),
        ("plain", "is not executable"),
    ],
)
@pytest.mark.parametrize("setting", ["runtime", "LOCALLLAMA_RUNTIME"])
def test_a_wrong_path_is_a_mistake_to_correct(
    tmp_path: Path, home: Path, name: str, said: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "plain").write_text("")
    # root may run what nobody may: the bits decide for root as well.
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: access(path, mode) and (mode != os.X_OK or bool(Path(path).stat().st_mode & stat.S_IXUSR)),
    )
    path = str(tmp_path / name)
    choice, more = (path, {}) if setting == "runtime" else ("auto", {"LOCALLLAMA_RUNTIME": path})
    with pytest.raises(ConfigurationError) as caught:
        candidate_runtimes(choice, environ(home, **more))
    assert caught.value.message.startswith(f"{setting}={path!r}")
    assert said in caught.value.message
    assert caught.value.hint


def test_a_name_that_is_nowhere_is_a_mistake_to_correct(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="llama-srever"):
        candidate_runtimes("llama-srever", environ(home))


def test_relative_entries_of_path_are_not_searched(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_fake_llama_server(tmp_path)
    monkeypatch.chdir(tmp_path)
    variables = {"HOME": str(home), "PATH": os.pathsep.join([".", ""])}
    assert [runtime.kind for runtime in candidate_runtimes("auto", variables).runtimes] == ["embedded"]


def test_nothing_found_names_the_places_and_the_remedy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(RuntimeNotFoundError) as caught:
        candidate_runtimes("auto", environ(home))
    assert "embedded: xllamacpp is not installed" in caught.value.places
    assert any("no llama-server" in place for place in caught.value.places)
    assert 'pip install "localllama[runtime]"' in str(caught.value.hint)


@pytest.mark.parametrize("is_frozen", [False, True], ids=["uwsgi", "frozen"])
def test_the_embedded_runtime_needs_a_real_python(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_frozen: bool
) -> None:
    if is_frozen:
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    else:
        monkeypatch.setattr(sys, "executable", str(script(tmp_path / "uwsgi", "exit 1")))
        monkeypatch.setattr(sys, "exec_prefix", str(tmp_path))
    with pytest.raises(RuntimeNotFoundError) as caught:
        candidate_runtimes("embedded", environ(home))
    assert "is no Python to run it with" in caught.value.places[0]


def test_looking_for_the_embedded_runtime_does_not_load_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    candidate_runtimes("embedded", environ(home))
    assert "xllamacpp" not in sys.modules


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that this user may not search; imitated, for root may search all."""
    directory = tmp_path / "closed"
    directory.mkdir()
    stat_of, access_to = Path.stat, os.access

    def refused_stat(path: Path, **options: bool) -> os.stat_result:
        if path.is_relative_to(directory):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat_of(path, **options)

    def refused_access(path: str | Path, mode: int) -> bool:
        return not Path(path).is_relative_to(directory) and access_to(path, mode)

    monkeypatch.setattr(Path, "stat", refused_stat)
    monkeypatch.setattr(os, "access", refused_access)
    return directory


def test_a_directory_on_path_that_may_not_be_searched_is_passed_over(tmp_path: Path, home: Path, closed: Path) -> None:
    found = make_fake_llama_server(tmp_path)
    candidates = candidate_runtimes("llama-server", environ(home, closed, tmp_path))
    assert [runtime.command for runtime in candidates.runtimes] == [(str(found),)]
    with pytest.raises(ConfigurationError, match="no such file"):
        candidate_runtimes("auto", environ(home, LOCALLLAMA_RUNTIME=str(closed / "llama-server")))
