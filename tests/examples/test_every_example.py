"""What holds for each example: it is listed, it is short, and its --help says what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.example_programs import EXAMPLES, Run

PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
MOST_LINES = 120


@pytest.mark.parametrize("name", PROGRAMS)
def test_help(run: Run, name: str) -> None:
    code, out, err = run(name, "--help")
    assert code == 0, err
    assert "--model" in out
    assert "smollm2-135m" in out
    first_sentence = (EXAMPLES / f"{name}.py").read_text().split('"""')[1].partition("\n")[0]
    assert " ".join(first_sentence.split()) in " ".join(out.split())


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_is_in_the_list(name: str) -> None:
    assert f"[`{name}.py`]({name}.py)" in (EXAMPLES / "README.md").read_text()


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "demo"])
def test_it_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < MOST_LINES


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("batch_extraction", ["texts", "out.jsonl"]),
        ("fastapi_service", []),
        ("langgraph_sqlite", ["Hello"]),
        ("llamaindex_rag", ["texts", "Hello?"]),
    ],
)
def test_a_wrong_model_is_told_with_the_right_name(run: Run, tmp_path: Path, name: str, arguments: list[str]) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("Hello.")
    code, out, err = run(name, *arguments, "--model", "smollm2-135n")
    assert code not in (0, None), out
    assert "Hint: " in err
    assert "smollm2-135m" in err
