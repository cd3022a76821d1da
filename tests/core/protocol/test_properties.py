"""What holds for any stream, any document, any history and any schema, as far as hypothesis can think of them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from localllama import ChatChunk, ConfigurationError, Message, TextPart, ToolCall
from localllama._protocol.adapt import rewritings, search_rewriting, shape
from localllama._protocol.json_pieces import JSONPieceReader
from localllama._protocol.rewrite import AS_IS, Rewriting, apply_rewriting
from localllama._protocol.schemas import GenerationBounds, check_instance, prepare_schema
from localllama._protocol.sse import SSEDecoder
from localllama._protocol.stream import ChatStreamParser
from support.golden_streams import DONE, LAST, ROLE, delta, event, fragment

from .test_json_pieces import added_up

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=4, max_size=8)


@st.composite
def cuts(draw: st.DrawFn, data: Any) -> list[Any]:
    """The pieces of bytes or text, cut anywhere, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in itertools.pairwise([0, *places, len(data)])]


# -- streams --------------------------------------------------------------------------------------------------------


@given(st.data(), st.lists(TEXTS, max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_events_come_as_they_were_sent(data: st.DataObject, texts: list[str], end: str, has_comments: bool) -> None:
    sent = [text.replace("\r", "").split("\n") for text in texts]
    stream = ""
    for lines in sent:
        stream += f":\u2028 a comment{end}" if has_comments else ""
        stream += "".join(f"data: {line}{end}" for line in lines) + end
    decoder = SSEDecoder()
    events = [one for piece in data.draw(cuts(stream.encode())) for one in decoder.feed(piece)]
    assert [one.data for one in events] == ["\n".join(lines) for lines in sent]


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[str], list[str], list[tuple[str, str, str]], bytes]:
    """Thinking, text and calls of an answer, and the stream that llama-server would send."""
    thinking = draw(st.lists(TEXTS.filter(bool), max_size=3))
    texts = draw(st.lists(TEXTS.filter(bool), max_size=4))
    calls = [
        (f"id{n}", name, json.dumps(arguments, ensure_ascii=False))
        for n, (name, arguments) in enumerate(
            draw(st.lists(st.tuples(WORDS, st.dictionaries(WORDS, TEXTS | st.integers(), max_size=2)), max_size=3))
        )
    ]
    stream = ROLE + b"".join(delta(reasoning_content=text) for text in thinking)
    stream += b"".join(delta(content=text) for text in texts)
    for index, (call_id, name, arguments) in enumerate(calls):
        first, *rest = draw(cuts(arguments))
        stream += delta(tool_calls=[fragment(index, first, id=call_id, type="function", name=name)])
        stream += b"".join(delta(tool_calls=[fragment(index, piece)]) for piece in rest)
    return thinking, texts, calls, stream + delta("tool_calls" if calls else "stop") + LAST + DONE


@given(st.data(), answers())
def test_an_answer_is_whole_however_its_bytes_are_cut(
    data: st.DataObject, answer: tuple[list[str], list[str], list[tuple[str, str, str]], bytes]
) -> None:
    thinking, texts, calls, stream = answer
    parser = ChatStreamParser()
    chunks: list[ChatChunk] = []
    for piece in data.draw(cuts(stream)):
        chunks += parser.feed(piece)
    chunks += parser.close()
    result = parser.result()
    assert result.reasoning == "".join(chunk.reasoning for chunk in chunks) == "".join(thinking)
    assert result.text == "".join(chunk.text for chunk in chunks) == "".join(texts)
    assert [(call.id, call.name, call.arguments) for call in result.tool_calls] == calls
    for index, (_, _, arguments) in enumerate(calls):
        deltas = [one for chunk in chunks for one in chunk.tool_calls if one.index == index]
        assert "".join(one.arguments for one in deltas) == arguments
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["tool_calls" if calls else "stop"]
    assert [chunk.usage for chunk in chunks if chunk.usage] == [result.usage]


@given(st.data(), answers(), st.integers(1, 599), TEXTS)
def test_no_error_inside_a_stream_is_swallowed(
    data: st.DataObject,
    answer: tuple[list[str], list[str], list[tuple[str, str, str]], bytes],
    code: int,
    message: str,
) -> None:
    *_, stream = answer
    events = stream.split(b"\n\n")
    place = data.draw(st.integers(0, len(events) - 4))  # before the finish reason
    broken = b"\n\n".join(events[:place]) + (b"\n\n" if place else b"")
    broken += event({"error": {"code": code, "message": message, "type": "server_error"}})
    parser = ChatStreamParser()
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one it is depends on the code; another test has the table
        for piece in data.draw(cuts(broken)):
            parser.feed(piece)
        parser.close()
    assert type(caught.value).__module__ == "localllama.errors"


@given(st.data(), answers())
def test_no_end_of_a_stream_is_taken_for_the_end_of_the_answer(
    data: st.DataObject, answer: tuple[list[str], list[str], list[tuple[str, str, str]], bytes]
) -> None:
    *_, stream = answer
    whole = stream.index(b'"finish_reason":"')
    parser = ChatStreamParser()
    parser.feed(stream[: data.draw(st.integers(0, whole - 1))])
    with pytest.raises(Exception) as caught:  # noqa: PT011
        parser.close()
    assert type(caught.value).__name__ == "StreamInterruptedError"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.data(), JSON_VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_json_is_read_alike_however_it_is_cut(
    data: st.DataObject, document: Any, is_ascii: bool, indent: int | None
) -> None:
    text = json.dumps(document, ensure_ascii=is_ascii, indent=indent)
    whole = added_up(JSONPieceReader({"arguments"}).feed(text))
    reader = JSONPieceReader({"arguments"})
    assert added_up([one for piece in data.draw(cuts(text)) for one in reader.feed(piece)]) == whole
    if isinstance(document, str):
        assert whole[0] == ({(): document} if document else whole[0])


# -- histories ------------------------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> tuple[Message, ...]:
    """A conversation in which each word is said once; results follow their calls."""
    numbers = itertools.count()

    def word() -> str:
        return f"Qw{next(numbers)}z"

    def content() -> Any:
        kind = draw(st.sampled_from(["text", "text", "parts"]))
        return word() if kind == "text" else (TextPart(word()), TextPart(word()))

    messages: list[Message] = [Message("system", content())] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["user", "assistant", "system", "calls"]))
        if kind != "calls":
            messages.append(Message(kind, content()))  # type: ignore[arg-type]
            continue
        calls = tuple(
            ToolCall(f"call_{word()}", word(), json.dumps({"x": word()})) for _ in range(draw(st.integers(1, 3)))
        )
        messages.append(Message("assistant", draw(st.sampled_from(["", "said"])) and word(), tool_calls=calls))
        messages += [Message("tool", content(), tool_call_id=call.id, name=call.name) for call in calls]
    return tuple(messages)


