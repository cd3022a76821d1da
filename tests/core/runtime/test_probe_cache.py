"""What programs said of themselves is kept on disk: a fresh process does not ask again, and no file there does harm."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from localllama._runtime import probe
from localllama._runtime.probe import forget_answers, listed_flags, runtime_version, supported_flags
from localllama._runtime.probe_cache import remember, remembered
from localllama._runtime.report import report_runtimes
from localllama._runtime.runtime import Runtime
from localllama.errors import RuntimeBrokenError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs of the shell")

_HELP = """-m,    --model FNAME                    model path
-c,    --ctx-size N                     size
--host HOST                             or UNIX socket paths ending in .sock
--port PORT                             port
--list-devices                          devices
"""
_ASK = """
import json, sys
from localllama._runtime.probe import supported_flags, supports_unix_sockets, runtime_version
from localllama._runtime.runtime import Runtime
runtime = Runtime("llama-server", (sys.argv[1],), sys.argv[1])
print(json.dumps([sorted(supported_flags(runtime)), supports_unix_sockets(runtime), runtime_version(runtime)]))
"""


class Counted:
    """A program that notes how it is called."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "llama-server"
        self.log = directory / "asked"
        self.write()

    def write(self, more_help: str = "", *, ends: str = "") -> None:
        self.path.write_text(
            f'#!/bin/sh\necho "$*" >> {self.log}\n{ends}\n'
            '[ "$1" = --version ] && { echo "version: 8994 (aab68217b)"; exit; }\n'
            '[ "$1" = --list-devices ] && { printf "Available devices:\\n  CUDA0: a card\\n"; exit; }\n'
            f"cat <<'END'\n{_HELP}{more_help}\nEND\n"
        )
        self.path.chmod(0o755)

    @property
    def runtime(self) -> Runtime:
        return Runtime("llama-server", (str(self.path),), str(self.path))

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def program(tmp_path: Path) -> Counted:
    return Counted(tmp_path)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, in a cache directory of the test's own."""
    monkeypatch.setenv("LOCALLLAMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runtimes.json"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forgets what this process knows, as a new one would."""
    return lambda: monkeypatch.setattr(probe, "_known", {})


def _in_new_process(program: Counted) -> list[object]:
    command = [sys.executable, "-c", _ASK, str(program.path)]
    answer: list[object] = json.loads(subprocess.run(command, capture_output=True, check=True, env=os.environ).stdout)
    return answer


def test_a_second_process_does_not_run_the_program(program: Counted, kept: Path) -> None:
    first = _in_new_process(program)
    assert program.asked() == ["--help", "--version"]
    assert _in_new_process(program) == first
    assert program.asked() == ["--help", "--version"]
    assert {"--model", "-m", "--list-devices"} <= set(first[0])  # type: ignore[call-overload]
    assert first[1:] == [True, "build 8994"]


def test_any_program_is_asked_once(program: Counted, kept: Path) -> None:
    command = [str(program.path)]
    assert listed_flags(command) == listed_flags(command) >= {"--model", "-m"}
    assert program.asked() == ["--help"]


def test_it_is_for_this_user_alone(program: Counted, kept: Path) -> None:
    supported_flags(program.runtime)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.parametrize("change", ["size", "mtime"])
def test_a_changed_program_is_asked_again(program: Counted, kept: Path, fresh: Callable[[], None], change: str) -> None:
    supported_flags(program.runtime)
    if change == "size":
        status = program.path.stat()
        program.write("--new-flag N    new")
        os.utime(program.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        os.utime(program.path, ns=(0, program.path.stat().st_mtime_ns + 1))
    fresh()
    flags = supported_flags(program.runtime)
    assert ("--new-flag" in flags) == (change == "size")
    assert program.asked() == ["--help", "--help"]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"a": ' * 500_000,
        b'{"x": 1}',
    ],
    ids=["empty", "cut", "no text", "another form", "null", "deep", "deep and large", "strange entry"],
)
def test_a_damaged_file_is_ignored_and_rewritten(
    program: Counted, kept: Path, fresh: Callable[[], None], damage: bytes
) -> None:
    kept.parent.mkdir()
    kept.write_bytes(damage)
    assert "--model" in supported_flags(program.runtime)
    fresh()
    assert "--model" in supported_flags(program.runtime)
    assert program.asked() == ["--help"], "what was written in its place is read"


@pytest.mark.parametrize(
    "answer", [1, "flags", [], [["--model"]], [[], True, None], [[1], True, None], [["-m"], True, "x"]]
)
def test_a_damaged_answer_is_asked_for_again(
    program: Counted, kept: Path, fresh: Callable[[], None], answer: object
) -> None:
    remember("help of llama-server", program.runtime.command, answer)
    assert remembered("help of llama-server", program.runtime.command) == answer
    assert "--model" in supported_flags(program.runtime)
    assert program.asked() == ["--help"]


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_read(program: Counted, kept: Path, fresh: Callable[[], None]) -> None:
    supported_flags(program.runtime)
    os.chown(kept, 12345, -1)
    fresh()
    supported_flags(program.runtime)
    assert program.asked() == ["--help", "--help"]


def test_a_file_that_others_may_write_is_not_read(program: Counted, kept: Path, fresh: Callable[[], None]) -> None:
    supported_flags(program.runtime)
    kept.chmod(0o666)
    fresh()
    supported_flags(program.runtime)
    assert program.asked() == ["--help", "--help"]


def test_an_unwritable_cache_folder_is_no_error(
    program: Counted, tmp_path: Path, fresh: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOCALLLAMA_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        fresh()
        assert "--model" in supported_flags(program.runtime)
    assert program.asked() == ["--help", "--help"]


def test_a_full_disk_leaves_nothing_half_written(program: Counted, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "--model" in supported_flags(program.runtime)
    assert list(kept.parent.iterdir()) == []


def test_it_does_not_grow(kept: Path, tmp_path: Path) -> None:
    for number in range(80):
        remember("version", (str(tmp_path / str(number)),), "build 1")
    assert len(json.loads(kept.read_bytes())) == 64
    assert remembered("version", (str(tmp_path / "79"),)) == "build 1"
    assert remembered("version", (str(tmp_path / "0"),)) is None


def test_what_failed_is_not_kept(program: Counted, kept: Path, fresh: Callable[[], None]) -> None:
    program.write(ends="exit 3")
    for _ in range(2):
        fresh()
        with pytest.raises(RuntimeBrokenError):
            supported_flags(program.runtime)
    assert len(program.asked()) == 2
    assert not kept.exists()


_FOREIGN = [
    "echo 'some text'; exit",
    "echo 'usage: llama [-h] {model,download}'; echo \"error: invalid choice: 'serve'\"; exit 2",
]


@pytest.mark.parametrize("ends", _FOREIGN, ids=["exits with 0", "prints its usage"])
def test_that_it_is_another_program_is_kept_for_as_long_as_it_is_the_same(
    program: Counted, kept: Path, fresh: Callable[[], None], ends: str
) -> None:
    program.write(ends=ends)
    said = []
    for _ in range(2):
        fresh()
        with pytest.raises(RuntimeBrokenError, match="is another program") as caught:
            supported_flags(program.runtime)
        said.append((str(caught.value), caught.value.log_tail))
    assert said[0] == said[1]
    assert said[0][1]
    assert program.asked() == ["--help"]
    program.write()
    assert "--model" in supported_flags(program.runtime)


def test_a_diagnosis_asks_another_program_anew(program: Counted, kept: Path, tmp_path: Path) -> None:
    """It may have been a wrapper of llama.cpp's without what it wraps."""
    (tmp_path / "bin").mkdir()
    program.path = tmp_path / "bin" / "llama"
    program.write(ends="echo usage: llama; exit 2")
    environ = {"PATH": str(tmp_path / "bin")}
    for _ in range(2):
        report_runtimes("llama-server", environ)
    assert program.asked() == ["serve --help"]
    report_runtimes("llama-server", environ, is_fresh=True)
    assert program.asked() == ["serve --help"] * 2


def test_another_kind_of_the_same_program_is_another_question(program: Counted, kept: Path) -> None:
    supported_flags(program.runtime)
    one_shot = Runtime("one-shot", program.runtime.command, program.runtime.origin, program.runtime.command)
    with pytest.raises(RuntimeBrokenError, match="another program"):
        supported_flags(one_shot)


def test_forgetting_is_for_one_program(program: Counted, kept: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Counted(tmp_path / "other")
    for runtime in (program.runtime, other.runtime):
        supported_flags(runtime)
        runtime_version(runtime)
    forget_answers(program.runtime)
    for runtime in (program.runtime, other.runtime):
        supported_flags(runtime)
        runtime_version(runtime)
    assert len(program.asked()) == 4
    assert len(other.asked()) == 2


def test_the_report_asks_once_and_a_diagnosis_asks_anew(
    program: Counted, kept: Path, fresh: Callable[[], None]
) -> None:
    def state():  # type: ignore[no-untyped-def]
        fresh()
        report = report_runtimes(str(program.path), {"PATH": "/nowhere"}, is_fresh=is_fresh)
        return next(state for state in report.runtimes if state.origin == str(program.path))

    is_fresh = False
    first = state()
    assert (first.version, first.devices) == ("build 8994", ("CUDA0: a card",))
    assert state() == first
    assert len(program.asked()) == 3
    is_fresh = True
    assert state() == first
    assert len(program.asked()) == 6
    program.write(ends="exit 127")
    assert "127" in state().fault


def test_devices_are_asked_for_again_when_the_choice_of_them_changes(
    program: Counted, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"PATH": "/nowhere"}
    report_runtimes(str(program.path), environ)
    report_runtimes(str(program.path), {**environ, "CUDA_VISIBLE_DEVICES": "1"})
    assert program.asked().count("--list-devices") == 2
    monkeypatch.setattr("time.time", lambda: 4e9)
    report_runtimes(str(program.path), environ)
    assert program.asked().count("--list-devices") == 3, "an answer of some age is not believed"
