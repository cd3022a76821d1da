"""`localllama models` with own names, and what removing says and asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_an_own_name_is_listed_shown_used_and_taken_out(command, micro_model: Path, own_configuration: Path) -> None:
    added = command("models", "add", "mine", str(micro_model), "--context", "300", "--license", "MIT")
    assert added.code == 0
    assert "stands for" in added.err
    listed = json.loads(command("models", "list", "--json").out)
    mine = next(model for model in listed if model["name"] == "mine")
    assert (mine["path"], mine["is_own"], mine["licence"]) == (str(micro_model), True, "MIT")
    assert not next(model for model in listed if model["name"] == "smollm2-135m")["is_own"]
    assert f"yours: {micro_model}" in command("models", "list").out
    shown = json.loads(command("models", "show", "mine", "--json").out)
    assert (shown["reference"], shown["n_ctx"], shown["architecture"]) == (str(micro_model), 300, "llama")
    assert command("models", "where", "mine").out.strip() == str(micro_model)
    assert command("ask", "Hi", "--model", "mine", "--max-tokens", "2", "--json").code == 0
    assert command("models", "use", "mine").code == 0
    rows = [line.split()[:3] for line in command("models", "list").out.splitlines()]
    assert [row for row in rows if row[0] == "*"] == [["*", "mine", "yes"]]
    refused = command("models", "rm", "mine", "--yes")
    assert refused.code == 3
    assert "a file of yours" in refused.err
    assert command("models", "add", "mine", "--remove").code == 0
    assert command("models", "where", "mine").code == 3


def test_an_own_name_whose_model_is_not_here_is_shown_as_what_it_stands_for(command) -> None:
    assert command("models", "add", "mine", "owner/repo:Q4_K_M", "--description", "for notes").code == 0
    outcome = command("models", "show", "mine")
    assert "owner/repo:Q4_K_M" in outcome.out
    assert "models pull mine" in outcome.err
    listed = command("models", "list").out
    assert "yours: for notes" in listed
    assert ["mine", "no"] in [line.split()[:2] for line in listed.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("mine",), 2, "REFERENCE or --remove"),
        (("mine", "a/b", "--remove"), 2, "REFERENCE or --remove"),
        (("smollm2-135m", "a/b"), 2, "name of the catalog"),
        (("mine", "no-such-model"), 3, "no model 'no-such-model'"),
        (("mine", "--remove"), 3, "no name of your own"),
    ],
)
def test_what_cannot_be_added(command, own_configuration: Path, arguments, code: int, words: str) -> None:
    outcome = command("models", "add", *arguments)
    assert outcome.code == code
    assert words in outcome.err
    file = own_configuration.with_name("models.json")
    assert not file.exists() or json.loads(file.read_text()) == {}


def test_removing_says_what_goes_and_asks(command, tmp_path: Path, monkeypatch) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(store))
    file = store / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(5000))
    monkeypatch.setattr("typer.confirm", lambda question, **_: question == "never")
    refused = command("models", "rm", "smollm2-135m")
    assert str(file) in refused.err
    assert "Nothing was removed" in refused.err
    assert file.exists()
    removed = command("models", "rm", "smollm2-135m", "--yes")
    assert "5.0 kB are free again" in removed.err
    assert not file.exists()
    assert command("models", "rm", "smollm2-135m", "--yes").code == 3


def test_paths_are_printed_as_they_are(command, micro_model: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a:x:b [red]c"
    odd.mkdir()
    (odd / "m.gguf").symlink_to(micro_model)
    assert command("models", "where", str(odd / "m.gguf")).out == f"{odd / 'm.gguf'}\n"
    assert str(odd / "no.gguf") in command("models", "where", str(odd / "no.gguf")).err


def test_a_name_that_is_taken_out_and_still_the_default_is_told(command, micro_model: Path) -> None:
    command("models", "add", "mine", str(micro_model))
    command("models", "use", "mine")
    assert "models add mine --remove" in command("models", "rm", "mine", "--yes").err
    assert f"localllama models use {micro_model}" in command("models", "add", "mine", "--remove").err
