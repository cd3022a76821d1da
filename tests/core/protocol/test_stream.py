"""Chunks and results from the bytes of a stream: golden ones cut everywhere, odd ones, broken ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from localllama import (
    ChatChunk,
    ContextOverflowError,
    LocalLlamaError,
    MalformedResponseError,
    ServerFaultError,
    StreamInterruptedError,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
    Usage,
)
from localllama._protocol.leaked_calls import LeakedCallReader
from localllama._protocol.stream import ChatStreamParser, CompletionStreamParser, StreamParser, make_tool_call_id
from support.golden_streams import (
    CHAT_STREAMS,
    DONE,
    ERROR,
    HEAD,
    LAST,
    NATIVE,
    REASONING,
    ROLE,
    TEXT,
    TIMINGS,
    TOOLS,
    delta,
    event,
    fragment,
    progress,
)


def counting_ids() -> Callable[[], str]:
    numbers = count()
    return lambda: f"made{next(numbers)}"


def parse(
    pieces: Iterable[bytes], parser: StreamParser | None = None
) -> tuple[list[ChatChunk], LocalLlamaError | None]:
    """All chunks, and the error that ended the stream, as a transport would see them."""
    parser = parser or ChatStreamParser(make_id=counting_ids())
    chunks: list[ChatChunk] = []
    try:
        for piece in pieces:
            chunks += parser.feed(piece)
            if parser.is_complete:
                break
        chunks += parser.close()
    except LocalLlamaError as error:
        return chunks, error
    return chunks, None


@pytest.mark.parametrize("name", CHAT_STREAMS)
def test_chunks_do_not_depend_on_the_cuts(name: str) -> None:
    stream = CHAT_STREAMS[name]
    whole, whole_error = parse([stream])
    assert whole
    for cut in range(len(stream) + 1):
        chunks, error = parse([stream[:cut], stream[cut:]])
        assert chunks == whole
        assert type(error) is type(whole_error)
    chunks, error = parse(stream[i : i + 1] for i in range(len(stream)))
    assert chunks == whole
    assert type(error) is type(whole_error)


def test_native_chunks_do_not_depend_on_the_cuts() -> None:
    whole, _ = parse([NATIVE], CompletionStreamParser())
    for cut in range(len(NATIVE) + 1):
        assert parse([NATIVE[:cut], NATIVE[cut:]], CompletionStreamParser()) == (whole, None)


def test_text() -> None:
    parser = ChatStreamParser()
    chunks, error = parse([TEXT], parser)
    assert error is None
    assert [chunk.text for chunk in chunks if chunk.text] == ["Hé\u2028llo", " 😀"]
    assert [chunk.progress.processed for chunk in chunks if chunk.progress] == [0, 22]
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    result = parser.result()
    assert (result.text, result.finish_reason, result.usage) == ("Hé\u2028llo 😀", "stop", Usage(22, 2, 24, 21))
    assert result.timings is not None
    assert (result.timings.cache_n, result.timings.predicted_ms) == (21, 0.096)
    assert (result.model, result.id, result.system_fingerprint) == ("micro", "chatcmpl-1", "b11434-abc")


@pytest.mark.parametrize("stream", [TEXT, REASONING, TOOLS])
def test_usage_and_timings_are_on_the_last_chunk_alone(stream: bytes) -> None:
    chunks, _ = parse([stream])
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [chunk.timings is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_reasoning_is_kept_apart() -> None:
    parser = ChatStreamParser()
    parse([REASONING], parser)
    assert (parser.result().reasoning, parser.result().text) == ("Let me see", "Yes")


def test_tool_calls() -> None:
    parser = ChatStreamParser()
    chunks, _ = parse([TOOLS], parser)
    assert [call for chunk in chunks for call in chunk.tool_calls] == [
        ToolCallDelta(0, "idA", "get", "{"),
        ToolCallDelta(0, None, None, '"x":'),
        ToolCallDelta(0, None, None, "1}"),
        ToolCallDelta(1, "idB", "put", '{"y":2}'),
    ]
    assert parser.result().tool_calls == (ToolCall("idA", "get", '{"x":1}'), ToolCall("idB", "put", '{"y":2}'))
    assert parser.result().finish_reason == "tool_calls"


def test_an_id_that_is_missing_or_empty_is_made_once() -> None:
    stream = (
        delta(tool_calls=[fragment(0, "{", name="a")])
        + delta(tool_calls=[fragment(0, "}", id="late")])
        + delta(tool_calls=[fragment(1, "{}", id="", name="b")])
        + delta("tool_calls")
    )
    parser = ChatStreamParser(make_id=counting_ids())
    parse([stream], parser)
    assert parser.result().tool_calls == (ToolCall("made0", "a", "{}"), ToolCall("made1", "b", "{}"))


def test_made_ids_have_the_form_that_mistral_demands() -> None:
    ids = {make_tool_call_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(one) == 9 and one.isascii() and one.isalnum() for one in ids)


@pytest.mark.parametrize(
    ("fragments", "expected"),
    [
        pytest.param(
            [{"id": "a", "function": {"name": "f", "arguments": "{"}}, {"function": {"arguments": "}"}}],
            (ToolCall("a", "f", "{}"),),
            id="no index",
        ),
        pytest.param(
            [{"id": "a", "function": {"name": "f"}}, {"id": "b", "function": {"name": "g", "arguments": None}}],
            (ToolCall("a", "f", ""), ToolCall("b", "g", "")),
            id="no index, two ids",
        ),
        pytest.param(
            [fragment(0, "{", id="a", name="f"), fragment(0, "}", id="a", name="f")],
            (ToolCall("a", "f", "{}"),),
            id="id and name repeated",
        ),
        pytest.param(
            [fragment(0, id="a"), fragment(0, "{}", name="f")], (ToolCall("a", "f", "{}"),), id="the name comes later"
        ),
        pytest.param(
            [{"index": 0, "id": "a", "function": {"name": "f", "arguments": {"é": 1}}}],
            (ToolCall("a", "f", '{"é": 1}'),),
            id="arguments as an object",
        ),
    ],
)
def test_irregular_fragments(fragments: list[dict[str, Any]], expected: tuple[ToolCall, ...]) -> None:
    parser = ChatStreamParser()
    chunks, _ = parse([b"".join(delta(tool_calls=[item]) for item in fragments) + delta("tool_calls")], parser)
    assert parser.result().tool_calls == expected
    deltas = [item for chunk in chunks for item in chunk.tool_calls]
    assert [item.id for item in deltas if item.id] == [call.id for call in expected]
    assert [item.name for item in deltas if item.name] == [call.name for call in expected]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("function_call", "tool_calls"), ("abort", "stop"), (7, "stop")],
)  # fmt: skip
def test_finish_reasons(sent: Any, expected: str) -> None:
    parser = ChatStreamParser()
    _, error = parse([delta(content="a"), delta(sent), DONE], parser)
    assert (error, parser.result().finish_reason) == (None, expected)


@pytest.mark.parametrize(("sent", "expected"), [("stop", "tool_calls"), ("length", "length")])
def test_an_answer_with_a_call_that_stopped_has_stopped_for_it(sent: str, expected: str) -> None:
    """Servers behind base_url say "stop" there, and a call in an envelope or in the text is one that none of them saw."""
    parser = ChatStreamParser()
    call = delta(tool_calls=[fragment(0, "{}", id="a", name="f")])
    chunks, error = parse([call + delta(sent) + LAST + DONE], parser)
    assert (error, parser.result().finish_reason) == (None, expected)
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [expected]


def test_usage_on_the_finish_chunk_comes_last_all_the_same() -> None:
    finish = {"choices": [{"finish_reason": "stop", "index": 0, "delta": {}}], **HEAD}
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    chunks, _ = parse([delta(content="a") + event({**finish, "usage": usage}) + DONE])
    assert [chunk.usage for chunk in chunks] == [None, None, Usage(5, 1, 6)]


def test_of_usage_in_several_chunks_the_last_counts() -> None:
    """As servers behind base_url send it that count along (`continuous_usage_stats`)."""
    counts = [{"prompt_tokens": 22, "completion_tokens": n, "total_tokens": 22 + n} for n in (1, 2)]
    pieces = [event({"choices": [], **HEAD, "usage": usage}) + delta(content="a") for usage in counts]
    chunks, error = parse([ROLE, *pieces, delta("stop"), DONE])
    assert error is None
    assert [chunk.usage for chunk in chunks if chunk.usage] == [Usage(22, 2, 24)]


def test_an_unknown_finish_reason_is_an_end_too() -> None:
    chunks, error = parse([ROLE + delta(content="a") + delta("eos_token")])  # and no end mark behind it
    assert error is None
    assert chunks[-1].finish_reason == "stop"


def test_usage_is_made_from_timings_where_a_build_sends_none() -> None:
    chunks, _ = parse([delta(content="a") + delta("stop") + event({"choices": [], "timings": TIMINGS}) + DONE])
    assert chunks[-1].usage == Usage(22, 2, 24, cached_tokens=21)


def test_timings_in_every_chunk_come_out_once() -> None:
    chunk = {"choices": [{"finish_reason": None, "index": 0, "delta": {"content": "a"}}], "timings": TIMINGS}
    chunks, _ = parse([event(chunk) * 3 + delta("stop") + LAST + DONE])
    assert sum(chunk.timings is not None for chunk in chunks) == 1


def test_timings_tell_how_well_a_draft_model_guessed() -> None:
    drafted = {**TIMINGS, "draft_n": 5, "draft_n_accepted": 3}
    for timings, expected in [(drafted, (5, 3)), ({**drafted, "draft_n_accepted": 0}, (5, 0)), (TIMINGS, (None, None))]:
        parser = ChatStreamParser()
        parse([delta(content="a") + delta("stop") + event({"choices": [], "timings": timings}) + DONE], parser)
        told = parser.results()[0].timings
        assert told is not None
        assert (told.draft_n, told.draft_n_accepted) == expected


def test_several_choices() -> None:
    stream = (
        delta(index=1, content="b") + delta(index=0, content="a") + delta("stop", index=1) + delta(index=0, content="a")
    )
    parser = ChatStreamParser()
    chunks, error = parse([stream + delta("length", index=0) + LAST + DONE], parser)
    assert error is None
    assert [(chunk.index, chunk.text) for chunk in chunks if chunk.text] == [(1, "b"), (0, "a"), (0, "a")]
    assert [(result.text, result.finish_reason) for result in parser.results()] == [("aa", "length"), ("b", "stop")]
    _, error = parse([stream])
    assert isinstance(error, StreamInterruptedError)  # one of the two is unfinished


def test_logprobs() -> None:
    top = [
        {"id": 112, "token": "m", "bytes": [109], "logprob": -0.5},
        {"id": 89, "token": "\ufffd", "bytes": [240], "logprob": None},
    ]
    parser = ChatStreamParser()
    parse([delta(content="m", logprobs=[{**top[0], "top_logprobs": top}]) + delta("stop") + DONE], parser)
    (entry,) = parser.result().logprobs
    assert (entry.token, entry.logprob, entry.token_bytes) == ("m", -0.5, (109,))
    assert [(other.token_bytes, other.logprob) for other in entry.top] == [((109,), -0.5), ((240,), -math.inf)]


def test_native_completion() -> None:
    parser = CompletionStreamParser()
    chunks, error = parse([NATIVE], parser)
    assert error is None
    result = parser.result()
    assert (result.text, result.finish_reason, result.usage) == ("}\u2028", "length", Usage(22, 2, 24, 21))
    assert [entry.token for entry in result.logprobs] == ["}"]
    assert chunks[0].progress is not None
    assert [chunk.usage is not None for chunk in chunks][-1]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stop_type": "eos"}, "stop"),
        ({"stop_type": "word"}, "stop"),
        ({"stop_type": "limit"}, "length"),
        ({"stopped_limit": True, "stopped_eos": False}, "length"),
        ({"stopped_limit": False, "stopped_eos": True}, "stop"),
    ],
)
def test_native_finish_reasons(fields: dict[str, Any], expected: str) -> None:
    parser = CompletionStreamParser()
    _, error = parse([event({"content": "a", "stop": True, **fields})], parser)
    assert (error, parser.result().finish_reason) == (None, expected)


def test_an_end_behind_the_finish_reason_is_complete() -> None:
    chunks, error = parse([delta(content="a") + delta("stop")])
    assert error is None
    assert chunks[-1].finish_reason == "stop"


@pytest.mark.parametrize("cut", [len(ROLE), len(TEXT) - len(DONE) - len(LAST) - len(delta("stop")), 300])
def test_an_early_end_is_an_interruption_that_holds_what_came(cut: int) -> None:
    chunks, error = parse([TEXT[:cut]])
    assert isinstance(error, StreamInterruptedError)
    assert error.partial is not None
    assert error.partial.text == "".join(chunk.text for chunk in chunks)
    assert error.partial.finish_reason is None


def test_nothing_at_all_is_an_interruption() -> None:
    _, error = parse([])
    assert isinstance(error, StreamInterruptedError)


def test_a_stream_that_ends_with_no_reason_but_its_end_mark_is_finished() -> None:
    parser = ChatStreamParser()
    chunks, error = parse([delta(content="a") + DONE], parser)
    assert (error, chunks[-1].finish_reason, parser.result().finish_reason) == (None, "stop", "stop")


def test_a_call_in_the_text_of_such_a_stream_is_what_it_stopped_for() -> None:
    parser = ChatStreamParser(new_reader=lambda: LeakedCallReader((ToolSpec("add"),)))
    chunks, error = parse([ROLE + delta(content='{"name": "add", "arguments": {}}') + DONE], parser)
    assert error is None
    assert [(call.name, call.arguments) for call in parser.result().tool_calls] == [("add", "{}")]
    assert parser.result().finish_reason == chunks[-1].finish_reason == "tool_calls"


def test_what_a_reader_held_back_comes_at_the_end_of_such_a_stream() -> None:
    parser = ChatStreamParser(new_reader=lambda: LeakedCallReader((ToolSpec("add"),)))
    chunks, error = parse([ROLE + delta(content='{"name": "ad') + DONE], parser)
    assert error is None
    assert parser.result().text == "".join(chunk.text for chunk in chunks) == '{"name": "ad'


def test_nothing_behind_the_end_mark_counts() -> None:
    parser = ChatStreamParser()
    parse([TEXT + delta(content="more") + b"data: junk\n\n"], parser)
    assert parser.result().text == "Hé\u2028llo 😀"
    assert parser.close() == []


def test_an_error_inside_the_stream_comes_behind_the_chunks() -> None:
    parser = ChatStreamParser()
    chunks = parser.feed(ERROR)
    assert [chunk.text for chunk in chunks] == ["Hel"]
    assert parser.is_complete
    with pytest.raises(ContextOverflowError) as caught:
        parser.close()
    assert caught.value.status_code == 200
    assert parser.result().text == "Hel"


@pytest.mark.parametrize(
    "stream",
    [
        b'error: {"code":500,"message":"boom","type":"server_error"}\n\n',
        b'event: error\ndata: {"code":500,"message":"boom","type":"server_error"}\n\n',
        b'data: {"error":{"code":500,"message":"boom","type":"server_error"}}\n\n',
        b'data: {"error":{"code":500,"message":"boom"}}\n\n',
    ],
)
def test_errors_of_all_builds(stream: bytes) -> None:
    with pytest.raises(ServerFaultError, match="boom"):
        ChatStreamParser().feed(stream)


ODD_EVENTS: list[Any] = [
    [],
    7,
    "text",
    {"choices": {}},
    {"choices": [7]},
    {"choices": [{"delta": []}]},
    {"choices": [{"index": "0", "delta": {}}]},
    {"choices": [{"index": -1, "delta": {"content": "a"}}]},
    {"choices": [{"delta": {"content": 7}}]},
    {"choices": [{"delta": {"content": ["a"]}}]},
    {"choices": [{"delta": {"reasoning_content": {}}}]},
    {"choices": [{"delta": {"tool_calls": {}}}]},
    {"choices": [{"delta": {"tool_calls": [7]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": "x"}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": True}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"function": 7}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"function": {"name": 7}}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": [1]}}]}}]},
    {"choices": [{"delta": {}, "logprobs": 7}]},
    {"choices": [{"delta": {}, "logprobs": {"content": [7]}}]},
    {"choices": [{"delta": {}, "logprobs": {"content": [{"logprob": "x"}]}}]},
    {"choices": [{"delta": {}, "logprobs": {"content": [{"logprob": 1, "bytes": ["x"]}]}}]},
    {"choices": [], "usage": 7},
    {"choices": [], "usage": {"prompt_tokens": "x"}},
    {"choices": [], "usage": {"prompt_tokens": True}},
    {"choices": [], "usage": {"prompt_tokens": 1.5}},
    {"choices": [], "timings": {"prompt_ms": "x"}},
    {"choices": [], "prompt_progress": []},
    {"choices": [], "model": 7},
]


@pytest.mark.parametrize("obj", ODD_EVENTS, ids=json.dumps)
def test_odd_json_is_malformed_and_nothing_worse(obj: Any) -> None:
    with pytest.raises(MalformedResponseError):
        ChatStreamParser().feed(event(obj))


@pytest.mark.parametrize(
    "obj", [[], {"content": 7}, {"completion_probabilities": 7}, {"timings": 7}, {"prompt_progress": 7}]
)
def test_odd_json_of_the_native_endpoint(obj: Any) -> None:
    with pytest.raises(MalformedResponseError):
        CompletionStreamParser().feed(event(obj))


@pytest.mark.parametrize(
    "obj", [{}, {"choices": None}, {"choices": []}, {"choices": [{}]}, {"choices": [{"delta": None}]}]
)
def test_empty_events_are_passed_over(obj: Any) -> None:
    assert ChatStreamParser().feed(event(obj)) == []


def test_a_malformed_event_is_told_without_the_prompt() -> None:
    with pytest.raises(MalformedResponseError) as caught:
        ChatStreamParser().feed(b'data: {"prompt":"my secret", broken\n\n')
    assert "secret" not in str(caught.value)
    with pytest.raises(MalformedResponseError, match="<html>") as caught:
        ChatStreamParser().feed(b"data: <html>" + b"x" * 10_000 + b"\n\n")
    assert len(str(caught.value)) < 400


def test_deeply_nested_json_is_malformed() -> None:
    with pytest.raises(MalformedResponseError):
        ChatStreamParser().feed(b"data: " + b"[" * 100_000 + b"\n\n")


def test_has_begun_with_the_first_thing_that_a_user_sees() -> None:
    parser = ChatStreamParser()
    parser.feed(progress(0) + ROLE)
    assert not parser.has_begun
    parser.feed(delta(content="a"))
    assert parser.has_begun
    for fields in ({"reasoning_content": "a"}, {"tool_calls": [fragment(0, "{", name="a")]}):
        parser = ChatStreamParser()
        parser.feed(delta(**fields))
        assert parser.has_begun


def test_chunks_carry_the_names_of_server_and_completion() -> None:
    chunks, _ = parse([TEXT])
    assert {(chunk.model, chunk.id, chunk.system_fingerprint) for chunk in chunks} == {
        ("micro", "chatcmpl-1", "b11434-abc")
    }
    assert replace(chunks[2], model=None, id=None, system_fingerprint=None) == ChatChunk(text="Hé\u2028llo")
