"""What `make demo` and `make test` stand on: when the environment is made anew, brought up to date, or left alone."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, list[str]]:
    """The setup script on a folder of its own, with the two slow steps replaced by notes of them."""
    spec = importlib.util.spec_from_file_location("setup_environment", ROOT / "tools/setup_environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "setup_environment", module)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("first")
    cache = tmp_path / ".cache"
    cache.mkdir()
    for name, value in {"ROOT": tmp_path, "CACHE": cache, "LOG": cache / "setup.log"}.items():
        monkeypatch.setattr(module, name, value)
    done: list[str] = []
    create = module._create

    def note_create(environment: Path, uv: str | None) -> None:
        done.append("create")
        create(environment, uv)

    def note_install(environment: Path, *, with_dev_tools: bool, uv: str | None, is_lowest: bool) -> None:
        done.append("install dev" if with_dev_tools else "install")

    def quick_venv(command: list[str], *, hint: str = "") -> None:
        venv.create(command[-1], symlinks=True, with_pip=False)

    monkeypatch.setattr(module, "_create", note_create)
    monkeypatch.setattr(module, "_install", note_install)
    monkeypatch.setattr(module, "_run", quick_venv)
    return module, done


def test_made_once_then_left_alone(setup, tmp_path: Path) -> None:
    module, done = setup
    for _ in range(3):
        module.set_up(tmp_path / ".venv", with_dev_tools=False, uv=None)
    assert done == ["create", "install"]


def test_dev_tools_are_added_and_then_serve_the_demo_too(setup, tmp_path: Path) -> None:
    module, done = setup
    for with_dev_tools in (False, True, False, True):
        module.set_up(tmp_path / ".venv", with_dev_tools=with_dev_tools, uv=None)
    assert done == ["create", "install", "install dev"]


def test_a_changed_pyproject_is_installed_with_what_was_there(setup, tmp_path: Path) -> None:
    module, done = setup
    module.set_up(tmp_path / ".venv", with_dev_tools=True, uv=None)
    (tmp_path / "pyproject.toml").write_text("second")
    module.set_up(tmp_path / ".venv", with_dev_tools=False, uv=None)
    assert done == ["create", "install dev", "install dev"]


def test_an_interrupted_setup_is_made_anew(setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, done = setup

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_install", interrupt)
        with pytest.raises(KeyboardInterrupt):
            module.set_up(tmp_path / ".venv", with_dev_tools=False, uv=None)
    (tmp_path / ".venv" / "half-a-package").touch()
    module.set_up(tmp_path / ".venv", with_dev_tools=False, uv=None)
    assert done == ["create", "create", "install"]
    assert not (tmp_path / ".venv" / "half-a-package").exists()


def test_an_environment_made_by_hand_is_used(setup, tmp_path: Path) -> None:
    module, done = setup
    venv.create(tmp_path / ".venv", symlinks=True, with_pip=False)
    module.set_up(tmp_path / ".venv", with_dev_tools=True, uv=None)
    assert done == ["install dev"]


def test_an_environment_whose_python_is_gone_is_made_anew(setup, tmp_path: Path) -> None:
    module, done = setup
    module.set_up(tmp_path / ".venv", with_dev_tools=False, uv=None)
    (tmp_path / "pyproject.toml").write_text("second")
    python = tmp_path / ".venv/bin/python"
    python.unlink()
    python.symlink_to(tmp_path / "no-such-python")
    module.set_up(tmp_path / ".venv", with_dev_tools=False, uv=None)
    assert done == ["create", "install", "create", "install"]


def test_a_folder_that_is_no_environment_is_not_touched(setup, tmp_path: Path) -> None:
    module, done = setup
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "thesis.txt").write_text("years of work")
    with pytest.raises(module.SetupError, match="not a virtual environment"):
        module.set_up(tmp_path / ".venv", with_dev_tools=False, uv=None)
    assert (tmp_path / ".venv" / "thesis.txt").exists()
    assert done == []


def test_a_failed_command_shows_its_output(tmp_path: Path) -> None:
    """The real script, with a pip that cannot reach any index."""
    (tmp_path / "tools").mkdir()
    for name in ("tools/setup_environment.py", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    venv.create(tmp_path / ".venv", symlinks=True, with_pip=False)
    answer = subprocess.run(
        [sys.executable, str(tmp_path / "tools/setup_environment.py"), "--no-uv"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_INDEX": "1"},
    )
    assert answer.returncode == 1
    assert "No module named pip" in answer.stderr
    assert ".cache/setup.log" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert json.loads((tmp_path / ".venv/.localllama-setup.json").read_text())["is_complete"] is False


@pytest.mark.parametrize("arguments", [(), ("9.9",)])
def test_a_python_is_found_or_the_want_of_it_is_told(arguments: tuple[str, ...]) -> None:
    answer = subprocess.run(
        ["sh", str(ROOT / "tools/find_python.sh"), *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    if arguments:
        assert answer.returncode == 1
        assert "No Python 9.9 found" in answer.stderr
        return
    version = subprocess.run(
        [answer.stdout.strip(), "-c", "import sys; print(sys.version_info >= (3, 10))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert version.stdout.strip() == "True"


@pytest.mark.parametrize("runs", [True, False])
def test_the_python_of_the_environment_that_is_there_goes_on(tmp_path: Path, runs: bool) -> None:
    script = tmp_path / "tools" / "find_python.sh"
    python = tmp_path / ".venv" / "bin" / "python"
    script.parent.mkdir()
    python.parent.mkdir(parents=True)
    shutil.copy(ROOT / "tools/find_python.sh", script)
    if runs:
        python.symlink_to(sys.executable)
    else:
        python.write_text("#!/bin/sh\nexit 1\n")
        python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    answer = subprocess.run(["sh", script], capture_output=True, text=True, check=True, timeout=120, env=environment)
    assert (Path(answer.stdout.strip()).absolute() == python.absolute()) is runs, answer.stdout


def test_a_named_python_that_will_not_do_is_refused() -> None:
    answer = subprocess.run(
        ["sh", str(ROOT / "tools/find_python.sh")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHON": "/bin/false"},
    )
    assert answer.returncode == 1
    assert "/bin/false" in answer.stderr
