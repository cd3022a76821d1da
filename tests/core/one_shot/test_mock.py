"""The mock: only where it is allowed, and it says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localllama import (
    ChatRequest,
    ConfigurationError,
    LocalLlamaClient,
    LocalLlamaError,
    LocalLlamaWarning,
    Message,
    SamplingSettings,
    ServerSettings,
    ToolSpec,
)
from localllama._runtime import resolve

HELLO = ChatRequest((Message("user", "Hello there"),))
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 4}}, "required": ["n"]}


def test_it_is_refused_where_it_is_not_allowed(micro_model: Path) -> None:
    with LocalLlamaClient(ServerSettings(model=str(micro_model), runtime="mock")) as client:
        with pytest.raises(ConfigurationError, match="allow_mock"):
            client.start()


def test_it_needs_no_model_streams_and_says_what_it_is() -> None:
    with LocalLlamaClient(ServerSettings(model="no-such-model", runtime="mock", allow_mock=True)) as client:
        with pytest.warns(LocalLlamaWarning, match="come from the mock"):
            first = client.chat(HELLO)
        chunks = [chunk.text for chunk in client.stream_chat(HELLO) if chunk.text]
        assert "mock" in first.text
        assert "Hello there" in first.text
        assert len(chunks) > 3
        assert "".join(chunks) == first.text
        assert first.model == "mock of no-such-model"
        assert first.system_fingerprint == "mock"
        assert first.usage is not None
        assert first.usage.is_estimated


def test_it_obeys_schemas_and_tools() -> None:
    form = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    tool = ToolSpec("count", "Counts", SCHEMA)
    settings = ServerSettings(model="any", runtime="mock", allow_mock=True)
    with LocalLlamaClient(settings) as client:
        assert json.loads(client.chat(ChatRequest(HELLO.messages, response_format=form)).text)["n"] >= 4
        call = client.chat(ChatRequest(HELLO.messages, tools=(tool,), tool_choice="required")).tool_calls[0]
    assert call.name == "count"
    assert json.loads(call.arguments)["n"] >= 4


def test_it_refuses_a_grammar() -> None:
    settings = ServerSettings(model="any", runtime="mock", allow_mock=True)
    with (
        LocalLlamaClient(settings) as client,
        pytest.raises(LocalLlamaError, match="the mock cannot do this: a grammar"),
    ):
        client.chat(HELLO, sampling=SamplingSettings(grammar='root ::= "a"'))


def test_it_is_the_last_rung(micro_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_PREFIXES", ())
    monkeypatch.setattr(resolve, "_library_directory", lambda: None)
    monkeypatch.setenv("PATH", "")
    with LocalLlamaClient(ServerSettings(model=str(micro_model), allow_mock=True)) as client:
        assert "mock" in client.chat(HELLO).text
