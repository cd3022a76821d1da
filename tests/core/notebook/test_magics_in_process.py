"""The magics in an IPython shell of this process: which servers are whose, and what is said about mistakes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import localllama
from localllama import ConfigurationError, LocalLlamaClient, MissingDependencyError, ServerSettings
from localllama._server.registry import running_servers
from support.waiting import wait_until


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    gc.collect()  # servers that garbage of other tests still holds
    wait_until(lambda: not running_servers(), what="the end of the servers of other tests")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    config = Config()
    config.HistoryManager.enabled = False
    cells = ModuleType("cells")  # not `__main__`, which is pytest's
    made = InteractiveShell(config=config, user_module=cells, user_ns=cells.__dict__)
    made.extension_manager.load_extension("localllama")
    yield made
    made.extension_manager.unload_extension("localllama")


def status(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    shell.run_line_magic("localllama", "")
    return capsys.readouterr().out.splitlines()


def test_each_model_has_its_server_until_the_extension_is_unloaded(
    shell: InteractiveShell, micro_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(shell, capsys) == ["no model is in use"]
    other = tmp_path / "other.gguf"
    other.symlink_to(micro_model)
    for model in (micro_model, other, micro_model):
        shell.run_cell_magic("llm", f"{model} max_tokens=4 ignore_eos=true", "Hello\n")
        assert capsys.readouterr().out.endswith("\n")
    lines = status(shell, capsys)
    assert [line.partition(": ")[0] for line in lines] == [str(micro_model), str(other)]
    assert all("runs, pid" in line and "tokens per second" in line for line in lines)
    shell.extension_manager.unload_extension("localllama")
    assert localllama._magics == []
    assert status(shell, capsys) == ["no model is in use"]


def test_servers_of_other_objects_are_told_and_left(
    shell: InteractiveShell, micro_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalLlamaClient(ServerSettings(model=str(micro_model), n_ctx=256)) as client:
        client.tokenize("Hello")
        shell.run_line_magic("localllama", "stop")
        (line,) = status(shell, capsys)
        assert line.startswith(f"{micro_model}: runs, pid {client.server_pid}, ")
        assert line.endswith("of other objects here: close() them to end it")
        assert client.is_running
    assert status(shell, capsys) == ["no model is in use"]


def test_a_model_whose_server_does_not_run_is_told(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = tmp_path / "missing.gguf"
    with pytest.raises(localllama.ModelNotFoundError):
        shell.run_cell_magic("llm", str(missing), "Hello")
    assert status(shell, capsys) == [f"{missing}: not running"]
    shell.run_line_magic("localllama", "stop")
    assert capsys.readouterr().out == "no model is in use\n"


@pytest.mark.parametrize("line", ["fly", "stop everything", "status now", "doctor one two"])
def test_an_unknown_order_is_named(shell: InteractiveShell, line: str) -> None:
    with pytest.raises(ConfigurationError, match=f"does not know '{line}'"):
        shell.run_line_magic("localllama", line)


def test_one_cell_takes_one_model(shell: InteractiveShell) -> None:
    with pytest.raises(ConfigurationError, match="takes one model"):
        shell.run_cell_magic("llm", "one two max_tokens=3", "Hello")


def test_doctor_reads_as_text(
    shell: InteractiveShell, micro_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_line_magic("localllama", f"doctor {tmp_path / 'missing.gguf'}")
    bad = capsys.readouterr().out
    assert "\nTo mend model: " in bad
    assert "All is well" not in bad
    shell.run_line_magic("localllama", f"doctor {micro_model}")
    assert capsys.readouterr().out.endswith("All is well.\n")


def test_doctor_without_the_command_line_names_the_extra(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("localllama.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(MissingDependencyError) as caught:
        shell.run_line_magic("localllama", "doctor")
    assert 'pip install "localllama[cli]"' in str(caught.value.hint)
