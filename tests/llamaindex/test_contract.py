"""The contract of LlamaIndex, held by `LocalLlama` over a real server and over a scripted one, and by an LLM not ours."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from llamaindex import contract, foreign_llm
from llamaindex.contract import LLMContract
from llamaindex.foreign_llm import ForeignLLM
from llamaindex_localllama import LocalLlama


class TestOverScriptedServer(LLMContract):
    @pytest.fixture
    def llm(self, scripted_llm: LocalLlama) -> LocalLlama:
        return scripted_llm


class TestOverMicroModel(LLMContract):
    @pytest.fixture
    def llm(self, micro_llm: LocalLlama) -> LocalLlama:
        return micro_llm


class TestOverAnLLMThatIsNotOurs(LLMContract):
    @pytest.fixture
    def llm(self) -> ForeignLLM:
        return ForeignLLM()


@pytest.mark.parametrize("module", [contract, foreign_llm], ids=["contract", "foreign_llm"])
def test_nothing_of_ours_is_needed_for_it(module: object) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    others = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert others <= {"pytest", "llama_index"}
