"""`install` with stand-ins for the package managers: which are asked, in which order, with which commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localllama._runtime.install import install_runtime, methods_for, planned_command
from localllama.errors import LlamaRuntimeError

from .conftest import Command


def put_program(directory: Path, name: str, *, unknown: bool = False, code: int = 0) -> None:
    """A stand-in that writes down how it was called; questions to its index are those that do not install."""
    log = directory / "calls.log"
    question = "info|search|-Si|--simulate"
    script = f"""#!/bin/sh
echo "{name} $*" >> {log}
case " $* " in
  *" info "*|*" search "*|*" -Si "*|*" --simulate "*) exit {1 if unknown else 0};;
esac
exit {code}
"""
    assert question
    path = directory / name
    path.write_text(script)
    path.chmod(0o755)


def calls(directory: Path) -> list[str]:
    log = directory / "calls.log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}/usr/bin{os.pathsep}/bin")
    for name in ("brew", "apt-get", "dnf", "pacman", "zypper"):
        put_program(directory, name, code=1)
    return directory


def test_the_order_and_the_commands(localllama: Command, programs: Path) -> None:
    plan = localllama("install", "--dry-run", PATH=os.environ["PATH"]).stdout.splitlines()
    assert [line.split()[0] for line in plan] == ["brew", "apt", "dnf", "pacman", "zypper", "pip"]
    assert plan[0].endswith("/brew install llama.cpp")
    assert plan[1].endswith("/apt-get install -y llama.cpp")
    assert "pip install 'xllamacpp" in plan[-1]
    assert calls(programs) == [], "a dry run starts nothing"


def test_nothing_runs_unasked(localllama: Command, programs: Path) -> None:
    answer = localllama("install", PATH=os.environ["PATH"])
    assert answer.returncode == 2
    assert calls(programs) == []


def install(programs: Path, **options: object) -> list[str]:
    """Run all methods but pip with real stand-ins; returns the outcomes."""
    import subprocess

    def run(command: object) -> int:
        return subprocess.run(list(command), check=False).returncode  # type: ignore[call-overload, no-any-return]

    values: dict[str, object] = {
        "run": run,
        "ask": run,
        "announce": lambda *_: True,
        "is_working": lambda: None,
        "is_root": True,
        **options,
    }
    methods = [method for method in methods_for("auto", "linux") if method.name != "pip"]
    return [f"{made.method}: {made.outcome}" for made in install_runtime(methods, os.environ, **values)]  # type: ignore[arg-type]


def test_one_that_fails_leads_to_the_next(programs: Path) -> None:
    put_program(programs, "apt-get", unknown=True)
    put_program(programs, "dnf", code=0)
    assert install(programs) == ["brew: failed", "apt: unknown package", "dnf: installed"]
    assert [line for line in calls(programs) if line.startswith("apt-get")] == [
        "apt-get install --simulate -qq llama.cpp"
    ], "what the index does not know is not tried"
    assert not any(line.startswith(("pacman", "zypper")) for line in calls(programs))


def test_one_that_does_not_work_leads_to_the_next(programs: Path) -> None:
    for name in ("brew", "dnf"):
        put_program(programs, name)
    put_program(programs, "apt-get", unknown=True)
    answers = iter(["it died of SIGILL", None])
    assert install(programs, is_working=lambda: next(answers)) == [
        "brew: does not work",
        "apt: unknown package",
        "dnf: installed",
    ]


def test_no_root_and_no_sudo_means_no_attempt(programs: Path) -> None:
    for name in ("apt-get", "dnf", "pacman", "zypper"):
        put_program(programs, name)
    with pytest.raises(LlamaRuntimeError, match="needs root"):
        install(programs, is_root=False)
    assert not any("install -y" in line or "-S " in line for line in calls(programs))


def test_sudo_only_where_it_was_asked_for(programs: Path) -> None:
    put_program(programs, "sudo")
    apt = next(method for method in methods_for("apt"))
    with_it = planned_command(apt, os.environ, allow_sudo=True, is_root=False)
    without = planned_command(apt, os.environ, allow_sudo=False, is_root=False)
    assert with_it is not None
    assert without is not None
    assert Path(with_it[0]).name == "sudo"
    assert Path(without[0]).name == "apt-get"


def test_what_nobody_agrees_to_does_not_run(programs: Path) -> None:
    with pytest.raises(LlamaRuntimeError, match="was not agreed to"):
        install(programs, announce=lambda *_: False)
    assert not any("install llama.cpp" in line or "install -y" in line for line in calls(programs))
