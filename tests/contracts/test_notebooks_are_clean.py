"""The notebooks are kept with their outputs, and nothing in them is of the machine that ran them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted(Path(__file__).resolve().parents[2].glob("notebooks/*.ipynb"))
PATH_OF_A_MACHINE = re.compile(r"(?<![\w.:/])(/(home|root|tmp|work|usr|opt|var|Users|private)/|[A-Z]:\\\\)")


def cells(path: Path, kind: str = "code") -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_none_is_an_error(path: Path) -> None:
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    assert len(outputs) >= 3, "run: make notebooks"
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert [cell["execution_count"] for cell in cells(path)] == list(range(1, len(cells(path)) + 1))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_is_of_one_machine(path: Path) -> None:
    text = re.sub(r'"image/png": "[^"]*"', "", path.read_text(encoding="utf-8"))
    assert not PATH_OF_A_MACHINE.search(text)
    assert not re.search(r"(process|pid) (?!12345)\d+", text)
    assert not re.search(r"0x[0-9a-f]{6,}", text)
    assert "execution" not in {key for cell in cells(path) for key in cell["metadata"]}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_model_is_named_once_at_the_top(path: Path) -> None:
    assert cells(path)[0]["source"][0].startswith('MODEL = "smollm2-135m"')
    sources = "".join("".join(cell["source"]) for cell in cells(path))
    assert sources.count("smollm2-135m") == 1
    assert cells(path, "markdown")[0]["source"][0].startswith("# ")
