"""Answers of a fixed form: checked, repaired once, and never anything else; as a user of the clients sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from localllama import (
    AsyncLocalLlamaClient,
    BadRequestError,
    ChatRequest,
    ConfigurationError,
    LengthLimitError,
    LocalLlamaClient,
    Message,
    SamplingSettings,
    ServerSettings,
    StructuredOutputError,
    ToolCall,
    ToolSpec,
    Usage,
)
from support.gbnf_reading import Grammar
from support.scripted_server import ScriptedServer

MakeSettings = Callable[..., ServerSettings]
TWO_ANSWERS = Usage(22, 14, 36, cached_tokens=6)  # the server says the same of each: 11 and 7 tokens, 3 of them cached

SCHEMA = {"type": "object", "properties": {"n": {"type": "number", "minimum": 0, "maximum": 5}}, "required": ["n"]}
ASK = ChatRequest(
    (Message("user", "A number?"),), response_format={"type": "json_schema", "json_schema": {"schema": SCHEMA}}
)
ADD = ToolSpec(
    "add",
    "Adds.",
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 5}}, "required": ["a"]},
)
PING = ToolSpec("ping", "Takes nothing.")


def says(text: str) -> list[dict[str, Any]]:
    return [{"content": text}]


def test_a_right_answer_in_a_code_fence_is_right(script: ScriptedServer, client: LocalLlamaClient) -> None:
    """A server at base_url may know no grammar, and many models fence all JSON."""
    script.deltas = says('\n```json\n{"n": 2}\n```\n')
    assert client.chat(ASK).text == '{"n": 2}'
    assert client.chat(ChatRequest(ASK.messages)).text == '\n```json\n{"n": 2}\n```\n', "no form was asked for"
    assert len(script.requests) == 2


def test_an_answer_that_breaks_its_schema_is_repaired_once(script: ScriptedServer, client: LocalLlamaClient) -> None:
    script.answers = [says('{"n": 7.5}'), says('{"n": 2}')]
    result = client.chat(ASK)
    assert result.text == '{"n": 2}'
    assert result.usage == TWO_ANSWERS
    *_, question, wrong, told = script.requests[1]["messages"]
    assert (question["content"], wrong) == ("A number?", {"role": "assistant", "content": '{"n": 7.5}'})
    assert "at most 5" in told["content"]


def test_then_it_is_an_error_with_the_text(script: ScriptedServer, client: LocalLlamaClient) -> None:
    script.deltas = says('{"n": 7.5}')
    with pytest.raises(StructuredOutputError, match="at most 5") as caught:
        client.chat(ASK)
    assert len(script.requests) == 2
    assert caught.value.raw_text == '{"n": 7.5}'
    assert caught.value.violations == ("/n: 7.5 is too large; it must be at most 5",)
    assert caught.value.result is not None


def test_any_object_is_an_object(script: ScriptedServer, client: LocalLlamaClient) -> None:
    script.deltas = says("[1, 2]")
    with pytest.raises(StructuredOutputError, match="object"):
        client.chat(replace(ASK, response_format={"type": "json_object"}))


def test_a_stream_is_shown_and_judged_at_its_end(script: ScriptedServer, client: LocalLlamaClient) -> None:
    script.deltas = says('{"n": 7.5}')
    seen = []
    with pytest.raises(StructuredOutputError), client.stream_chat(ASK) as stream:
        seen += [chunk.text for chunk in stream]
    assert len(script.requests) == 1
    from dataclasses import replace

    with client.stream_chat(replace(ASK, on_invalid="return")) as stream:
        assert "".join(chunk.text for chunk in stream) == '{"n": 7.5}'
    assert client.chat(replace(ASK, on_invalid="return", max_repairs=0)).text == '{"n": 7.5}'


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_cut_answer_says_so_with_the_numbers(
    script: ScriptedServer, client: LocalLlamaClient, is_streamed: bool
) -> None:
    script.deltas, script.finish_reason = says('{"n": '), "length"
    with pytest.raises(LengthLimitError, match="max_tokens=500, n_ctx=4096") as caught:
        list(client.stream_chat(ASK)) if is_streamed else client.chat(ASK)
    error = caught.value
    assert (error.max_tokens, error.n_ctx, error.is_spent_on_thinking, error.raw_text) == (500, 4096, False, '{"n": ')


def test_a_cut_answer_that_was_asked_for_again_counts_the_last_attempt_beside_the_limits(
    script: ScriptedServer, client: LocalLlamaClient
) -> None:
    script.deltas, script.finish_reason = says('{"s": "on and on'), "length"
    script.usage = {"prompt_tokens": 11, "completion_tokens": 500, "total_tokens": 511}
    schema = {"type": "object", "properties": {"s": {"type": "string"}}, "required": ["s"]}
    request = replace(ASK, response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    with pytest.raises(LengthLimitError, match=r"cut after 500 tokens .*, 11 of the window") as caught:
        client.chat(request)
    assert len(script.requests) == 2
    assert caught.value.result is not None
    assert caught.value.result.usage is not None
    assert caught.value.result.usage.total_tokens == 2 * 511


def test_several_calls_in_one_envelope_are_several(script: ScriptedServer, client: LocalLlamaClient) -> None:
    envelope = '[{"name": "add", "arguments": {"a": 1}}, {"name": "ping", "arguments": {}}, {"name": "add", "arguments": {"a": 2}}]'
    script.deltas = [{"content": character} for character in envelope]
    request = ChatRequest((Message("user", "1?"),), tools=(ADD, PING), tool_choice="required", parallel_tool_calls=True)
    with client.stream_chat(request) as stream:
        chunks = list(stream)
        result = stream.result()
    expected = [("add", '{"a": 1}'), ("ping", "{}"), ("add", '{"a": 2}')]
    assert [(call.name, call.arguments) for call in result.tool_calls] == expected
    assert len({call.id for call in result.tool_calls}) == 3
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    assert [(delta.index, delta.name) for delta in deltas if delta.name] == [(0, "add"), (1, "ping"), (2, "add")]


def test_the_object_beside_tools_is_the_text(script: ScriptedServer, client: LocalLlamaClient) -> None:
    script.deltas = [{"content": character} for character in '{"result": {"n": 2}}']
    request = replace(ASK, tools=(ADD, PING))
    result = client.chat(request)
    assert (result.text, result.tool_calls, result.finish_reason) == ('{"n": 2}', (), "stop")
    assert "".join(chunk.text for chunk in client.stream_chat(request)) == '{"n": 2}'


def test_a_leaked_call_is_a_call_and_leaves_the_text(script: ScriptedServer, client: LocalLlamaClient) -> None:
    script.deltas = [{"content": piece} for piece in ("Sure.\n", '{"name": "add", "argu', 'ments": {"a": 1}}')]
    request = ChatRequest((Message("user", "1?"),), tools=(ADD,))
    result = client.chat(request)
    assert (result.text, result.finish_reason) == ("Sure.\n", "tool_calls")
    assert [(call.name, call.arguments) for call in result.tool_calls] == [("add", '{"a": 1}')]
    from dataclasses import replace

    assert client.chat(replace(request, finds_leaked_calls=False)).tool_calls == ()


def test_a_leaked_call_beside_one_of_the_server(script: ScriptedServer, client: LocalLlamaClient) -> None:
    call = {"index": 0, "id": "x", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
    script.deltas = [{"content": '{"name": "add", "arguments": {"a": 1}}\n\nSo.'}, {"tool_calls": [call]}]
    result = client.chat(ChatRequest((Message("user", "1?"),), tools=(ADD, PING)))
    assert [call.name for call in result.tool_calls] == ["add", "ping"]
    assert result.text == "So."


# -- on a real server -------------------------------------------------------------------------------------------------

CASES: list[tuple[str, dict[str, Any]]] = [
    ("named", {"tools": (ADD, PING), "tool_choice": "add"}),
    ("required", {"tools": (ADD, PING), "tool_choice": "required"}),
    ("parallel", {"tools": (ADD, PING), "tool_choice": "required", "parallel_tool_calls": True}),
    ("nothing to give", {"tools": (PING,), "tool_choice": "ping"}),
]


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n"])
def test_a_call_that_must_happen_happens(make_settings: MakeSettings, template: str | None) -> None:
    settings = make_settings(chat_template=template) if template else make_settings()
    sampling = SamplingSettings(temperature=1.0, seed=3, max_tokens=600)
    with LocalLlamaClient(settings, sampling=sampling) as client:
        for _, fields in CASES:
            request = ChatRequest((Message("user", "Go."),), **fields)
            with client.stream_chat(request) as stream:
                streamed = list(stream)
                for result in (
                    client.chat(request),
                    stream.result(),
                    asyncio.run(_async_chat(settings, request, sampling)),
                ):
                    _assert_valid(result.tool_calls, fields["tools"])
                    assert result.finish_reason == "tool_calls"
            first = next(delta for chunk in streamed for delta in chunk.tool_calls)
            assert first.id
            assert first.name


BREAKS_ON_TOOLS = (
    # As templates do that write schemas out in the words of their model: a type that they do not know is an error.
    "{% for tool in tools or [] %}{{ 'TOOL ' + tool.function.name }}"
    "{% for p in tool.function.parameters.properties.values() %}{% if p.type in ('number', 'integer') %}n{% endif %}{% endfor %}"
    "{% endfor %}{% for m in messages %}{{ m.role + ':' + (m.content or '') }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name + (c.function.arguments | tojson) }}{% endfor %}{% endfor %}"
)


def test_tools_that_the_template_breaks_on_go_into_our_prompt(make_settings: MakeSettings) -> None:
    union = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    odd = ToolSpec("odd", "", {"type": "object", "properties": {"a": union}, "required": ["a"]})
    sampling = SamplingSettings(temperature=1.0, seed=3, max_tokens=300)
    settings = make_settings(chat_template=BREAKS_ON_TOOLS)
    with LocalLlamaClient(settings, sampling=sampling) as client:
        shown = ChatRequest((Message("user", "Go."),), tools=(ADD,))
        assert "TOOL add" in client.render_prompt(shown)
        for choice in ("required", "odd"):
            request = ChatRequest((Message("user", "Go."),), tools=(ADD, odd), tool_choice=choice)
            _assert_valid(client.chat(request).tool_calls, (ADD, odd))
            _assert_valid(asyncio.run(_async_chat(settings, request, sampling)).tool_calls, (ADD, odd))
        free = ChatRequest((Message("user", "Go."),), tools=(odd,))
        assert client.chat(free).usage is not None
        fresh = ToolSpec("fresh", "", odd.parameters)
        assert '"fresh"' in client.render_prompt(replace(free, tools=(fresh,)))
        assert client.count_tokens(replace(free, tools=(replace(fresh, name="fresh2"),))) > client.count_tokens(
            replace(free, tools=())
        )
        # Other tools are shown as before.
        assert "TOOL add" in client.render_prompt(shown)


async def _async_chat(settings: ServerSettings, request: ChatRequest, sampling: SamplingSettings) -> Any:
    client = AsyncLocalLlamaClient(settings, sampling=sampling)
    try:
        return await client.chat(request)
    finally:
        await client.aclose()


def _assert_valid(calls: tuple[ToolCall, ...], tools: tuple[ToolSpec, ...]) -> None:
    assert calls
    schemas = {tool.name: dict(tool.parameters) for tool in tools}
    for call in calls:
        arguments = json.loads(call.arguments)
        jsonschema.validate(arguments, schemas[call.name])
        assert call.name != "ping" or arguments == {}


def test_the_thinking_leaves_room_for_the_answer(make_settings: MakeSettings) -> None:
    settings = make_settings(chat_template="{% for m in messages %}{{ m.content }}{% endfor %}<think>\n")
    with LocalLlamaClient(settings, sampling=SamplingSettings(max_tokens=200, seed=1)) as client:
        assert 0 <= json.loads(client.chat(ASK).text)["n"] <= 5


def test_the_prompt_of_the_tools_is_cached_in_a_loop_of_ten_steps(make_settings: MakeSettings) -> None:
    messages: tuple[Message, ...] = (Message("user", "Go."),)
    with LocalLlamaClient(make_settings(), sampling=SamplingSettings(max_tokens=400, seed=5)) as client:
        before = 0
        for step in range(10):
            request = ChatRequest(messages, tools=(ADD, PING), tool_choice="required")
            result = client.chat(request)
            assert result.timings is not None
            # The call is written anew into the history, so it is not cached; all that was prompt before is.
            assert result.timings.cache_n >= before - 1, step
            before = result.timings.cache_n + result.timings.prompt_n
            call = result.tool_calls[0]
            messages += (Message("assistant", tool_calls=(call,)), Message("tool", "Done.", tool_call_id=call.id))


def test_arguments_of_20_kb_are_whole(script: ScriptedServer, client: LocalLlamaClient) -> None:
    write = ToolSpec("write", "", {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})
    text = json.dumps({"name": "write", "arguments": {"text": "line \\n" * 4000}})
    script.deltas = [{"content": text[start : start + 7]} for start in range(0, len(text), 7)]
    result = client.chat(ChatRequest((Message("user", "1?"),), tools=(write,), tool_choice="write"))
    assert len(json.loads(result.tool_calls[0].arguments)["text"]) > 20_000


# -- numbers ----------------------------------------------------------------------------------------------------------

FREE = ChatRequest(
    ASK.messages,
    response_format={
        "type": "json_schema",
        "json_schema": {"schema": {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}},
    },
)


@pytest.mark.parametrize("number", ["1e4807", "-1E+999", "9" * 400], ids=["exponent", "negative", "integer"])
def test_a_number_that_no_double_holds_is_repaired_under_a_grammar_with_an_end(
    script: ScriptedServer, client: LocalLlamaClient, number: str
) -> None:
    script.answers = [says(f'{{"n": {number}}}'), says('{"n": 18446744073709551616}')]
    assert json.loads(client.chat(FREE).text) == {"n": 2**64}
    assert script.paths == ["/v1/chat/completions", "/completion"]
    assert "is too large" in script.requests[-1]["prompt"]
    repair = Grammar(script.requests[-1]["grammar"])
    assert repair.accepts('{"n": 18446744073709551616}')
    assert not repair.accepts(f'{{"n": {number}}}')


def test_a_number_that_no_double_holds_is_never_an_answer(script: ScriptedServer, client: LocalLlamaClient) -> None:
    script.answers = [says('{"n": 1e999}')]
    with pytest.raises(StructuredOutputError, match="1e999 is too large"):
        list(client.stream_chat(FREE))
    call = ToolSpec("put", "", {"type": "object", "properties": {"n": {"type": "integer"}}})
    script.answers = [says(f'{{"name": "put", "arguments": {{"n": {"7" * 5000}}}}}')] * 2
    with pytest.raises(StructuredOutputError, match=r"777\.\.\. \(5000 characters\) is too large"):
        client.chat(ChatRequest(ASK.messages, tools=(call,), tool_choice="put"))


def test_digits_without_an_end_are_asked_for_again_under_a_grammar_with_one(
    script: ScriptedServer, client: LocalLlamaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localllama._chat_call._FEWEST_TOKENS", 1)  # the script counts 7 tokens for any answer
    script.answers = [says('{"n": 0.' + "3" * 300), says('{"n": 0.3}')]
    script.finish_reason = "length"
    assert client.chat(FREE, sampling=SamplingSettings(max_tokens=300)).text == '{"n": 0.3}'
    assert script.paths[-1] == "/completion"


# -- two forms at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingSettings(grammar='root ::= "a"'),
        SamplingSettings(json_schema={"const": 1}),
        SamplingSettings(extra_body={"grammar": 'root ::= "a"'}),
    ],
)
@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (ChatRequest(ASK.messages, tools=(ADD,)), "tools"),
        (ChatRequest(ASK.messages, tools=(ADD,), tool_choice="add"), "tools"),
        (ASK, "response_format"),
        (replace(ASK, tools=(ADD,), tool_choice="none"), "response_format"),
        (ChatRequest(ASK.messages, response_format={"type": "json_object"}), "response_format"),
    ],
)
def test_a_grammar_beside_tools_or_a_schema_is_refused_before_anything_starts(
    sampling: SamplingSettings, request_: ChatRequest, named: str
) -> None:
    with LocalLlamaClient(ServerSettings(model="/nowhere/model.gguf")) as client:
        with pytest.raises(ConfigurationError, match=rf"(grammar|json_schema) and {named} both"):
            client.chat(request_, sampling=sampling)
        with pytest.raises(ConfigurationError, match=rf"(grammar|json_schema) and {named} both"):
            client.stream_chat(request_, sampling=sampling)


def test_a_grammar_is_sent_where_tools_may_not_be_called(script: ScriptedServer, client: LocalLlamaClient) -> None:
    script.answers = [says("a")]
    request = ChatRequest(ASK.messages, tools=(ADD,), tool_choice="none", response_format={"type": "text"})
    assert client.chat(request, sampling=SamplingSettings(grammar='root ::= "a"')).text == "a"
    assert script.requests[-1]["grammar"] == 'root ::= "a"'


# -- what llama.cpp refuses or drops ------------------------------------------------------------------------------------


def test_a_schema_does_without_the_parser_of_a_template_that_is_refused(
    script: ScriptedServer, client: LocalLlamaClient
) -> None:
    # As MiniMax-M1's template in b11549; its part of the grammar is what fails, whatever the schema.
    message = "Failed to initialize samplers: std::exception"
    refusal = {"error": {"code": 400, "message": message, "type": "invalid_request_error"}}
    script.answers = [refusal, says('{"n": 2}')]
    assert client.chat(ASK).text == '{"n": 2}'
    assert script.paths == ["/v1/chat/completions", "/completion"]
    assert script.requests[-1]["grammar"].startswith("root ::= ")
    # A schema that is the fault itself is refused twice, and other calls go on as before.
    script.answers = [refusal, refusal, says('{"n": 3}')]
    with pytest.raises(BadRequestError, match="samplers"):
        client.chat(ASK)
    assert client.chat(ASK).text == '{"n": 3}'
    assert script.paths[-1] == "/v1/chat/completions"


def test_where_the_grammar_of_many_tools_is_refused_the_name_comes_first(
    script: ScriptedServer, client: LocalLlamaClient
) -> None:
    refusal = {"error": {"code": 400, "message": "failed to parse grammar", "type": "invalid_request_error"}}
    script.answers = [refusal, refusal, says('{"name": "add"}'), says('{"name": "add", "arguments": {"a": 2}}')]
    request = ChatRequest((Message("user", "1?"),), tools=(ADD, PING), tool_choice="required")
    with client.stream_chat(request) as stream:
        chunks = list(stream)
        result = stream.result()
    assert [(call.name, call.arguments) for call in result.tool_calls] == [("add", '{"a": 2}')]
    assert [delta.name for chunk in chunks for delta in chunk.tool_calls if delta.name] == ["add"]
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["tool_calls"]
    assert [chunk.usage for chunk in chunks if chunk.usage] == [TWO_ANSWERS] == [result.usage]


def test_words_instead_of_a_choice_are_the_answer(script: ScriptedServer, client: LocalLlamaClient) -> None:
    refusal = {"error": {"code": 400, "message": "failed to parse grammar", "type": "invalid_request_error"}}
    script.answers = [refusal, refusal, refusal, says('{"answer": "No need."}')]
    with client.stream_chat(ChatRequest((Message("user", "1?"),), tools=(ADD, PING))) as stream:
        chunks = list(stream)
    assert "".join(chunk.text for chunk in chunks) == "No need."
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert sum(chunk.usage is not None for chunk in chunks) == 1


def test_calls_that_the_servers_parser_lost_are_read_from_the_raw_text(
    script: ScriptedServer, client: LocalLlamaClient
) -> None:
    lost = {"error": {"code": 500, "message": "The model produced output that does not match the expected peg-native format", "type": "server_error"}}  # fmt: skip
    request = ChatRequest((Message("user", "1?"),), tools=(ADD,))
    script.answers = [lost, says('<tool_call>{"name": "add", "arguments": {"a": 1}}')]
    result = client.chat(request)
    assert [(call.name, call.arguments) for call in result.tool_calls] == [("add", '{"a": 1}')]
    assert script.paths[-1] == "/completion"
    script.answers = [lost, says("<tool_call>{broken"), says('{"name": "add", "arguments": {"a": 1}}')]
    assert client.chat(request).tool_calls[0].name == "add"


# -- with a model that has some wits ----------------------------------------------------------------------------------


def test_a_model_without_tools_calls_one_and_then_answers_in_words(smollm2_model: Path) -> None:
    weather = ToolSpec(
        "get_weather",
        "Get the weather at a location.",
        {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    )
    settings = ServerSettings(model=str(smollm2_model), n_ctx=2048, n_threads=1)
    messages: tuple[Message, ...] = (Message("user", "What is the weather in San Francisco, CA?"),)
    with LocalLlamaClient(settings, sampling=SamplingSettings(temperature=0, max_tokens=120)) as client:
        (call,) = client.chat(ChatRequest(messages, tools=(weather,))).tool_calls
        assert "San Francisco" in json.loads(call.arguments)["location"]
        messages += (
            Message("assistant", tool_calls=(call,)),
            Message("tool", "It's sunny.", tool_call_id=call.id),
        )
        with client.stream_chat(ChatRequest(messages, tools=(weather,))) as stream:
            pieces = [chunk.text for chunk in stream if chunk.text]
        assert "sunny" in "".join(pieces)
        assert len(pieces) > 1
