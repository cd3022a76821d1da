"""The protocol and the transport on a real llama.cpp server with the micro model."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.transports.conftest import CHAT, Twin
from localllama import (
    BadRequestError,
    ChatRequest,
    ChatTemplateError,
    ContextOverflowError,
    EndpointNotFoundError,
    FeatureDisabledError,
    ImagePart,
    LocalLlamaError,
    Message,
    RequestTimeoutError,
    SamplingSettings,
    TextPart,
    TimeoutSettings,
    ToolCall,
    ToolSpec,
)
from localllama._protocol.adapt import adapt_messages
from localllama._protocol.capabilities import parse_props
from localllama._protocol.request import build_chat_body, build_completion_body
from localllama._protocol.rewrite import Rewriting
from localllama._protocol.stream import ChatStreamParser, CompletionStreamParser
from localllama._transports.http import AsyncHTTPTransport, HTTPTransport
from localllama.types import Endpoint
from support.bare_server import bare_server
from support.waiting import wait_until

LIMITS = TimeoutSettings(total_seconds=60)
HELLO = ChatRequest((Message("user", "hello"),))


@pytest.fixture(scope="module")
def endpoint(micro_model: Path) -> Iterator[Endpoint]:
    with tempfile.TemporaryDirectory() as directory, bare_server(Path(directory), micro_model, parallel=2) as server:
        yield server


def is_processing(endpoint: Endpoint) -> list[bool]:
    slots = HTTPTransport(endpoint).get_json("/slots", LIMITS)
    return [slot["is_processing"] for slot in slots]


def body(request: ChatRequest = HELLO, **sampling: Any) -> dict[str, Any]:
    return build_chat_body(request, SamplingSettings.build(sampling))


def test_chat(twin: Twin, endpoint: Endpoint) -> None:
    parser = ChatStreamParser()
    chunks, error = twin.stream(endpoint, parser=parser, body=body(max_tokens=5, top_logprobs=2))
    assert error is None
    result = parser.result()
    assert result.finish_reason == "length"
    assert result.usage is not None
    assert result.usage.completion_tokens == 5 == len(result.logprobs)
    assert all(len(entry.top) == 2 for entry in result.logprobs)
    assert result.timings is not None
    assert result.timings.predicted_n == 5
    assert result.model == "micro"
    assert chunks[0].progress is not None
    assert sum(item.usage is not None for item in chunks) == 1


def test_completion(twin: Twin, endpoint: Endpoint) -> None:
    parser = CompletionStreamParser()
    settings = SamplingSettings(max_tokens=5, top_logprobs=2, temperature=0)
    _, error = twin.stream(endpoint, parser=parser, body=build_completion_body("hello", settings), path="/completion")
    assert error is None
    result = parser.result()
    assert (result.finish_reason, len(result.logprobs)) == ("length", 5)
    assert result.usage is not None
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (6, 5)


def test_two_choices(endpoint: Endpoint) -> None:
    parser = ChatStreamParser()
    list(HTTPTransport(endpoint).stream(CHAT, body(max_tokens=5, extra_body={"n": 2}), parser, LIMITS))
    results = parser.results()
    assert [one.finish_reason for one in results] == ["length", "length"]
    assert all(one.text for one in results)


def test_every_setting_is_accepted(endpoint: Endpoint) -> None:
    everything = body(
        max_tokens=2, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, typical_p=0.9, top_n_sigma=1.0, xtc_probability=0.1,
        xtc_threshold=0.1, dynatemp_range=0.1, dynatemp_exponent=1.0, repeat_last_n=3, repeat_penalty=1.1,
        presence_penalty=0.1, frequency_penalty=0.1, dry_multiplier=0.1, dry_base=1.5, dry_allowed_length=2,
        dry_penalty_last_n=3, dry_sequence_breakers=["\n"], mirostat=2, mirostat_tau=5.0, mirostat_eta=0.1,
        samplers=["top_k", "temperature"], min_keep=1, seed=-1, stop=["zzzzz"], logit_bias={"5": 1.0, "hello": -1.0},
        ignore_eos=True, logprobs=True, top_logprobs=0, chat_template_kwargs={"a": 1}, reasoning="off", reasoning_budget=5,
        cache_prompt=False, id_slot=0, n_keep=-1, t_max_predict_ms=10_000, timings_per_token=True, lora=(),
    )  # fmt: skip
    parser = ChatStreamParser()
    chunks = list(HTTPTransport(endpoint).stream(CHAT, everything, parser, LIMITS))
    assert parser.result().finish_reason == "length"
    assert len(parser.result().logprobs) == 2
    assert sum(item.timings is not None for item in chunks) == 1


def test_a_schema_and_a_grammar(endpoint: Endpoint) -> None:
    for sampling in ({"json_schema": {"const": "yes"}}, {"grammar": r'root ::= "\"yes\""'}):
        parser = ChatStreamParser()
        list(
            HTTPTransport(endpoint).stream(CHAT, body(max_tokens=60, **sampling), parser, LIMITS)
        )  # llama.cpp lets 22 blanks follow
        assert (parser.result().text, parser.result().finish_reason) == ('"yes"', "stop")


def test_line_separators_of_unicode_come_through(twin: Twin, endpoint: Endpoint) -> None:
    parser = ChatStreamParser()
    forced = body(max_tokens=30, grammar='root ::= "a\u2028b\u2029c"')
    _, error = twin.stream(endpoint, parser=parser, body=forced)
    assert error is None
    assert parser.result().text == "a\u2028b\u2029c"


REFUSALS: dict[str, tuple[dict[str, Any], type[LocalLlamaError]]] = {
    "too long": (body(ChatRequest((Message("user", "x" * 2000),))), ContextOverflowError),
    "an image": (body(ChatRequest((Message("user", (TextPart("see"), ImagePart("AAAA"))),))), BadRequestError),
    "a broken grammar": (body(grammar="root ::= ("), BadRequestError),
    "a broken schema": (body(json_schema={"type": "nonsense"}), BadRequestError),
    "a bad value": (body(extra_body={"temperature": "hot"}), BadRequestError),
    "too many choices": (body(extra_body={"n": 50}), BadRequestError),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(twin: Twin, endpoint: Endpoint, name: str) -> None:
    sent, expected = REFUSALS[name]
    chunks, error = twin.stream(endpoint, body=sent)
    assert type(error) is expected
    assert chunks == []
    if isinstance(error, ContextOverflowError):
        assert error.n_ctx == 1024
        assert error.n_prompt_tokens is not None
        assert error.n_prompt_tokens > 2000


def test_refusals_of_other_paths(twin: Twin, endpoint: Endpoint) -> None:
    with pytest.raises(EndpointNotFoundError):
        twin.json(endpoint, "/nothing-here")
    with pytest.raises(FeatureDisabledError):
        twin.json(endpoint, "/v1/embeddings", {"input": "x"})


def test_props(twin: Twin, endpoint: Endpoint) -> None:
    info = parse_props(twin.json(endpoint, "/props"))
    assert (info.n_ctx, info.total_slots, info.model_alias) == (1024, 2, "micro")
    assert info.template.supports_system_role
    assert not info.template.supports_tools
    assert "<|im_start|>" in info.chat_template


ENDLESS = body(ChatRequest((Message("user", "x"),)), max_tokens=-1, extra_body={"ignore_eos": True})


def test_a_closed_stream_frees_its_slot(endpoint: Endpoint) -> None:
    stream = HTTPTransport(endpoint).stream(CHAT, ENDLESS, ChatStreamParser(), LIMITS)
    while not next(stream).text:
        pass
    stream.close()
    wait_until(lambda: not any(is_processing(endpoint)), seconds=2, what="the slot to be free")


def test_a_cancelled_task_frees_its_slot(endpoint: Endpoint) -> None:
    async def run() -> None:
        transport = AsyncHTTPTransport(endpoint)
        has_token = asyncio.Event()

        async def read() -> None:
            async for item in transport.stream(CHAT, ENDLESS, ChatStreamParser(), LIMITS):
                if item.text:
                    has_token.set()

        task = asyncio.create_task(read())
        await has_token.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    wait_until(lambda: not any(is_processing(endpoint)), seconds=2, what="the slot to be free")


def test_a_call_that_took_too_long_frees_its_slot(twin: Twin, endpoint: Endpoint) -> None:
    slow = {**ENDLESS, "messages": [{"role": "user", "content": "x"}], "n_predict": -1}
    _, error = twin.stream(endpoint, body=slow, timeouts=TimeoutSettings(total_seconds=0.02))
    assert isinstance(error, RequestTimeoutError)
    wait_until(lambda: not any(is_processing(endpoint)), seconds=2, what="the slot to be free")


S, U, A = Message("system", "be brief"), Message("user", "question"), Message("assistant", "answer")
CALL = Message("assistant", "", tool_calls=(ToolCall("call_long_id_0001", "get", '{"x": 1}'),))
RESULT = Message("tool", "42", tool_call_id="call_long_id_0001")
GET = ToolSpec("get", "Gets.", {"type": "object", "properties": {"x": {"type": "integer"}}})

LOOP = "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
CALLS = "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}"
END = "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
TAKES_ALL = LOOP + CALLS + END
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TAKES_ALL
)
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}" + END
)
DROPS_TOOLS = "{% for m in messages %}{% if m.role != 'tool' %}[{{ m.role }}]{{ m.content }}{% endif %}" + END
ONE_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning.') }}{% endif %}[{{ m.role }}]{{ m.content }}"
    + CALLS
    + END
)
SHORT_IDS = (
    LOOP
    + "{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}{{ raise_exception('Tool call IDs should be 9 long') }}"
    "{% endif %}<call>{{ c.id }} {{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}" + END
)
# Where there are two, today's llama.cpp folds the system message by itself, and older builds leave it to us.
TEMPLATES: list[tuple[str, str, tuple[Message, ...], set[Rewriting]]] = [
    ("takes all", TAKES_ALL, (S, U, CALL, RESULT, A, U), {Rewriting()}),
    ("no system role", NO_SYSTEM, (S, U, A, U), {Rewriting(), Rewriting(folds_system=True)}),
    (
        "strictly alternating",
        ALTERNATES,
        (S, A, U, U),
        {
            Rewriting(opens_with_user=True, merges_adjacent=True),
            Rewriting(folds_system=True, opens_with_user=True, merges_adjacent=True),
        },
    ),
    ("drops tools", DROPS_TOOLS, (S, U, CALL, RESULT), {Rewriting(writes_tools_as_text=True)}),
    ("one system message", ONE_SYSTEM, (S, U, A, S, U), {Rewriting(hoists_system=True)}),
    ("short ids", SHORT_IDS, (U, CALL, RESULT), {Rewriting(shortens_ids=True)}),
]


@pytest.mark.parametrize(("template", "messages", "expected"), [pytest.param(*row[1:], id=row[0]) for row in TEMPLATES])
def test_histories_are_adapted_to_the_template(
    micro_model: Path, template: str, messages: tuple[Message, ...], expected: set[Rewriting]
) -> None:
    request = ChatRequest(messages, tools=(GET,) if CALL in messages else ())
    with (
        tempfile.TemporaryDirectory() as directory,
        bare_server(Path(directory), micro_model, template=template) as server,
    ):
        transport = HTTPTransport(server)
        known: dict[Any, Rewriting] = {}
        adapted = ChatRequest(_adapted(request, transport, known), tools=request.tools)
        assert set(known.values()) <= expected
        prompt = transport.post_json(
            "/apply-template", build_chat_body(adapted, SamplingSettings(), stream=False), LIMITS
        )
        for word in {"be brief", "question", "answer", "42", "get"} & {w for m in messages for w in _words(m)}:
            assert word in prompt["prompt"]
        parser = ChatStreamParser()
        # Without tools: the nonsense of the micro model would sooner or later look like a broken call.
        list(transport.stream(CHAT, body(ChatRequest(adapted.messages), max_tokens=2), parser, LIMITS))
        assert parser.result().finish_reason == "length"


def _words(message: Message) -> list[str]:
    return [message.text, *(call.name for call in message.tool_calls)]


def _adapted(request: ChatRequest, transport: HTTPTransport, known: dict[Any, Rewriting]) -> tuple[Message, ...]:
    steps = adapt_messages(request, known)
    try:
        _, path, sent = next(steps)
        while True:
            try:
                reply = transport.post_json(path, sent, LIMITS)
            except LocalLlamaError as error:
                _, path, sent = steps.throw(error)
            else:
                _, path, sent = steps.send(reply)
    except StopIteration as end:
        messages: tuple[Message, ...] = end.value
        return messages


def test_what_only_the_template_knows_is_told_in_its_words(micro_model: Path) -> None:
    never = "{% if 'hello' in messages[0].content %}{{ raise_exception('never today') }}{% endif %}" + TAKES_ALL
    with (
        tempfile.TemporaryDirectory() as directory,
        bare_server(Path(directory), micro_model, template=never) as server,
    ):
        transport = HTTPTransport(server)
        adapted = ChatRequest(_adapted(HELLO, transport, {}))
        with pytest.raises(ChatTemplateError, match="never today"):
            list(transport.stream(CHAT, body(adapted), ChatStreamParser(), LIMITS))
