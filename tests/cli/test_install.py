"""`localllama install` against stand-ins of the package managers that note what they are told."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from localllama._runtime import install_check
from localllama.cli import installing
from support.fake_llama_server import Behaviour, make_fake_llama_server
from support.terminal import Terminal
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="on Linux only: its package managers")

_PIP = [sys.executable, "-m", "pip", "install", "xllamacpp>=2026.10.11549"]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts stand-ins on a PATH of their own; gives what they were told, in order. `pip` is noted and not run."""
    log = tmp_path / "told"
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    run = installing._run

    def noted(command) -> int:
        if list(command) == _PIP:
            log.open("a").write("pip\n")
            return 0
        return run(command)

    monkeypatch.setattr(installing, "_run", noted)

    def install(**ends: str) -> None:
        for name, shell in ends.items():
            program = programs / name.replace("_", "-")
            program.write_text(f'#!/bin/sh\necho "{program.name} $*" >> {log}\n{shell}\n')
            program.chmod(0o755)

    def lines() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    return install, lines


def test_homebrew_comes_first_and_is_enough(command, told, monkeypatch) -> None:
    install, lines = told
    install(brew="echo pouring", apt_get="exit 0")
    monkeypatch.setattr(installing, "_fault_of_runtime", lambda _: None)
    outcome = command("install", "--yes")
    assert outcome.code == 0, outcome.err
    assert lines() == ["brew info llama.cpp", "brew install llama.cpp"]
    assert "brew install llama.cpp" in outcome.err
    assert "brew" in outcome.out


def test_each_failure_leads_to_the_next_with_sudo_only_where_told(command, told, monkeypatch) -> None:
    install, lines = told
    # brew's download fails, apt's index has no such package, dnf succeeds with a runtime that does not load a model.
    install(brew='[ "$1" = info ]', apt_get="exit 100", dnf="exit 0", pacman="exit 0", zypper="exit 0", sudo='"$@"')
    faults = iter(["died of SIGILL", None])
    monkeypatch.setattr(installing, "_fault_of_runtime", lambda _: next(faults))
    outcome = command("install", "--yes", "--sudo")
    assert outcome.code == 0, outcome.err
    said = [line.replace(f"{os.environ['PATH']}/", "") for line in lines()]
    assert said == [
        "brew info llama.cpp",
        "brew install llama.cpp",
        "apt-get install --simulate -qq llama.cpp",
        "dnf info llama-cpp",
        "sudo dnf install -y llama-cpp",
        "dnf install -y llama-cpp",
        "pacman -Si llama.cpp",
        "sudo pacman -S --noconfirm llama.cpp",
        "pacman -S --noconfirm llama.cpp",
    ]
    for words in ("brew: ", "apt: its index gives no llama.cpp", "dnf: died of SIGILL"):
        assert words in outcome.err


def test_without_sudo_root_is_not_taken_and_pip_is_the_last(command, told, monkeypatch) -> None:
    install, lines = told
    install(apt_get="exit 0", zypper="exit 0", sudo='"$@"')
    monkeypatch.setattr(installing, "_fault_of_runtime", lambda _: None)
    outcome = command("install", "--yes")
    assert outcome.code == 0, outcome.err
    assert lines() == [
        "apt-get install --simulate -qq llama.cpp",
        "zypper --non-interactive search --match-exact llama.cpp",
        "pip",
    ]
    assert "--sudo" in outcome.err


_MANAGERS = {
    "brew": ("brew info llama.cpp", "brew install llama.cpp"),
    "apt": ("apt-get install --simulate -qq llama.cpp", "apt-get install -y llama.cpp"),
    "dnf": ("dnf info llama-cpp", "dnf install -y llama-cpp"),
    "pacman": ("pacman -Si llama.cpp", "pacman -S --noconfirm llama.cpp"),
    "zypper": (
        "zypper --non-interactive search --match-exact llama.cpp",
        "zypper --non-interactive install llama.cpp",
    ),
}
_ALL = {"brew": "", "apt_get": "", "dnf": "", "pacman": "", "zypper": "", "sudo": "exit 9"}