def said(messages: tuple[Message, ...]) -> list[str]:
    """All words of a conversation, sorted."""
    text = ""
    for message in messages:
        text += f" {message.text} "
        text += " ".join(f"{call.name} {call.arguments}" for call in message.tool_calls)
    words = "".join(character if character.isalnum() else " " for character in text).split()
    return sorted(word for word in words if word.startswith("Qw"))


@given(histories(), st.sampled_from(list(rewritings())))
def test_no_rewriting_loses_a_word(history: tuple[Message, ...], rewriting: Rewriting) -> None:
    rewritten = apply_rewriting(rewriting, history)
    # A result that becomes text names its call once more, so a word may come twice; none may be missing.
    assert set(said(rewritten)) == set(said(history))
    ids = [call.id for message in rewritten for call in message.tool_calls]
    assert [message.tool_call_id for message in rewritten if message.role == "tool"] == ids
    assert apply_rewriting(rewriting, history) == rewritten


REFUSALS = ["none", "system", "late system", "adjacent", "assistant first", "parts", "long ids"]


def rendered(refusals: set[str], messages: list[dict[str, Any]]) -> str | None:
    """A template that refuses some things."""
    roles = [one["role"] for one in messages]
    is_refused = {
        "none": False,
        "system": "system" in roles,
        "late system": "system" in roles[1:],
        "adjacent": any(a == b != "tool" for a, b in itertools.pairwise(roles)),
        "assistant first": [role for role in roles if role != "system"][:1] == ["assistant"],
        "parts": any(not isinstance(one["content"], str) for one in messages),
        "long ids": any(len(one.get("tool_call_id", "")) > 9 for one in messages),
    }
    return None if any(is_refused[name] for name in refusals) else json.dumps(messages, ensure_ascii=False)


@given(histories(), st.sets(st.sampled_from(REFUSALS)))
def test_a_history_comes_through_any_template_whole(history: tuple[Message, ...], refusals: set[str]) -> None:
    search = search_rewriting(shape(history, has_tools=False))
    try:
        body = next(search)
        while True:
            body = search.send(rendered(refusals, body["messages"]))
    except StopIteration as end:
        rewriting: Rewriting = end.value
    wire = [
        {
            "role": message.role,
            "content": message.content if isinstance(message.content, str) else [part.text for part in message.content],  # type: ignore[union-attr]
            "calls": [[call.id, call.name, call.arguments] for call in message.tool_calls],
            **({"tool_call_id": message.tool_call_id} if message.tool_call_id else {}),
        }
        for message in apply_rewriting(rewriting, history)
    ]
    prompt = rendered(refusals, wire)
    assert prompt is not None
    assert all(word in prompt for word in said(history))
    assert refusals - {"none"} or rewriting == AS_IS


