"""Bodies as llama-server takes them; that it does is tested on a real server in `transports/test_real_server.py`."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from localllama import (
    AudioPart,
    ChatRequest,
    ConfigurationError,
    ImagePart,
    Message,
    SamplingSettings,
    TextPart,
    ToolCall,
    ToolSpec,
)
from localllama._protocol.request import build_chat_body, build_completion_body, encode_body, wire_messages

HELLO = (Message("user", "hello"),)
GET = ToolSpec("get", "Gets.", {"type": "object", "properties": {"x": {"type": "integer"}}})
PUT = ToolSpec("put")
STREAM_FIELDS = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}


def chat(request: ChatRequest | None = None, **sampling: Any) -> dict[str, Any]:
    return build_chat_body(request or ChatRequest(HELLO), SamplingSettings.build(sampling))


def test_the_least_body() -> None:
    assert chat() == {"messages": [{"role": "user", "content": "hello"}], **STREAM_FIELDS}
    assert build_chat_body(ChatRequest(HELLO), SamplingSettings(), stream=False) == {
        "messages": [{"role": "user", "content": "hello"}]
    }


def test_every_setting_is_sent_under_its_name() -> None:
    values: dict[str, Any] = {
        "temperature": 0.5, "top_k": 1, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.9, "top_n_sigma": 1.0,
        "xtc_probability": 0.1, "xtc_threshold": 0.1, "dynatemp_range": 0.1, "dynatemp_exponent": 1.0, "repeat_last_n": 3,
        "repeat_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": 0.1, "dry_multiplier": 0.1, "dry_base": 1.5,
        "dry_allowed_length": 2, "dry_penalty_last_n": 3, "mirostat": 2, "mirostat_tau": 5.0, "mirostat_eta": 0.1,
        "min_keep": 1, "seed": 7, "logit_bias": {"5": 1.0}, "ignore_eos": True, "grammar": 'root ::= "a"',
        "cache_prompt": False, "id_slot": 0, "n_keep": 1, "t_max_predict_ms": 100, "timings_per_token": True, "max_tokens": 9,
    }  # fmt: skip
    lists: dict[str, Any] = {"stop": ["x"], "samplers": ["top_k"], "dry_sequence_breakers": ["\n"], "lora": [{"id": 0, "scale": 0.5}]}  # fmt: skip
    body = chat(**values, **{name: tuple(value) for name, value in lists.items()})
    assert body == {"messages": [{"role": "user", "content": "hello"}], **STREAM_FIELDS, **values, **lists}
    covered = set(values) | set(lists) | {"logprobs", "top_logprobs", "json_schema", "chat_template_kwargs"}
    covered |= {"reasoning", "reasoning_budget", "extra_body"}
    assert covered == set(SamplingSettings.model_fields), "a new setting needs a line here"


def test_json_schema() -> None:
    assert chat(json_schema={"type": "integer"})["json_schema"] == {"type": "integer"}


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({}, {}),
        ({"logprobs": False}, {}),
        ({"logprobs": False, "top_logprobs": 3}, {}),
        ({"logprobs": True}, {"logprobs": True, "top_logprobs": 1}),
        ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"top_logprobs": 0}, {"logprobs": True, "top_logprobs": 1}),
    ],
)
def test_logprobs(sampling: dict[str, Any], expected: dict[str, Any]) -> None:
    body = chat(**sampling)
    assert {name: body[name] for name in ("logprobs", "top_logprobs") if name in body} == expected


def test_reasoning() -> None:
    assert chat(reasoning="off")["chat_template_kwargs"] == {"enable_thinking": False}
    assert chat(reasoning="on", chat_template_kwargs={"a": 1})["chat_template_kwargs"] == {
        "enable_thinking": True,
        "a": 1,
    }
    assert "chat_template_kwargs" not in chat(reasoning="auto")
    assert chat(reasoning_budget=5)["reasoning_budget_tokens"] == 5


def test_extra_body_comes_last_and_wins() -> None:
    body = chat(temperature=0.5, extra_body={"temperature": 1, "n": 2, "return_progress": None})
    assert (body["temperature"], body["n"], "return_progress" in body) == (1, 2, False)


@pytest.mark.parametrize("key", ["stream", "messages"])
def test_extra_body_must_not_break_the_call(key: str) -> None:
    with pytest.raises(ConfigurationError, match=key):
        chat(extra_body={key: False})


def test_messages() -> None:
    messages = (
        Message("system", "s"),
        Message("user", (TextPart("look"), ImagePart("AAAA", "image/jpeg"), AudioPart("BBBB", "mp3")), name="ada"),
        Message("assistant", "", tool_calls=(ToolCall("id1", "get", '{"x":1}'), ToolCall("id2", "put", ""))),
        Message("tool", "1", tool_call_id="id1", name="get"),
        Message("assistant", "done", reasoning="hm"),
        Message("user", ()),
    )
    assert chat(ChatRequest(messages))["messages"] == [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "name": "ada",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}},
                {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "mp3"}},
            ],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "id1", "type": "function", "function": {"name": "get", "arguments": '{"x":1}'}},
                {"id": "id2", "type": "function", "function": {"name": "put", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "content": "1", "tool_call_id": "id1", "name": "get"},
        {"role": "assistant", "content": "done", "reasoning_content": "hm"},
        {"role": "user", "content": ""},
    ]


def test_no_messages() -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        chat(ChatRequest(()))


@pytest.mark.parametrize(
    "message",
    [
        Message("user", "secret \ud800"),
        Message("user", (TextPart("secret \udfff"),)),
        Message("assistant", "", reasoning="secret \ud800"),
        Message("assistant", "", tool_calls=(ToolCall("a", "f", '"secret \ud800"'),)),
    ],
)
def test_a_lone_surrogate_is_refused_by_the_place_of_its_message(message: Message) -> None:
    with pytest.raises(ConfigurationError, match=r"message 1 .*surrogate") as caught:
        chat(ChatRequest((*HELLO, message)))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_tools() -> None:
    body = chat(ChatRequest(HELLO, tools=(GET, PUT), parallel_tool_calls=False))
    assert body["tools"] == [
        {"type": "function", "function": {"name": "get", "description": "Gets.", "parameters": dict(GET.parameters)}},
        {"type": "function", "function": {"name": "put", "description": "", "parameters": {"type": "object", "properties": {}}}},
    ]  # fmt: skip
    assert body["parallel_tool_calls"] is False
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("choice", "names", "sent"),
    [
        (None, ["get", "put"], None),
        ("auto", ["get", "put"], "auto"),
        ("required", ["get", "put"], "required"),
        ("put", ["put"], "required"),
        ("none", None, None),
    ],
)
def test_tool_choice(choice: str | None, names: list[str] | None, sent: str | None) -> None:
    body = chat(ChatRequest(HELLO, tools=(GET, PUT), tool_choice=choice))
    tools = body.get("tools")
    assert (tools and [tool["function"]["name"] for tool in tools]) == names
    assert body.get("tool_choice") == sent


@pytest.mark.parametrize(("tools", "choice"), [((GET,), "unknown"), ((), "required"), ((), "get")])
def test_a_choice_without_its_tool_is_refused(tools: tuple[ToolSpec, ...], choice: str) -> None:
    with pytest.raises(ConfigurationError, match=choice):
        chat(ChatRequest(HELLO, tools=tools, tool_choice=choice))


def test_response_format_is_sent_as_it_is() -> None:
    assert chat(ChatRequest(HELLO, response_format={"type": "json_object"}))["response_format"] == {
        "type": "json_object"
    }


def test_inputs_are_not_changed() -> None:
    extra = {"chat_template_kwargs": None, "n": 1}
    kwargs = {"a": 1}
    settings = SamplingSettings(extra_body=extra, chat_template_kwargs=kwargs, reasoning="on")
    build_chat_body(ChatRequest(HELLO), settings)
    assert (extra, kwargs) == ({"chat_template_kwargs": None, "n": 1}, {"a": 1})


def test_completion() -> None:
    settings = SamplingSettings(
        max_tokens=5, stop=("x",), top_logprobs=2, reasoning="off", chat_template_kwargs={"a": 1}, extra_body={"n_probs": 4}
    )  # fmt: skip
    assert build_completion_body("raw", settings) == {
        "prompt": "raw",
        "stream": True,
        "return_progress": True,
        "n_predict": 5,
        "stop": ["x"],
        "n_probs": 4,
    }
    with pytest.raises(ConfigurationError, match="prompt"):
        build_completion_body("raw", SamplingSettings(extra_body={"prompt": "other"}))
    with pytest.raises(ConfigurationError, match="surrogate"):
        build_completion_body("\ud800", SamplingSettings())


def test_encoding() -> None:
    data = encode_body({"a": "é\u2028😀"})
    assert data == '{"a":"é\u2028😀"}'.encode()
    assert json.loads(data) == {"a": "é\u2028😀"}


@pytest.mark.parametrize("value", ["secret \ud800", math.nan, math.inf, object(), {1, 2}])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="JSON") as caught:
        encode_body({"extra": value})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "5", '{"a": NaN}', "add(1, 2)"])
def test_malformed_arguments_in_the_history_are_quoted(arguments: str) -> None:
    (message,) = wire_messages([Message("assistant", tool_calls=(ToolCall("1", "f", arguments),))])
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"malformed_arguments": arguments}


def test_a_raw_completion_is_sent_a_schema_as_its_grammar_and_a_wish_for_probabilities() -> None:
    sampling = SamplingSettings.build({"json_schema": {"const": 7}, "logprobs": True})
    body = build_completion_body("Once", sampling)
    assert "json_schema" not in body
    assert '"7"' in body["grammar"]
    assert body["n_probs"] == 1
    assert build_completion_body("Once", SamplingSettings.build({"logprobs": True, "top_logprobs": 4}))["n_probs"] == 4
    assert "n_probs" not in build_completion_body("Once", SamplingSettings.build({"logprobs": False}))


def test_what_is_no_part_of_a_message_is_refused() -> None:
    content: Any = (TextPart("a"), b"bytes")
    with pytest.raises(ConfigurationError, match="a bytes is not a part"):
        wire_messages([Message("user", content)])