@pytest.mark.parametrize("method", _MANAGERS)
def test_what_each_manager_is_told_by_root(command, told, monkeypatch, method: str) -> None:
    install, lines = told
    install(**_ALL)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(installing, "_fault_of_runtime", lambda _: None)
    outcome = command("install", "--method", method, "--yes")
    assert outcome.code == 0, outcome.err
    assert lines() == list(_MANAGERS[method])
    assert outcome.out.startswith(f"llama.cpp is installed by {method}")


def test_all_in_order_until_one_works(command, told, monkeypatch) -> None:
    install, lines = told
    # Each index has the package, and each installation fails; brew's `install` too.
    fails = '[ "$1" = info ] || [ "$2" = --simulate ] || [ "$1" = -Si ] || [ "$2" = search ]'
    install(**dict.fromkeys(("brew", "apt_get", "dnf", "pacman", "zypper"), fails))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(installing, "_fault_of_runtime", lambda _: None)
    outcome = command("install", "--yes")
    assert outcome.code == 0, outcome.err
    assert lines() == [*(line for told_lines in _MANAGERS.values() for line in told_lines), "pip"]
    for method, (_, ran) in _MANAGERS.items():
        assert f"{method}: `" in outcome.err
        assert f"{ran}` exited with code 1" in outcome.err


def test_a_package_that_no_index_knows_is_passed_over(command, told, monkeypatch) -> None:
    install, lines = told
    install(**dict.fromkeys(("brew", "apt_get", "dnf", "pacman", "zypper"), "exit 1"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(installing, "_fault_of_runtime", lambda _: None)
    outcome = command("install", "--yes")
    assert outcome.code == 0, outcome.err
    assert lines() == [*(question for question, _ in _MANAGERS.values()), "pip"]
    assert outcome.err.count("its index gives no") == len(_MANAGERS)


def test_who_declines_is_asked_for_the_next(command, told, monkeypatch) -> None:
    install, lines = told
    install(brew="", apt_get="")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(installing, "_fault_of_runtime", lambda _: None)
    terminal = io.StringIO("n\ny\n")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    outcome = command("install")
    assert outcome.code == 0, outcome.err
    assert lines() == [_MANAGERS["brew"][0], *_MANAGERS["apt"]]
    assert "brew: was not agreed to" in outcome.err


def test_a_package_manager_in_the_current_directory_is_not_run(command, told, tmp_path: Path, monkeypatch) -> None:
    install, lines = told
    install(brew="")
    monkeypatch.chdir(tmp_path / "bin")
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.pathsep}bin")
    outcome = command("install", "--method", "brew", "--yes")
    assert outcome.code == 4
    assert lines() == []
    assert "brew is not on this machine" in outcome.err


def test_nothing_runs_unasked(command, told, monkeypatch) -> None:
    install, lines = told
    install(brew="exit 0")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    refused = command("install")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert command("install", "--dry-run").code == 0
    assert command("install", "--method", "nonsense", "--yes").code == 2
    assert lines() == []


@pytest.mark.parametrize(("user", "begins"), [(1000, "sudo"), (0, "apt-get")])
def test_a_dry_run_shows_sudo_to_who_needs_it(command, told, monkeypatch, user: int, begins: str) -> None:
    install, lines = told
    install(apt_get="", sudo="")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    shown = command("install", "--dry-run", "--sudo").out.splitlines()
    (program,) = (line.split()[1] for line in shown if line.startswith("apt "))
    assert Path(program).name == begins
    assert lines() == []


def test_an_installer_gets_no_input_and_leaves_standard_output_to_us(environ: dict[str, str]) -> None:
    program = "from localllama.cli import installing; installing._run(['/bin/sh', '-c', 'echo pouring; cat'])"
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, env=environ, input="typed", capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "pouring\n")


def test_when_nothing_works_each_method_is_accounted_for(command, told) -> None:
    install, lines = told
    install(brew="echo 'Error: another one is running' >&2; exit 1")
    outcome = command("install", "--method", "brew", "--yes")
    assert outcome.code == 4
    assert lines() == ["brew info llama.cpp"]
    assert "its index gives no llama.cpp (Error: another one is running)" in outcome.err