# -- schemas --------------------------------------------------------------------------------------------------------

_BOUNDS = GenerationBounds(max_string_length=40, max_items=3)


def _in_order(low: int | None, high: int | None) -> bool:
    return low is None or high is None or low <= high


@st.composite
def limits(draw: st.DrawFn, low: str, high: str, numbers: st.SearchStrategy[int]) -> dict[str, int]:
    """Two limits, either of which may be missing."""
    least, most = draw(st.none() | numbers), draw(st.none() | numbers)
    assume(_in_order(least, most))
    return {name: value for name, value in ((low, least), (high, most)) if value is not None}


SCALARS = st.one_of(
    st.sampled_from(
        [
            {"type": "null"},
            {"type": "boolean"},
            *({"type": "string", "format": name} for name in ("date", "time", "date-time", "uuid", "ipv4")),
        ]
    ),
    st.sampled_from(
        [{"type": "string", "pattern": pattern} for pattern in ("^[A-Z]{2}\\d{1,4}$", "^(ab|c)*$", "b+", "^x")]
    ),
    st.builds(lambda more: {"type": "integer", **more}, limits("minimum", "maximum", st.integers(-50, 50))),
    st.builds(lambda more: {"type": "number", **more}, limits("minimum", "maximum", st.integers(-5, 5))),
    st.builds(lambda more: {"type": "string", **more}, limits("minLength", "maxLength", st.integers(0, 6))),
    st.builds(lambda values: {"enum": values}, st.lists(TEXTS | st.integers(0, 9) | st.none(), min_size=1, max_size=3)),
    st.builds(lambda value: {"const": value}, JSON_VALUES),
)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def build(properties: dict[str, Any], n_required: int, is_closed: bool) -> dict[str, Any]:
        schema = {"type": "object", "properties": properties, "required": list(properties)[:n_required]}
        return {**schema, "additionalProperties": False} if is_closed else schema

    return st.builds(build, st.dictionaries(WORDS, inner, max_size=3), st.integers(0, 3), st.booleans())


SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        _objects(inner),
        st.builds(
            lambda items, more: {"type": "array", "items": items, **more},
            inner,
            limits("minItems", "maxItems", st.integers(0, 3)),
        ),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)


def _strings(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    if "pattern" in schema:
        inner = schema["pattern"].removeprefix("^").removesuffix("$")
        return st.from_regex(f"(?:{inner})", fullmatch=True)
    assert "format" not in schema
    characters = st.characters(codec="utf-8")
    return st.text(characters, min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 9))


def written(draw: st.DrawFn, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """A value that the prepared schema lets through; knows the keywords that are left in it."""
    if "$ref" in schema:
        return written(draw, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema or "oneOf" in schema:
        return written(draw, draw(st.sampled_from(schema.get("anyOf") or schema["oneOf"])), root)
    kind = schema["type"]
    if kind == "object":
        properties = schema.get("properties", {})
        chosen = [n for n in properties if n in schema.get("required", ()) or draw(st.booleans())]
        return {name: written(draw, properties[name], root) for name in chosen}
    if kind == "array":
        size = draw(st.integers(schema.get("minItems", 0), schema.get("maxItems", 3)))
        return [written(draw, schema["items"], root) for _ in range(size)]
    if kind == "integer":
        return draw(st.integers(schema.get("minimum"), schema.get("maximum")))
    if kind == "number":
        assert not {"minimum", "maximum"} & set(schema)
        return draw(st.floats(allow_nan=False, allow_infinity=False))
    if kind == "string":
        return draw(_strings(schema))
    return draw(st.booleans()) if kind == "boolean" else None


@given(st.data(), SCHEMAS)
def test_what_the_prepared_schema_lets_through_satisfies_the_original(data: st.DataObject, schema: Any) -> None:
    try:
        prepared = prepare_schema(schema, bounds=_BOUNDS)
    except ConfigurationError:
        assume(False)  # two limits that exclude each other
    assume(not prepared.unenforced_in_repair)
    value = written(data.draw, prepared.for_repair, prepared.for_repair)
    assert check_instance(schema, json.dumps(value, ensure_ascii=False)).violations == ()
