"""What the tests of the command line share: a configuration of their own, and a way to run a command in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from localllama.cli.app import run


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No configuration of the user is read or written."""
    monkeypatch.setenv("LOCALLLAMA_CONFIG_DIR", str(tmp_path / "configuration"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "configuration" / "config.json"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the command line as the script does, but for the process."""

    def invoke(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            run(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Outcome(int(ended.value.code or 0), out, err)

    return invoke


@pytest.fixture
def environ(own_configuration: Path, micro_model: Path) -> dict[str, str]:
    """The environment of a command in a process of its own: the micro model is the default."""
    values = {name: value for name, value in os.environ.items() if not name.startswith("LOCALLLAMA_")}
    values |= {"LOCALLLAMA_CONFIG_DIR": str(own_configuration.parent), "LOCALLLAMA_MODEL": str(micro_model)}
    return values | {"NO_COLOR": "1"}