def test_what_a_question_leaves_behind_holds_nobody_up(command, told, tmp_path: Path) -> None:
    install, lines = told
    over, waited = tmp_path / "over", tmp_path / "waited"
    stays = f"n=0; while [ ! -e {over} ] && [ $n -lt 200 ]; do /bin/sleep 0.05; n=$((n+1)); done"
    install(brew=f'[ "$1" = install ] && exit 1\n({stays}; [ -e {over} ] || echo > {waited}) &')
    outcome = command("install", "--method", "brew", "--yes")
    has_waited = waited.exists()
    over.touch()
    assert outcome.code == 4
    assert lines() == ["brew info llama.cpp", "brew install llama.cpp"]
    assert not has_waited


def test_an_index_that_never_answers_is_passed_over(command, told, monkeypatch) -> None:
    install, lines = told
    monkeypatch.setattr(install_check, "_QUESTION_SECONDS", 0.3)
    install(brew="exec /bin/sleep 600")
    outcome = command("install", "--method", "brew", "--yes")
    assert outcome.code == 4
    assert lines() == ["brew info llama.cpp"]
    assert "no answer within" in outcome.err


def test_an_installer_that_was_killed_is_told_by_its_signal(command, told) -> None:
    install, _ = told
    install(brew='[ "$1" = install ] && kill -9 $$\nexit 0')
    outcome = command("install", "--method", "brew", "--yes")
    assert "brew install llama.cpp` was ended by SIGKILL" in outcome.err


def test_an_interrupted_installer_may_clean_up(told, environ: dict[str, str], tmp_path: Path) -> None:
    install, _ = told
    pouring = "n=0; while [ $n -lt 600 ]; do /bin/sleep 0.05; n=$((n+1)); done"
    cleaned = tmp_path / "cleaned"
    tidy = f"echo tidying; /bin/sleep 1; echo > {cleaned}; exit 130"
    install(brew=f'[ "$1" = install ] || exit 0\ntrap "{tidy}" INT\necho pouring\n{pouring}')
    terminal = Terminal(["install", "--method", "brew", "--yes"], environ | {"PATH": os.environ["PATH"]})
    terminal.expect("pouring")
    terminal.type("\x03")
    terminal.expect("tidying")
    terminal.expect("Interrupted.")
    assert terminal.wait() == 130
    terminal.close()
    assert cleaned.exists()


def test_an_installer_that_heeds_no_interrupt_is_ended_by_the_next(
    told, environ: dict[str, str], tmp_path: Path
) -> None:
    install, _ = told
    pouring = "n=0; while [ $n -lt 600 ]; do /bin/sleep 0.05; n=$((n+1)); done"
    ended = tmp_path / "ended"
    install(  # the end of the terminal is no end of it either
        brew=f'[ "$1" = install ] || exit 0\ntrap "" INT HUP\ntrap "echo > {ended}; exit 1" TERM\necho pouring\n{pouring}'
    )
    terminal = Terminal(["install", "--method", "brew", "--yes"], environ | {"PATH": os.environ["PATH"]})
    terminal.expect("pouring")
    terminal.type("\x03")
    terminal.expect("once more ends it")
    terminal.type("\x03")
    terminal.expect("Interrupted.")
    assert terminal.wait() == 130
    terminal.close()
    wait_until(ended.exists)


def test_an_interrupt_while_an_installer_begins_lets_it_clean_up_too(tmp_path: Path, monkeypatch) -> None:
    class Begun(subprocess.Popen):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Begun)
    cleaned, before = tmp_path / "cleaned", signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        installing._run(["/bin/sh", "-c", f"sleep 0.3; echo > {cleaned}"])
    assert cleaned.exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_check_loads_a_real_model_even_where_there_is_none(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(tmp_path))
    monkeypatch.setenv("LOCALLLAMA_MODEL", "/nowhere/model.gguf")
    monkeypatch.setattr(installing, "DEMO_MODEL", "/nowhere/model.gguf")
    assert installing._fault_of_runtime("embedded") is None


def test_the_check_is_not_passed_by_another_rung(tmp_path: Path, monkeypatch) -> None:
    program = make_fake_llama_server(tmp_path, Behaviour(load_signal="SIGILL"))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert "SIGILL" in str(installing._fault_of_runtime("llama-server"))
