"""What a call asks the server before it generates, and what a failure of it means; played through without a server."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

import pytest

from localllama import (
    BadRequestError,
    ChatRequest,
    ConfigurationError,
    Message,
    SamplingSettings,
    ServerInfo,
    TemplateCapabilities,
    TimeoutSettings,
    ToolSpec,
)
from localllama._call import CompletionCall, count_tokens, learn_server, planned
from localllama.errors import ChatTemplateError, ClientClosedError, EndpointNotFoundError
from localllama.types import ChatResult

ASK = ChatRequest((Message("user", "Hi"),))
LIST = {"type": "json_schema", "json_schema": {"schema": {"type": "array", "items": {"type": "null"}}}}
SHOWS_TOOLS = ServerInfo(n_ctx=4096, template=TemplateCapabilities(supports_tools=True, supports_tool_calls=True))
RENDERS = {"/apply-template": {"prompt": "<user>Hi"}}


def play(steps: Generator[Any, Any, Any], answers: dict[str, Any] | Callable[[str, Any], Any]) -> Any:
    """Answer each question of a generator, by its path or by a function; an exception is thrown into it."""
    answer: Any = None
    try:
        while True:
            _, path, body = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
            answer = answers[path] if isinstance(answers, dict) else answers(path, body)
    except StopIteration as end:
        return end.value


def test_a_server_that_says_nothing_about_itself_is_used_as_it_is() -> None:
    notes: dict[str, Any] = {}
    assert play(learn_server(notes), {"/props": EndpointNotFoundError("no such path")}) == ServerInfo(n_ctx=0)
    assert play(learn_server(notes), {}) == ServerInfo(n_ctx=0)  # asked once
    # Nothing is known of its window either, so what a schema leaves endless gets the usual ends.
    plan = play(planned(ChatRequest(ASK.messages, response_format=LIST), notes), RENDERS)
    assert plan.request.response_format["json_schema"]["schema"]["$defs"]["d1x"]["maxItems"] == 1000


def test_tokens_are_counted_by_the_prompt_where_no_endpoint_counts_them() -> None:
    answers = {
        "/v1/chat/completions/input_tokens": EndpointNotFoundError("no such path"),
        **RENDERS,
        "/tokenize": {"tokens": [1, 2, 3]},
    }
    assert play(count_tokens(ASK, {}), answers) == 3
    assert play(count_tokens(ASK, {}), {**RENDERS, "/v1/chat/completions/input_tokens": {"input_tokens": 5}}) == 5


def test_a_template_that_refuses_messages_without_tools_is_an_error_of_the_caller() -> None:
    fault = ChatTemplateError("While executing CallExpression: no system messages")
    with pytest.raises(ChatTemplateError, match="no system messages"):
        play(count_tokens(ASK, {}), {**RENDERS, "/v1/chat/completions/input_tokens": fault})


def test_tools_that_a_template_cannot_show_are_counted_in_our_own_prompt() -> None:
    asked: list[Any] = []

    def answer(path: str, body: Any) -> Any:
        asked.append((path, body))
        if body.get("tools"):
            return ChatTemplateError("While executing FilterExpression: unknown type")
        return RENDERS.get(path, {"input_tokens": 9})

    assert (
        play(count_tokens(ChatRequest(ASK.messages, tools=(ToolSpec("ping"),)), {"server_info": SHOWS_TOOLS}), answer)
        == 9
    )
    assert any(body.get("tools") for _, body in asked)
    assert "# Tools" in str(asked[-1][1]["messages"])


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="prompt is empty"):
        CompletionCall("", SamplingSettings(), TimeoutSettings())


def test_a_call_that_failed_before_it_began_has_nothing_and_its_failure_is_told() -> None:
    call = CompletionCall("Once", SamplingSettings(), TimeoutSettings())
    call.note_speed()
    assert (call.result(), call.has_begun, call.held()) == (ChatResult(), False, ())
    refusal = BadRequestError("no such grammar")
    connection: Any = SimpleNamespace(is_closed=False)
    with pytest.raises(BadRequestError) as caught:
        call.after_failure(refusal, connection, connection)
    assert caught.value is refusal
    connection.is_closed = True
    with pytest.raises(ClientClosedError, match="closed while"):
        call.after_failure(refusal, connection, connection)
