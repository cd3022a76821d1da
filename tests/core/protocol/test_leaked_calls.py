"""Calls that leaked into the text are found wherever the text is cut; all other text comes out byte for byte."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from localllama import ToolSpec
from localllama._protocol.leaked_calls import LeakedCallReader, recognised_calls

ADD = ToolSpec(
    "add",
    "Adds.",
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]},
)
FIND = ToolSpec("find", "", {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})
PING = ToolSpec("ping")
TOOLS = (ADD, FIND, PING)
CALL = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
ONE = [("add", {"a": 1, "b": 2})]


def read(text: str, *cuts: int) -> tuple[str, list[tuple[str, object]]]:
    ids = (f"id{n}" for n in itertools.count())
    reader = LeakedCallReader(TOOLS, make_id=lambda: next(ids))
    places = [0, *cuts, len(text)]
    answer = ""
    calls: dict[int, list[str]] = {}
    for number, (start, end) in enumerate(itertools.pairwise(places)):
        piece, deltas = reader.feed(text[start:end], is_last=number == len(places) - 2)
        answer += piece
        for delta in deltas:
            if delta.id is not None:
                assert delta.index not in calls
                calls[delta.index] = [delta.name or "", ""]
            calls[delta.index][1] += delta.arguments
    return answer, [(name, json.loads(arguments)) for name, arguments in calls.values()]


LEAKS = {
    "bare": (CALL, "", ONE),
    "blank lines around": (f"\n\n{CALL}\n\n", "", ONE),
    "Llama 3": ('{"name": "add", "parameters": {"a": 1, "b": 2}}', "", ONE),
    "OpenAI": (json.dumps({"type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}), "", ONE),
    "OpenAI message": (json.dumps({"tool_calls": [{"id": "1", "function": {"name": "ping", "arguments": {}}}]}), "", [("ping", {})]),
    "list": (f"[{CALL}, {CALL}]", "", ONE * 2),
    "fenced": (f"I will add.\n```json\n{CALL}\n```\n", "I will add.\n", ONE),
    "fenced, two": (f"```\n{CALL}\n{CALL}\n```", "", ONE * 2),
    "on a line": (f"Sure:\n  {CALL}\nDone.", "Sure:\n  Done.", ONE),
    "lines": (f"{CALL}\n{CALL}\n", "", ONE * 2),
    "Hermes": (f"<tool_call>\n{CALL}\n</tool_call>", "", ONE),
    "Hermes, unclosed": (f"Hm. <tool_call>{CALL}", "Hm. ", ONE),
    "Hermes, two": (f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>\n", "", ONE * 2),
    "Mistral": (f"[TOOL_CALLS][{CALL}]", "", ONE),
    "Mistral, new": ('[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}', "", ONE),
    "python tag": ('<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": 2}}; {"name": "ping", "parameters": {}}', "", [*ONE, ("ping", {})]),
    "function tag": ('<function=add>{"a": 1, "b": 2}</function>', "", ONE),
    "Qwen3-Coder": ("<tool_call>\n<function=find>\n<parameter=text>\n12\n</parameter>\n</function>\n</tool_call>", "", [("find", {"text": "12"})]),
    "Qwen3-Coder, bare words": ("<function=find><parameter=text>\nhello there\n</parameter></function>", "", [("find", {"text": "hello there"})]),
    "braces in strings": (json.dumps({"name": "find", "arguments": {"text": '}"]```\n{"a'}}), "", [("find", {"text": '}"]```\n{"a'})]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "rest", "calls"), LEAKS.values(), ids=LEAKS)
def test_a_leaked_call_is_found_at_any_cut(text: str, rest: str, calls: list[tuple[str, object]]) -> None:
    assert read(text) == (rest, calls)
    for cut in range(len(text) + 1):
        assert read(text, cut) == (rest, calls), text[:cut]
    assert read(text, *range(1, len(text))) == (rest, calls)


TEXTS = [
    "Just words.\n\nAnd `code`, ``more``, a < b, [a link](http://x) and {braces}.\n",
    "[a link](http://x) begins a line\n{so} does this\n",
    '{"name": "unknown", "arguments": {"a": 1, "b": 2}}',
    '{"name": "add", "arguments": {"a": "one", "b": 2}}',
    '{"name": "add", "arguments": {"a": 1}}',
    '{"name": "add", "arguments": {"a": 1, "b": 2}, "because": "you asked"}',
    '{"name": "add"}',
    f"{CALL} would be such a call.",
    f'{{\n "examples": [\n{CALL}\n]}}\n',
    f"```python\nprint(1)\n{CALL}\n```\n",
    f'```json\n{{\n"calls": 1}}\n{CALL}\n```\n',
    "```json\n[1, 2, 3]\n```\nThat is it.",
    f'```json\n{CALL}\n{{"calls": 1}}\n```\n',
    '```json\n{"name": "Ann", "age": 3}\n```',
    '{"name": "Ann", "arguments": ["none"]}\n[{"name": "Bob"}]\n[]\n{}\n',
    '{"name": "add", "arguments": {"a": 1, ',
    "<tool_call>nothing</tool_call>",
    "<function=add><parameter=a>one</parameter></function>",
    '{"type": "function", "function": {"name": "ping", "arguments": {}}, "because": "you asked"}',
    '{"name": "add", "arguments": "{a: 1}"}',
    '[{"name": "ping", "arguments": {}}, 7]',
    '```json\n{"name": nonsense that goes on for a while}\n```\n',
    "```json\n\n```\n",
    "<tool_call>",
    "[TOOL_CALLS",
    "``",
    "   \n ",
    "",
    '{"name": nonsense}\nmore text',
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_other_text_is_not_touched(text: str) -> None:
    for cut in range(len(text) + 1):
        assert read(text, cut) == (text, []), text[:cut]
    assert read(text, *range(1, len(text))) == (text, [])


def test_text_flows_at_once() -> None:
    reader = LeakedCallReader(TOOLS)
    assert reader.feed("Hello", is_last=False) == ("Hello", ())
    assert reader.feed(" there\n", is_last=False) == (" there\n", ())
    assert reader.feed('{"age', is_last=False)[0] == '{"age'
    assert reader.feed('": 3', is_last=False)[0] == '": 3'


def test_an_unread_marker_is_noted() -> None:
    reader = LeakedCallReader(TOOLS)
    reader.feed('<tool_call>{"name": "add"}</tool_call>', is_last=True)
    assert reader.has_unread_marker


def test_the_rule() -> None:
    assert recognised_calls({"name": "ping", "arguments": {}}, TOOLS) == (("ping", "{}"),)
    assert recognised_calls({"name": "ping"}, TOOLS) == ()
    assert recognised_calls([], TOOLS) == ()
    assert recognised_calls([{"name": "ping", "arguments": {}}, {"name": "Ann"}], TOOLS) == ()
    assert recognised_calls({"name": "ping", "arguments": {}}, ()) == ()
    assert recognised_calls([7], TOOLS) == ()
    no_schema = ToolSpec("odd", "", {"type": "strnig"})
    assert recognised_calls({"name": "odd", "arguments": {}}, (no_schema,)) == ()


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "find", "arguments": ' + "[" * 100_000,
        json.dumps({"name": "find", "arguments": "[" * 100_000}),
    ],
)
def test_what_is_nested_too_deeply_to_be_read_is_text(text: str) -> None:
    assert read(text) == (text, [])


def test_a_value_nested_too_deeply_is_taken_as_the_text_that_it_is() -> None:
    deep = "[" * 100_000
    text = f"<function=find><parameter=text>{deep}</parameter></function>"
    assert read(text) == ("", [("find", {"text": deep})])


LONG = json.dumps({"name": "find", "arguments": {"text": 'x = {"a": [1, "\\"]}\n' * 1200}})


@pytest.mark.parametrize(
    "text",
    [LONG, f"<tool_call>\n{LONG}\n</tool_call>", f"```json\n{LONG}\n```", LONG[:-2]],
    ids=["bare", "marker", "fence", "cut"],
)
def test_a_long_call_that_comes_letter_by_letter_is_not_read_anew_for_each(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_read = 0

    class Decoder(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            nonlocal n_read
            n_read += len(s)
            return super().raw_decode(s, idx)

    monkeypatch.setattr("localllama._protocol.leaked_calls._DECODER", Decoder(strict=False))
    answer, calls = read(text, *range(1, len(text)))
    if text == LONG[:-2]:
        assert (answer, calls) == (text, [])
    else:
        assert answer.strip() == ""
        assert calls == [("find", json.loads(LONG)["arguments"])]
    assert n_read < 150 * len(text)  # each time anew, it would be half of the square: 14 000 times


def test_text_behind_a_long_call_is_not_lost() -> None:
    text = f"{LONG}\nDone. And {CALL} is no call."
    assert read(text, *range(1, len(text))) == read(text)
    assert read(text)[0].endswith(f"Done. And {CALL} is no call.")
