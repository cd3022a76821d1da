"""The commands as a user types them, with real servers on the micro model."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from localllama.cli import _errors, models
from localllama.cli._screen import errors


def test_version(command) -> None:
    from importlib.metadata import version

    assert command("--version").out == f"localllama {version('localllama')}\n"


def test_wrong_usage_is_2(command) -> None:
    outcome = command("bogus")
    assert outcome.code == 2
    assert "No such command" in outcome.err


@pytest.mark.parametrize("kind", _errors.EXIT_CODES)
def test_each_kind_of_error_has_its_code_and_shows_its_hint(kind, capsys) -> None:
    def fail() -> None:
        raise kind("what happened [sic]", hint="do this")

    assert _errors.guarded(fail) == _errors.EXIT_CODES[kind]
    assert "what happened [sic]" in (err := capsys.readouterr().err)
    assert "do this" in err


def test_a_fault_of_our_own_is_no_traceback_but_for_who_asks(capsys, monkeypatch) -> None:
    def fail() -> None:
        raise RuntimeError("inner")

    assert _errors.guarded(fail) == 70
    err = capsys.readouterr().err
    assert "RuntimeError: inner" in err
    assert "Traceback" not in err
    monkeypatch.setenv("LOCALLLAMA_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="inner"):
        _errors.guarded(fail)


def test_ask_answers_on_standard_output_alone(command, micro_model: Path) -> None:
    outcome = command("ask", "Hello", "--model", str(micro_model), "--max-tokens", "5")
    assert outcome.code == 0
    assert outcome.out.strip()
    assert "cut off" in outcome.err


def test_ask_as_json(command, micro_model: Path) -> None:
    outcome = command("ask", "Hello", "--model", str(micro_model), "--max-tokens", "5", "--json")
    answer = json.loads(outcome.out)
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["finish_reason"] == "length"


def test_ask_by_schema_and_file(command, micro_model: Path, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps({"enum": ["yes", "no"]}))
    (tmp_path / "text.txt").write_text("Is it so?")
    schema, text = str(tmp_path / "schema.json"), str(tmp_path / "text.txt")
    outcome = command("ask", "--model", str(micro_model), "--file", text, "--schema", schema)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) in ("yes", "no")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("ask",), 2, "no question"),
        (("ask", "Hi", "--schema", "nowhere.json"), 2, "nowhere.json"),
        (("ask", "Hi", "--model", "/nowhere/model.gguf"), 3, "/nowhere/model.gguf"),
        (("ask", "Hi", "--runtime", "/nowhere/llama-server"), 2, "/nowhere/llama-server"),
        (("models", "where", "no-such-model"), 3, "no-such-model"),
        (("models", "pull", "--update", "smollm2-135m"), 3, "not on Hugging Face"),
    ],
)
def test_what_is_wrong_and_what_to_do(command, micro_model: Path, monkeypatch, arguments, code: int, word: str) -> None:
    monkeypatch.setenv("LOCALLLAMA_MODEL", str(micro_model))
    outcome = command(*arguments)
    assert outcome.code == code
    assert word in outcome.err
    assert not outcome.out


def test_which_model_is_meant(command, micro_model: Path, monkeypatch, own_configuration: Path) -> None:
    from localllama.cli._defaults import chosen_model

    assert chosen_model(None)[0] == "smollm2-135m"
    assert command("models", "use", str(micro_model)).code == 0
    assert chosen_model(None) == (str(micro_model), str(own_configuration))
    monkeypatch.setenv("LOCALLLAMA_MODEL", "")
    assert chosen_model(None) == (str(micro_model), str(own_configuration))
    monkeypatch.setenv("LOCALLLAMA_MODEL", "from-the-variable")
    assert chosen_model(None)[0] == "from-the-variable"
    assert chosen_model("from-the-option")[0] == "from-the-option"


def test_a_new_default_is_a_model_and_leaves_the_rest_of_the_file(
    command, micro_model: Path, own_configuration: Path
) -> None:
    own_configuration.parent.mkdir()
    own_configuration.write_text('{"other": 1}')
    assert command("models", "use", str(micro_model)).code == 0
    assert command("models", "use", "/nowhere/model.gguf").code == 3
    assert json.loads(own_configuration.read_text()) == {"other": 1, "model": str(micro_model)}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_configuration_is_named(command, own_configuration: Path, text: str) -> None:
    own_configuration.parent.mkdir()
    own_configuration.write_text(text)
    outcome = command("ask", "Hi")
    assert outcome.code == 2
    assert str(own_configuration) in outcome.err


def test_bench_gives_numbers(command, micro_model: Path) -> None:
    arguments = ("bench", "--model", str(micro_model), "--rounds", "1", "--tokens", "8", "--prompt", "2", "--json")
    values = json.loads(command(*arguments).out)
    assert values["generated_tokens"] == 8
    assert values["generated_tokens_per_second"] > 0
    assert values["prompt_tokens_per_second"] > 0


def test_models_show_where_verify(command, micro_model: Path) -> None:
    assert command("models", "where", str(micro_model)).out.strip() == str(micro_model)
    assert json.loads(command("models", "show", str(micro_model), "--json").out)["architecture"] == "llama"
    assert "right" in command("models", "verify", str(micro_model)).out


def test_no_escape_sequences_where_nobody_looks(command, micro_model: Path) -> None:
    for arguments in (("models", "list"), ("runtime",), ("doctor", "--model", str(micro_model))):
        outcome = command(*arguments)
        assert "\x1b" not in outcome.out + outcome.err


def test_the_missing_extra_is_named(monkeypatch, capsys) -> None:
    import localllama.cli

    monkeypatch.setattr(localllama.cli.importlib.util, "find_spec", lambda name: None if name == "rich" else object())
    with pytest.raises(SystemExit) as ended:
        localllama.cli.main()
    assert ended.value.code == 2
    assert "localllama[cli]" in capsys.readouterr().err


def test_every_place_and_program_is_in_the_report(command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    broken = tmp_path / "llama-server"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    report = json.loads(command("runtime", "--json").out)
    assert any(str(broken) in place for place in report["places"])
    first, second = report["runtimes"][:2]
    assert first["origin"] == str(broken)
    assert "exit" in first["fault"]
    assert first["verdict"].startswith("passed over")
    assert second["kind"] == "embedded"
    assert second["verdict"].startswith("taken")
    assert os.fspath(tmp_path) not in second["origin"]


@pytest.mark.parametrize("arguments", [("init",), ("models", "rm", "MODEL", "--force")])
def test_where_nobody_answers_a_question_the_option_is_named(command, monkeypatch, fetched_model, arguments) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    outcome = command(*(fetched_model if word == "MODEL" else word for word in arguments))
    assert outcome.code == 2
    assert "--yes" in outcome.err


@pytest.fixture
def fetched_model(micro_model: Path, tmp_path: Path, monkeypatch) -> str:
    """A model in the cache of Hugging Face."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--owner--some-GGUF"
    snapshot = folder / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    (snapshot / "some-Q4_K_M.gguf").write_bytes(micro_model.read_bytes())
    return "owner/some-GGUF"


