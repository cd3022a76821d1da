"""Fixtures of the LlamaIndex tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import llama_index.core
import pytest
from llama_index.core import Settings

from llamaindex.contract import RecordedEvents, recording_events
from llamaindex_localllama import LocalLlama
from support.scripted_server import ScriptedServer, scripted_server


@pytest.fixture(autouse=True)
def settings_as_before() -> Iterator[None]:
    """The global settings of LlamaIndex, put back after each test, whatever it set and in whatever order they run."""
    before = dict(vars(Settings))
    tokenizer = llama_index.core.global_tokenizer
    yield
    vars(Settings).clear()
    vars(Settings).update(before)
    llama_index.core.global_tokenizer = tokenizer


@pytest.fixture
def recorded_events() -> Iterator[RecordedEvents]:
    with recording_events() as events:
        yield events


@pytest.fixture
def script() -> Iterator[ScriptedServer]:
    with scripted_server() as script:
        yield script


@pytest.fixture
def scripted_llm(script: ScriptedServer) -> Iterator[LocalLlama]:
    with LocalLlama(base_url=script.url) as llm:
        yield llm


@pytest.fixture
def micro_llm(micro_model: Path) -> Iterator[LocalLlama]:
    with LocalLlama(model=str(micro_model), n_ctx=1024, max_tokens=24, seed=1) as llm:
        yield llm
