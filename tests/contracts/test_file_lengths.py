"""Files and functions stay short enough to be read at once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["shared/localllama", "langchain_localllama", "llamaindex_localllama", "tools", "benchmarks", "examples"]
WRAPPERS = ["langchain_localllama", "llamaindex_localllama"]
MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 60


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def _python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_is_too_long(folder: str) -> None:
    lengths = {str(path.relative_to(ROOT)): _lines(path) for path in _python_files(folder)}
    assert {path: n for path, n in lengths.items() if n > MOST_FILE_LINES} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_is_too_long(folder: str) -> None:
    long = {}
    for path in _python_files(folder):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
                # The docstring is for the reader of the documentation; what must be read at once is the code.
                skipped = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
                n = (node.end_lineno or 0) - node.lineno + 1 - skipped
                if n > MOST_FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = n
    assert long == {}
