"""Answers of a fixed form that do not come: the grammar is refused, the window is full, or there are words in their place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from localllama import (
    BadRequestError,
    ChatRequest,
    LocalLlamaClient,
    MalformedResponseError,
    Message,
    StructuredOutputError,
    ToolSpec,
)
from support.scripted_server import ScriptedServer

SCHEMA = {"type": "object", "properties": {"n": {"type": "number", "minimum": 0, "maximum": 5}}, "required": ["n"]}
ASK = ChatRequest(
    (Message("user", "A number?"),), response_format={"type": "json_schema", "json_schema": {"schema": SCHEMA}}
)
ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
PING = ToolSpec("ping", "Takes nothing.")


def says(text: str) -> list[dict[str, Any]]:
    return [{"content": text}]


def test_words_instead_of_a_choice_that_had_to_be_made_are_an_error(
    script: ScriptedServer, client: LocalLlamaClient
) -> None:
    refusal = {"error": {"code": 400, "message": "failed to parse grammar", "type": "invalid_request_error"}}
    script.answers = [refusal, refusal, says("{}")]
    request = ChatRequest((Message("user", "1?"),), tools=(ADD, PING), tool_choice="required")
    with pytest.raises(StructuredOutputError):
        client.chat(request)
    script.answers = [refusal, refusal, says("{}")]
    assert client.chat(replace(request, on_invalid="return")).tool_calls == ()


def test_a_grammar_of_one_tool_that_is_refused_each_time_is_an_error(
    script: ScriptedServer, client: LocalLlamaClient
) -> None:
    refusal = {"error": {"code": 400, "message": "failed to parse grammar", "type": "invalid_request_error"}}
    script.answers = [refusal, refusal]
    with pytest.raises(BadRequestError, match="failed to parse grammar"):
        client.chat(ChatRequest((Message("user", "1?"),), tools=(ADD,), tool_choice="required"))
    assert script.paths == ["/v1/chat/completions", "/completion"]


def test_a_repair_that_does_not_fit_the_window_leaves_the_fault_that_was_to_be_repaired(
    script: ScriptedServer, client: LocalLlamaClient
) -> None:
    overflow = {
        "code": 400,
        "message": "too long",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 9,
        "n_ctx": 8,
    }
    script.answers = [says('{"n": 7.5}'), {"error": overflow}]
    with pytest.raises(StructuredOutputError, match="at most 5"):
        client.chat(ASK)


def test_words_where_an_envelope_belongs_are_asked_for_again_without_the_parser_of_the_template(
    script: ScriptedServer, client: LocalLlamaClient
) -> None:
    script.answers = [says("Sure, I add."), says('{"name": "add", "arguments": {"a": 2}}')]
    request = ChatRequest((Message("user", "1?"),), tools=(ADD,), tool_choice="required")
    (call,) = client.chat(request).tool_calls
    assert (call.name, call.arguments) == ("add", '{"a": 2}')
    assert script.paths == ["/v1/chat/completions", "/completion"]
    script.answers = [says("Sure.")]
    with pytest.raises(MalformedResponseError, match="JSON"):
        client.chat(request)
