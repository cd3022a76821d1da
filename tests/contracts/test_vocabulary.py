"""One word for one thing: the names of modules, classes, functions and arguments keep to the vocabulary."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["shared/localllama", "langchain_localllama", "llamaindex_localllama"]
FOLDERS = [*PACKAGES, "tools", "benchmarks", "examples"]

BANNED = {"backend", "provider", "engine", "manager", "handler", "helper", "helpers", "util", "utils", "common", "misc"}
TIME_WITHOUT_UNIT = re.compile(r"(^|_)(timeout|delay|interval|duration|elapsed|deadline_in)$")
SIZE_WITHOUT_UNIT = re.compile(r"(^|_)size$")

FOREIGN = {
    "run_manager": "langchain_core passes it by this name",
    "callback_manager": "llama_index.core passes it by this name",
    "CallbackManager": "llama_index.core names it so",
    "create_kernel_manager": "nbclient calls it by this name",
    "model_provider": "langchain_core reads it by this name",
    "ls_provider": "langchain_core reads it by this name",
    "timeout": "the standard parameter of a LangChain chat model",
    "request_timeout": "the usual alias of `timeout` in LangChain chat models",
}
"""Names that another project chose; the reason stands beside each."""


def _python_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def _defined_names(tree: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Each name that is defined, its line, and whether it names a value, which may need a unit."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, False
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno, True
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno, True
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno, True


def _words(name: str) -> set[str]:
    parts = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_")
    return set(parts)


def _fault(name: str, *, is_value: bool = True) -> str | None:
    if name in FOREIGN or name.lower() in FOREIGN:
        return None
    banned = _words(name) & BANNED
    if banned:
        return f"{', '.join(sorted(banned))} is not a word of ours"
    if is_value and TIME_WITHOUT_UNIT.search(name):
        return "seconds end in _seconds, milliseconds in _ms"
    if is_value and SIZE_WITHOUT_UNIT.search(name):
        return "bytes end in _bytes"
    return None


def _offenders(path: Path) -> list[str]:
    place = path.relative_to(ROOT)
    names = [*_defined_names(ast.parse(path.read_text())), *((part, 0, False) for part in place.with_suffix("").parts)]
    return [
        f"{place}:{line} {name}: {fault}"
        for name, line, is_value in names
        if (fault := _fault(name, is_value=is_value))
    ]


@pytest.mark.parametrize("path", _python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_names_keep_to_the_vocabulary(path: Path) -> None:
    assert _offenders(path) == []


@pytest.mark.parametrize("name", ["ServerManager", "model_utils", "http_timeout", "file_size", "LlamaBackend"])
def test_the_check_finds_what_it_looks_for(name: str) -> None:
    assert _fault(name)


@pytest.mark.parametrize("name", ["timeout_seconds", "size_bytes", "commonmark", "sampler", "run_manager"])
def test_the_check_leaves_other_names_alone(name: str) -> None:
    assert _fault(name) is None
