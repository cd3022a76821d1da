"""Importing the package: cheap, and clear about what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import langchain_localllama

WITHOUT = """
import sys
sys.modules[{missing!r}] = None
try:
    import langchain_localllama
    langchain_localllama.ChatLocalLlama
except ImportError as error:
    print(type(error).__name__, error)
"""


def run(code: str) -> str:
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return answer.stdout


def test_without_langchain_core_the_extra_is_named() -> None:
    said = run(WITHOUT.format(missing="langchain_core"))
    assert said.startswith("MissingDependencyError")
    assert 'pip install "localllama[langchain]"' in said


def test_a_fault_inside_langchain_core_is_not_taken_for_a_missing_extra() -> None:
    said = run(WITHOUT.format(missing="langchain_core.language_models"))
    assert "MissingDependencyError" not in said
    assert "langchain_core.language_models" in said


def test_the_import_loads_no_more_than_langchain_does() -> None:
    modules = "import sys; {}; print(*sys.modules)"
    plain = set(run(modules.format("import langchain_core.language_models.chat_models, localllama")).split())
    ours = set(run(modules.format("from langchain_localllama import ChatLocalLlama")).split())
    extra = {name.partition(".")[0] for name in ours - plain} - {"langchain_localllama", "langchain_core"}
    assert not extra & {"httpx", "tenacity", "psutil", "huggingface_hub", "xllamacpp", "openai", "transformers"}
    lazy = set(run(modules.format("import langchain_localllama")).split())
    assert "langchain_core.language_models.chat_models" not in lazy


def test_the_class_alone_is_public() -> None:
    assert langchain_localllama.__all__ == ["ChatLocalLlama"]
    assert "ChatLocalLlama" in dir(langchain_localllama)
    with pytest.raises(AttributeError, match="ChatLocalLama"):
        _ = langchain_localllama.ChatLocalLama
