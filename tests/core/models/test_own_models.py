"""The user's own names: what they stand for, what a broken file says, adding and removing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from localllama import LocalLlamaClient, ServerSettings
from localllama._models.own_changes import add_own_model, remove_own_model
from localllama._models.own_models import OwnModel, read_own_models
from localllama._models.reference import parse_reference
from localllama._models.store import locate_model
from localllama.errors import ConfigurationError, LocalLlamaError, ModelNotFoundError
from support.gguf_bytes import small_model


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's names are written; not there yet."""
    monkeypatch.setenv("LOCALLLAMA_CONFIG_DIR", str(tmp_path / "configuration"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "configuration" / "models.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(small_model().build())
    return path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_a_name_stands_for_a_file_from_any_directory(file: Path, model: Path, tmp_path: Path, monkeypatch) -> None:
    add_own_model(OwnModel("Mine", "./m.gguf", n_ctx=3000, licence="MIT", description="für mich"))
    (tmp_path / "mine").write_bytes(b"a file of that name does not change what the name means")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert locate_model("mine") == locate_model("MINE") == model
    assert read_own_models() == {"mine": OwnModel("Mine", str(model), 3000, "MIT", "für mich")}
    assert file.stat().st_mode & 0o777 == 0o600
    for n_ctx, expected in ((None, 3000), (500, 500)):
        with LocalLlamaClient(ServerSettings(model="mine", n_ctx=n_ctx)) as client:
            info = client.model_info()
            assert info is not None
            assert (info.path, info.n_ctx) == (str(model), expected)


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("owner/repo:Q4_K_M", "hub"),
        ("smollm2-135m", "catalog"),
        ("qwen3-4b", "hub"),
        ("https://host/m.gguf", "url"),
    ],
)
def test_a_name_stands_for_any_form(file: Path, reference: str, kind: str) -> None:
    add_own_model(OwnModel("mine", reference))
    parsed = parse_reference("mine")
    assert parsed.kind == kind
    assert parsed.text == "mine"
    assert json.loads(file.read_text()) == {"mine": {"reference": reference}}


def test_names_that_are_added_at_once_are_all_there(file: Path) -> None:
    names = [f"name-{number}" for number in range(12)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: add_own_model(OwnModel(name, "owner/repo")), names))
    assert sorted(read_own_models()) == sorted(names)


def test_a_name_that_is_there_is_replaced_only_when_told(file: Path) -> None:
    add_own_model(OwnModel("mine", "a/b"))
    add_own_model(OwnModel("other", "a/b"))
    with pytest.raises(ConfigurationError, match="stands for 'a/b'"):
        add_own_model(OwnModel("MINE", "a/c"))
    add_own_model(OwnModel("MINE", "a/c"), is_replacing=True)
    assert parse_reference("mine").repo == "a/c"
    assert remove_own_model("mine").reference == "a/c"
    assert set(read_own_models()) == {"other"}
    with pytest.raises(ModelNotFoundError, match="Did you mean 'other'"):
        remove_own_model("othr")


@pytest.mark.parametrize(
    ("name", "reference", "words"),
    [
        ("smollm2-135m", "a/b", "name of the catalog"),
        ("Qwen3-4B", "a/b", "name of the catalog"),
        ("a/b", "a/b", "cannot be a model's name"),
        ("../x", "a/b", "cannot be a model's name"),
        ("x.gguf", "a/b", "cannot be a model's name"),
        ("mine", "", "empty"),
        ("mine", "smollm2-13m", "Did you mean 'smollm2-135m'"),
        ("mine", "./nowhere.gguf", "no model file"),
        ("mine", "pkg:no_such_package/a.gguf", "not installed"),
        ("mine", "https://host/page", "direct address"),
        ("mine", "ftp://host/m.gguf", "unknown scheme"),
        ("mine", "theirs", "a name of your own"),
    ],
)
def test_what_is_no_name_or_stands_for_nothing_is_not_written(
    file: Path, name: str, reference: str, words: str
) -> None:
    write(file, '{"theirs": {"reference": "a/b"}}')
    with pytest.raises(LocalLlamaError, match=words):
        add_own_model(OwnModel(name, reference))
    assert set(read_own_models()) == {"theirs"}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('{\n "a": {"reference": "x/y"}\n "b": 1}', 3, "column 2: Expecting ',' delimiter"),
        ('{\n "a": {\n"reference": "x/y"', 3, ""),
        ("[]", 1, "not a JSON object"),
        ('{\n\n "a": "x/y"}', 3, "'a' is no entry"),
        ('{"b": {"reference": "x/y"},\n "a": {"licence": "x"}}', 2, "'a' is no entry"),
        ('{"b": {"reference": "x/y"},\n "a": {"reference": "x", "licence": "x"}}', 2, "did you mean 'license'"),
        ('{\n"a": {"reference": 3}}', 2, "'reference' of 'a' is 3, not a text"),
        ('{\n"a": {"reference": " "}}', 2, "the reference of 'a' is empty"),
        ('{\n"a": {"reference": "x/y", "context": true}}', 2, "not a whole number"),
        ('{\n"a": {"reference": "x/y", "context": 0}}', 2, "give 1 or more"),
        ('{\n"a": {"reference": "x/y"},\n"a": {"reference": "x/z"}}', 3, "'a' is there twice"),
        ('{\n"a": {"reference": "x/y"},\n"A": {"reference": "x/z"}}', 3, "'A' is there twice"),
        ('{\n"smollm2-135m": {"reference": "x/y"}}', 2, "name of the catalog"),
        ('{\n"a/b": {"reference": "x/y"}}', 2, "cannot be a name"),
    ],
)
def test_a_broken_file_is_named_with_its_line(file: Path, text: str, line: int, words: str) -> None:
    write(file, text)
    before = file.read_bytes()
    for attempt in (lambda: locate_model("smollm2-135m"), lambda: add_own_model(OwnModel("new", "a/b"))):
        with pytest.raises(ConfigurationError) as caught:
            attempt()
        assert f"{file}, line {line}: " in caught.value.message
        assert words in caught.value.message
    assert file.read_bytes() == before


def test_a_broken_file_does_not_concern_who_gives_a_path(file: Path, model: Path) -> None:
    write(file, "{")
    assert locate_model(str(model)) == model


@pytest.mark.parametrize(("reference", "words"), [("./m.gguf", "absolute path"), ("b", "no model 'b'")])
def test_a_relative_path_or_another_name_written_by_hand_is_refused(
    file: Path, model: Path, reference: str, words: str
) -> None:
    write(file, json.dumps({"a": {"reference": reference}, "b": {"reference": str(model)}}))
    assert locate_model("b") == model
    with pytest.raises(LocalLlamaError, match=words):
        locate_model("a")
