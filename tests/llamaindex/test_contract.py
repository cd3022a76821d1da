"""The contract of LlamaIndex, held by `LocalLlama` over a real server and over a scripted one."""

from __future__ import annotations

import pytest

from llamaindex.contract import LLMContract
from llamaindex_localllama import LocalLlama


class TestOverScriptedServer(LLMContract):
    @pytest.fixture
    def llm(self, scripted_llm: LocalLlama) -> LocalLlama:
        return scripted_llm


class TestOverMicroModel(LLMContract):
    @pytest.fixture
    def llm(self, micro_llm: LocalLlama) -> LocalLlama:
        return micro_llm