def test_what_another_program_fetched_is_removed_only_by_force(command, fetched_model: str, tmp_path: Path) -> None:
    refused = command("models", "rm", fetched_model, "--yes")
    assert refused.code == 3
    assert f"models rm --force {fetched_model}" in refused.err
    assert list(tmp_path.rglob("some-Q4_K_M.gguf"))
    assert command("models", "rm", fetched_model, "--yes", "--force").code == 0
    assert not list(tmp_path.rglob("some-Q4_K_M.gguf"))


def test_who_interrupts_while_the_program_is_read_sees_no_traceback(environ: dict[str, str]) -> None:
    # As long as its modules are imported, nothing of the program catches anything.
    reading = "import sys; from localllama import cli\n"
    reading += "def stopped(*_): raise KeyboardInterrupt\n"
    reading += "cli.importlib.util.find_spec = stopped; sys.exit(cli.main())"
    process = subprocess.run([sys.executable, "-c", reading], env=environ, capture_output=True, text=True, check=False)
    assert process.returncode == 130
    assert process.stderr.strip() == "Interrupted."


def test_an_empty_runtime_is_none_chosen(command, micro_model: Path) -> None:
    outcome = command("ask", "Hello", "--model", str(micro_model), "--max-tokens", "1", "--runtime", "")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("way", ["file", "input", "question", "system"])
def test_bytes_that_are_no_text_are_named_wherever_they_come_from(command, tmp_path: Path, monkeypatch, way) -> None:
    (tmp_path / "latin1").write_bytes(b"caf\xe9")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), "utf-8", "surrogateescape"))
    arguments = {
        "file": ("-f", str(tmp_path / "latin1")),
        "input": ("-f", "-"),
        "question": ("caf\udce9",),
        "system": ("Hello", "--system", "caf\udce9"),
    }
    outcome = command("ask", *arguments[way])
    assert outcome.code == 2
    assert "UTF-8" in outcome.err
    assert "iconv" in outcome.err
    assert "surrogate" not in outcome.err


def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_it(command, micro_model: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "boolean"}', encoding="utf-8-sig")
    outcome = command("ask", "Hello", "--model", str(micro_model), "--schema", str(schema), "--temperature", "0")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) in (True, False)


@pytest.mark.parametrize("closed", ["0", "1", "2"])
def test_a_closed_standard_stream_is_no_fault_of_ours(environ: dict[str, str], closed: str) -> None:
    shell = f"exec {sys.executable} -m localllama ask Hello --max-tokens 1 {closed}>&-"
    process = subprocess.run(["/bin/sh", "-c", shell], env=environ, capture_output=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr


def test_a_name_in_an_error_of_the_system_is_no_markup(capsys) -> None:
    def fail() -> None:
        Path("/nowhere/[/]").read_bytes()

    assert _errors.guarded(fail) == 1
    assert "/nowhere/[/]" in capsys.readouterr().err


def test_a_path_on_standard_error_is_not_broken(command, tmp_path: Path, monkeypatch, micro_model: Path) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(models, "errors", errors.__wrapped__)  # a console of this width
    model = tmp_path / f"{'long' * 20}.gguf"
    model.write_bytes(micro_model.read_bytes())
    assert f"{model} is the default now" in command("models", "use", str(model)).err


@pytest.mark.parametrize("variable", ["LOCALLLAMA_MODELS", "LOCALLLAMA_CONFIG_DIR", "LOCALLLAMA_CACHE"])
def test_a_home_that_nobody_has_is_no_fault_of_ours(command, tmp_path: Path, monkeypatch, variable: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "~nobody-of-this-name/x")
    assert command("models", "list").code == 0


def test_a_default_that_is_no_text_is_named(command, own_configuration: Path) -> None:
    own_configuration.parent.mkdir()
    own_configuration.write_text('{"model": 5}')
    outcome = command("ask", "Hello")
    assert outcome.code == 2
    assert "is 5 and no text" in outcome.err


def test_a_table_for_a_program_has_one_line_for_each_model(environ: dict[str, str]) -> None:
    environ.pop("COLUMNS", None)
    listing = [sys.executable, "-m", "localllama", "models", "list"]
    lines = subprocess.run(listing, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()
    names = [model["name"] for model in json.loads(subprocess.check_output([*listing, "--json"], env=environ))]
    assert [line.lstrip("* ").split()[0] for line in lines[1:-1]] == names
