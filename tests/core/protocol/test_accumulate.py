"""How the pieces of one answer become one: fragments of calls, sums of usages, faults of the whole."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from localllama import (
    ChatRequest,
    ChatResult,
    MalformedResponseError,
    Message,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
    Usage,
)
from localllama._protocol.accumulate import ChoiceAccumulator
from localllama._protocol.decoding import DecodingPlan
from localllama._protocol.envelope import Envelope
from localllama._protocol.verification import find_fault, sum_of_usages
from localllama.types import TokenLogprob
from support.golden_streams import fragment


def add(choice: ChoiceAccumulator, *fragments: dict[str, Any]) -> tuple[ToolCallDelta, ...]:
    """Each fragment in a chunk of its own."""
    numbers = itertools.count(1)
    added = [choice.add_tool_calls([each], lambda: f"made{next(numbers)}") for each in fragments]
    return tuple(itertools.chain.from_iterable(added))


def calls_of(choice: ChoiceAccumulator) -> list[tuple[str, str, str]]:
    result = choice.result(None, None, None, None, None)
    return [(call.id, call.name, call.arguments) for call in result.tool_calls]


def test_a_chunk_has_one_delta_of_each_call() -> None:
    # Who adds up chunks by the index, as LangChain does, makes two calls of two deltas that come in one chunk.
    choice = ChoiceAccumulator()
    deltas = (
        ToolCallDelta(0, id="a", name="add"),
        ToolCallDelta(0, arguments='{"n": '),
        ToolCallDelta(1, id="b", name="ping"),
        ToolCallDelta(0, arguments="1}"),
        ToolCallDelta(1, arguments="{}"),
    )
    assert choice.add_deltas(deltas) == (ToolCallDelta(0, "a", "add", '{"n": 1}'), ToolCallDelta(1, "b", "ping", "{}"))
    assert calls_of(choice) == [("a", "add", '{"n": 1}'), ("b", "ping", "{}")]
    choice = ChoiceAccumulator()
    fragments = [fragment(0, id="a", name="add"), fragment(0, arguments='{"n"'), fragment(0, arguments=": 1}")]
    assert choice.add_tool_calls(fragments, str) == (ToolCallDelta(0, "a", "add", '{"n": 1}'),)
    assert add(choice, fragment(0, arguments=" ")) == (ToolCallDelta(0, arguments=" "),)


def test_fragments_of_two_calls_may_alternate() -> None:
    choice = ChoiceAccumulator()
    deltas = add(
        choice,
        fragment(0, "{", id="a", name="get"),
        fragment(1, "[", id="b", name="put"),
        fragment(0, "}", id="a", name="get"),
        fragment(1, "]"),
    )
    assert calls_of(choice) == [("a", "get", "{}"), ("b", "put", "[]")]
    assert [(one.index, one.id, one.name, one.arguments) for one in deltas] == [
        (0, "a", "get", "{"),
        (1, "b", "put", "["),
        (0, None, None, "}"),
        (1, None, None, "]"),
    ]


def test_calls_stand_in_the_order_of_their_indexes() -> None:
    choice = ChoiceAccumulator()
    add(choice, fragment(2, "2", id="c", name="z"), fragment(0, "0", id="a", name="x"))
    assert calls_of(choice) == [("a", "x", "0"), ("c", "z", "2")]


def test_an_id_that_was_not_sent_is_made_once() -> None:
    choice = ChoiceAccumulator()
    deltas = add(choice, fragment(0, "", name="get"), fragment(0, "{}"), fragment(1, "{}", id="", name="put"))
    assert [one.id for one in deltas] == ["made1", None, "made2"]
    assert calls_of(choice) == [("made1", "get", "{}"), ("made2", "put", "{}")]


def test_a_name_that_comes_late_comes_once() -> None:
    choice = ChoiceAccumulator()
    deltas = add(choice, fragment(0, "", id="a"), fragment(0, "{", name="get"), fragment(0, "}", name="get"))
    assert [one.name for one in deltas] == [None, "get", None]
    assert calls_of(choice) == [("a", "get", "{}")]


def test_without_an_index_an_id_opens_a_call_and_anything_else_goes_on_with_the_last() -> None:
    choice = ChoiceAccumulator()
    first, more, second, rest = (
        {key: value for key, value in one.items() if key != "index"}
        for one in (
            fragment(0, "{", id="a", name="get"),
            fragment(0, "}"),
            fragment(0, "[", id="b", name="put"),
            fragment(0, "]"),
        )
    )
    add(choice, first, more, second, rest)
    assert calls_of(choice) == [("a", "get", "{}"), ("b", "put", "[]")]


@pytest.mark.parametrize("index", [-1, True, "0", 1.5])
def test_an_index_that_is_none_is_refused(index: Any) -> None:
    with pytest.raises(MalformedResponseError, match="index"):
        add(ChoiceAccumulator(), fragment(index, "{}", id="a", name="get"))


def test_arguments_that_are_an_object_become_its_text() -> None:
    choice = ChoiceAccumulator()
    add(choice, {"index": 0, "id": "a", "function": {"name": "get", "arguments": {"städte": [1]}}})
    assert calls_of(choice) == [("a", "get", '{"städte": [1]}')]


def test_calls_read_from_the_text_stand_behind_those_of_the_wire() -> None:
    choice = ChoiceAccumulator()
    add(choice, fragment(0, "{}", id="a", name="get"))
    placed = choice.add_deltas((ToolCallDelta(0, "b", "put"), ToolCallDelta(0, arguments="[]")))
    placed += choice.add_deltas((ToolCallDelta(1, "c", "cut", "0"),))
    assert [one.index for one in placed] == [1, 2]
    assert calls_of(choice) == [("a", "get", "{}"), ("b", "put", "[]"), ("c", "cut", "0")]


def test_text_thinking_and_probabilities_add_up() -> None:
    choice = ChoiceAccumulator()
    assert not choice.has_begun
    assert [choice.add_reasoning(text) for text in ("a", "", "b")] == ["a", "", "b"]
    assert choice.has_begun
    assert [choice.add_text(text) for text in ("c", "d")] == ["c", "d"]
    for token in "cd":
        assert choice.add_logprobs((TokenLogprob(token, -1.0),)) == (TokenLogprob(token, -1.0),)
    assert not choice.has_calls
    result = choice.result(Usage(1, 2, 3), None, "m", "i", "f")
    assert (result.reasoning, result.text, [entry.token for entry in result.logprobs]) == ("ab", "cd", ["c", "d"])
    assert (result.usage, result.model, result.id, result.system_fingerprint) == (Usage(1, 2, 3), "m", "i", "f")


def test_usages_are_summed_number_by_number() -> None:
    first, second = Usage(1, 20, 21, cached_tokens=300), Usage(4_000, 50_000, 54_000, 600_000, is_estimated=True)
    assert sum_of_usages(first, second) == Usage(4_001, 50_020, 54_021, 600_300, is_estimated=True)
    assert sum_of_usages(second, first) == sum_of_usages(first, second)
    assert sum_of_usages(first, first) == Usage(2, 40, 42, 600)
    assert sum_of_usages(None, first) == sum_of_usages(first, None) == first
    assert sum_of_usages(None, None) is None


def tool(name: str, kind: str) -> ToolSpec:
    properties = {"x": {"$ref": "#/$defs/outer"}}
    definitions = {"outer": {"type": "array", "items": {"$ref": "#/$defs/inner"}}, "inner": {"type": kind}}
    return ToolSpec(name, "", {"type": "object", "properties": properties, "required": ["x"], "$defs": definitions})


INTEGERS, STRINGS = tool("integers", "integer"), tool("strings", "string")


def test_definitions_that_only_read_alike_stay_apart() -> None:
    schema = Envelope((INTEGERS, STRINGS, tool("more_strings", "string"))).schema()
    definitions = schema["$defs"]

    def item_kind(branch: dict[str, Any]) -> str:
        outer = branch["properties"]["arguments"]["properties"]["x"]["$ref"].rpartition("/")[2]
        inner = definitions[outer]["items"]["$ref"].rpartition("/")[2]
        return str(definitions[inner]["type"])

    assert [item_kind(branch) for branch in schema["anyOf"]] == ["integer", "string", "string"]
    assert "#/$defs/outer" not in json.dumps(schema)


REQUEST = ChatRequest((Message("user", "x"),))
ENVELOPE = Envelope((INTEGERS, STRINGS))
PLAN = DecodingPlan(REQUEST, ENVELOPE, tools=(INTEGERS, STRINGS))


def called(*calls: tuple[str, str]) -> ChatResult:
    return ChatResult(tool_calls=tuple(ToolCall(f"id{n}", name, text) for n, (name, text) in enumerate(calls)))


@pytest.mark.parametrize(
    ("result", "plan", "said"),
    [
        (called(("integers", '{"x": [1]}')), PLAN, None),
        (called(("integers", '{"x": [1]}'), ("strings", '{"x": ["a"]}')), PLAN, None),
        (called(("integers", '{"x": [1]}'), ("strings", '{"x": [1]}')), PLAN, "'strings'"),
        (called(("integers", '{"x": [1')), PLAN, "'integers'"),
        (called(("nobody", "{}")), PLAN, "'nobody'"),
        (called(("integers", "")), PLAN, "'integers'"),
        (ChatResult(text="words"), PLAN, "call of a tool"),
        (ChatResult(text="words"), DecodingPlan(REQUEST, Envelope((INTEGERS,), has_answer=True)), None),
        (ChatResult(text="words"), DecodingPlan(REQUEST), None),
        (ChatResult(text="words"), DecodingPlan(REQUEST, schema={"type": "integer"}), "the answer"),
        (ChatResult(text="```json\n7\n```"), DecodingPlan(REQUEST, schema={"type": "integer"}), None),
        (ChatResult(text="7"), DecodingPlan(REQUEST, ENVELOPE, schema={"type": "integer"}), None),
        (ChatResult(text="x"), DecodingPlan(REQUEST, ENVELOPE, schema={"type": "integer"}), "the answer"),
    ],
)
def test_what_is_wrong_with_a_whole_answer(result: ChatResult, plan: DecodingPlan, said: str | None) -> None:
    fault = find_fault(result, plan)
    if said is None:
        assert fault is None
    else:
        assert fault is not None
        assert said in str(fault.error(max_tokens=None, n_ctx=0))


@pytest.mark.parametrize(
    ("max_tokens", "n_ctx", "said"),
    [(-1, 0, "(no limit known)"), (None, 512, "(n_ctx=512)"), (-1, 512, "(n_ctx=512)"), (8, 0, "(max_tokens=8)")],
)
def test_a_cut_answer_names_the_limits_that_there_were(max_tokens: int | None, n_ctx: int, said: str) -> None:
    """-1 is none: it stands for as many tokens as there is room for."""
    cut = ChatResult(text='{"x": ', finish_reason="length")
    fault = find_fault(cut, DecodingPlan(REQUEST, schema={"type": "object"}))
    assert fault is not None
    assert said in str(fault.error(max_tokens=max_tokens, n_ctx=n_ctx))
