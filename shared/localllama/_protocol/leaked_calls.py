"""Finds calls that leaked into the text of an answer: written by the model, missed by the parser of its template.

A candidate is held back until it is decided, and all other text flows at once. Candidates are

- a JSON object or array that begins a line and ends one, bare or in a code fence;
- what follows one of the markers that chat templates use, such as `<tool_call>`.

`recognised_calls` decides. What it refuses is given out unchanged, byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from localllama.errors import ConfigurationError
from localllama.types import ToolCallDelta, ToolSpec

from .schemas import check_instance
from .stream import make_tool_call_id

__all__ = ["MARKERS", "LeakedCallReader", "recognised_calls"]

MARKERS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<|tool_call|>", "<function=")
"""Openings of calls in chat templates: Hermes and Qwen, Mistral, Llama 3, Granite, Qwen3-Coder."""

_ARGUMENT_KEYS = ("arguments", "parameters")
_FIRST_KEYS = ("name", "function", "type", "id", "tool_calls", *_ARGUMENT_KEYS)
_OPENING = re.compile(rf"(?P<marker>{'|'.join(map(re.escape, MARKERS))})|^[ \t]*(?P<line>[\[{{]|```)", re.MULTILINE)
_FENCE = re.compile(r"```[ \t]*(?:json|JSON|tool_calls?|tool_code)?[ \t]*\r?\n\s*(?=[\[{])")
_FENCE_SO_FAR = re.compile(r"```[ \t]*(?:[jJtT][a-zA-Z_]*)?[ \t]*\r?(?:\n\s*)?\Z")
_JSON_SO_FAR = re.compile(r'(?:\[\s*)?(?:\{\s*(?:"(?P<key>[a-z_]*)(?P<end>"?))?)?')
_CLOSERS = re.compile(r"(?:\s*(?:</function>|</tool_call>|<\|eom_id\|>|<\|eot_id\|>))*")
_SEPARATOR = re.compile(r"[\s,;]*(?=\{)")
_NAME = re.compile(r"\s*(?:<function=(?P<tag>[^>\s]+)>|(?P<bare>[\w.:-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?)\s*(?=\{)")
_TAGGED = re.compile(r"\s*<function=(?P<name>[^>\s]+)>(?P<body>.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=(?P<key>[^>]+)>\n?(?P<value>.*?)\n?</parameter>", re.DOTALL)
_LONGEST_TOKEN = 12  # characters of a piece of JSON outside strings; an error nearer to the end may be its cut
_LONG = 2_000  # characters; what is shorter is judged at each piece
_GROWTH = 1.125
_DECODER = json.JSONDecoder(strict=False)


def recognised_calls(value: Any, tools: Sequence[ToolSpec]) -> tuple[tuple[str, str], ...]:
    """The rule: which JSON is a call, as (name, JSON text of the arguments); empty if it is none.

    It is one if it has the form of a call and nothing besides,

        {"name": N, "arguments": A}    or with "parameters"; also with "id" and "type"
        {"type": "function", "function": {"name": N, "arguments": A}}
        {"tool_calls": [...]}          or a list, of such objects only

    and N is the name of a bound tool and A, an object or its JSON text, is valid by that tool's schema. So JSON that was
    asked for and only looks like a call stays text, unless it is a valid call of a tool that is there.
    """
    if isinstance(value, dict) and value.keys() == {"tool_calls"}:
        value = value["tool_calls"]
    items = value if isinstance(value, list) else [value]
    calls = [_recognised(item, tools) for item in items]
    return tuple(call for call in calls if call is not None) if calls and None not in calls else ()


def _recognised(value: Any, tools: Sequence[ToolSpec]) -> tuple[str, str] | None:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        if not value.keys() <= {"id", "type", "index", "function"}:
            return None
        value = value["function"]
    if not isinstance(value, dict):
        return None
    keys = [key for key in _ARGUMENT_KEYS if key in value]
    if len(keys) != 1 or not value.keys() <= {"name", "id", "type", keys[0]}:
        return None
    arguments = value[keys[0]]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    tool = next((tool for tool in tools if tool.name == value.get("name")), None)
    if tool is None or not isinstance(arguments, dict) or not _is_valid(tool.parameters, arguments):
        return None
    return tool.name, json.dumps(arguments, ensure_ascii=False)


def _is_valid(schema: Mapping[str, Any], arguments: dict[str, Any]) -> bool:
    try:
        return check_instance(schema, arguments).is_valid
    except ConfigurationError:
        return False  # the tool's schema is none, so nothing is valid by it


class _Passage:
    """A stretch of text in which nothing is looked for: JSON that is no call, or a fence of something else.

    Args:
        kind: "json" ends where its brackets are closed, or at a blank line if it was no JSON after all; "fence" ends behind
            its closing fence.
    """

    def __init__(self, kind: Literal["json", "fence"]) -> None:
        self._kind = kind
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self._last = ""

    def take(self, text: str) -> int | None:
        """How many characters of the next piece belong to it; None: all, and more may."""
        step = self._take_json if self._kind == "json" else self._take_fence
        for place, character in enumerate(text):
            if step(character):
                return place + 1
        return None

    def _take_json(self, character: str) -> bool:
        is_blank_line = character == self._last == "\n"
        self._last = character
        if self._in_string:
            self._in_string = character != '"' or self._is_escaped
            self._is_escaped = character == "\\" and not self._is_escaped
        elif character == '"':
            self._in_string = True
        elif character in "[{":
            self._depth += 1
        elif character in "]}":
            self._depth -= 1
            return self._depth <= 0
        return is_blank_line

    def _take_fence(self, character: str) -> bool:
        # The opening fence counts too: three backticks, twice.
        self._depth += character == "`"
        return self._depth == 6  # noqa: PLR2004


@dataclass(frozen=True)
class _Verdict:
    """The first `length` characters of what is held are these calls; or text, which may go on as a passage."""

    length: int
    calls: tuple[tuple[str, str], ...] = ()
    passage: _Passage | None = None


class LeakedCallReader:
    """Takes leaked calls out of a text while it is generated.

    Args:
        tools: The tools that are bound.
        make_id: Makes the id of a call.

    Attributes:
        has_unread_marker: A marker came that no valid call of a bound tool followed.
    """

    def __init__(self, tools: Sequence[ToolSpec], make_id: Callable[[], str] = make_tool_call_id) -> None:
        self.has_unread_marker = False
        self._tools = tuple(tools)
        self._make_id = make_id
        self._held = ""
        self._judged_length = 0  # of what is held, when it was found that more must come
        self._lead: str | None = ""  # blanks before the first text: they go where a call goes
        self._passage: _Passage | None = None
        self._is_line_start = True
        self._is_behind_call = False
        self._n_calls = 0

    def feed(self, text: str, *, is_last: bool = False) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Take the next piece; returns the next piece of the answer and the next fragments of calls."""
        self._held += text
        texts: list[str] = []
        deltas: list[ToolCallDelta] = []
        while self._held:
            if self._is_behind_call:
                self._held = self._held.lstrip()
                self._is_behind_call = not self._held
            elif self._passage is not None:
                end = self._passage.take(self._held)
                texts.append(self._taken(len(self._held) if end is None else end))
                self._passage = self._passage if end is None else None
            else:
                if not is_last and not self._is_worth_judging():
                    break
                start = self._candidate()
                texts.append(self._taken(self._certain_length(is_last=is_last) if start is None else start))
                verdict = self._verdict(is_last=is_last) if start is not None else None
                self._judged_length = len(self._held) if start is not None and verdict is None else 0
                if verdict is None:
                    break
                texts.append(self._obeyed(verdict, deltas))
        if is_last:
            texts.append(self._taken(len(self._held)))
            if self._lead and self._n_calls == 0:
                texts.append(self._lead)
        return "".join(texts), tuple(deltas)

    def _is_worth_judging(self) -> bool:
        """Whether what is held has grown enough: all of it is read each time, and a file may come letter by letter."""
        return self._judged_length < _LONG or len(self._held) >= self._judged_length * _GROWTH

    def _obeyed(self, verdict: _Verdict, deltas: list[ToolCallDelta]) -> str:
        if verdict.calls:
            self._held = self._held[verdict.length :]
            self._is_behind_call = self._is_line_start = True
            deltas += self._deltas(verdict.calls)
            return ""
        self._passage = verdict.passage
        # What opens a passage is left to it, so that its brackets are counted.
        return self._taken(verdict.length) if verdict.passage is None else ""

    def _deltas(self, calls: tuple[tuple[str, str], ...]) -> list[ToolCallDelta]:
        deltas = []
        for name, arguments in calls:
            deltas.append(ToolCallDelta(self._n_calls, id=self._make_id(), name=name))
            deltas.append(ToolCallDelta(self._n_calls, arguments=arguments))
            self._n_calls += 1
        return deltas

    def _taken(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        _, newline, line = text.rpartition("\n")
        self._is_line_start = not line.strip(" \t") and (bool(newline) or self._is_line_start)
        if self._lead is None:
            return text
        if not text or text.isspace():
            self._lead += text
            return ""
        text, self._lead = self._lead + text, None
        return text

    def _candidate(self) -> int | None:
        """Where the first candidate begins."""
        for found in _OPENING.finditer(self._held):
            if found["marker"]:
                return found.start()
            if found.start() > 0 or self._is_line_start:
                return found.start("line")
        return None

    def _certain_length(self, *, is_last: bool) -> int:
        """How much of what is held is text, whatever follows: all but what may become a marker or a fence."""
        held = self._held
        if is_last:
            return len(held)
        for length in range(min(max(map(len, MARKERS)) - 1, len(held)), 0, -1):
            if any(marker.startswith(held[-length:]) for marker in MARKERS):
                return len(held) - length
        line = held.rpartition("\n")[2]
        if (len(line) < len(held) or self._is_line_start) and line.strip(" \t") in ("`", "``"):
            return len(held) - len(line)
        return len(held)

    # -- verdicts: None is to wait for more -------------------------------------------------------------------------

    def _verdict(self, *, is_last: bool) -> _Verdict | None:
        held = self._held
        marker = next((marker for marker in MARKERS if held.startswith(marker)), None)
        if marker is not None:
            return self._after_marker(marker, is_last=is_last)
        if not is_last and any(known.startswith(held) for known in MARKERS):
            return None
        if held.startswith("```"):
            return self._fenced(is_last=is_last)
        return self._bare(is_last=is_last)

    def _bare(self, *, is_last: bool) -> _Verdict | None:
        as_text = _Verdict(0, passage=_Passage("json"))
        if not _may_be_call(self._held):
            return as_text
        decoded = _values(self._held, 0, is_single=True)
        if decoded is None:
            return as_text
        values, end = decoded
        if not values:
            return as_text if is_last else None
        rest = self._held[end:].lstrip(" \t\r")
        if not rest and not is_last:
            return None
        calls = recognised_calls(values[0], self._tools)
        # A sentence that goes on behind the JSON talks about a call; it makes none.
        return _Verdict(end, calls) if calls and (not rest or rest.startswith("\n")) else as_text

    def _fenced(self, *, is_last: bool) -> _Verdict | None:
        as_text = _Verdict(0, passage=_Passage("fence"))
        opening = _FENCE.match(self._held)
        if opening is None:
            is_open = not is_last and _FENCE_SO_FAR.match(self._held)
            return None if is_open else as_text
        if not _may_be_call(self._held[opening.end() :]):
            return as_text
        decoded = _values(self._held, opening.end())
        if decoded is None:
            return as_text
        values, end = decoded
        rest = self._held[end:].lstrip()
        if not is_last and (not values or "```".startswith(rest)) and rest != "```":
            return None
        calls = self._recognised(values)
        if not calls or not rest.startswith("```"):
            return as_text
        return _Verdict(len(self._held) - len(rest) + 3, calls)

    def _after_marker(self, marker: str, *, is_last: bool) -> _Verdict | None:
        held = self._held
        begin = 0 if marker == "<function=" else len(marker)
        calls: tuple[tuple[str, str], ...] = ()
        end = begin
        tagged = _TAGGED.match(held, begin)
        named = _NAME.match(held, begin)
        if tagged is not None and "<parameter=" in tagged["body"]:
            calls, end = self._of_tags(tagged), tagged.end()
        else:
            decoded = _values(held, named.end() if named else begin)
            values, end = decoded or ([], begin)
            if named and len(values) == 1:
                values = [{"name": named["tag"] or named["bare"], "arguments": values[0]}]
            calls = self._recognised(values)
            is_open = decoded is not None and not values
            if not is_last and not calls and (is_open or _is_marker_open(held[begin:])):
                return None
        if not calls:
            self.has_unread_marker = True
            return _Verdict(len(marker))
        closed = _CLOSERS.match(held, end)
        end = closed.end() if closed else end
        rest = held[end:].strip()
        if not is_last and (not rest or (rest[0] in "<,;" and len(rest) < max(map(len, MARKERS)))):
            return None  # a closing tag, or a further call
        return _Verdict(end, calls)

    def _of_tags(self, tagged: re.Match[str]) -> tuple[tuple[str, str], ...]:
        """The form of Qwen3-Coder: `<function=N><parameter=K>V</parameter></function>`; values may be bare text."""
        texts = {found["key"]: found["value"] for found in _PARAMETER.finditer(tagged["body"])}
        read = {key: _json_or_text(text) for key, text in texts.items()}
        for arguments in (read, texts):
            calls = recognised_calls({"name": tagged["name"], "arguments": arguments}, self._tools)
            if calls:
                return calls
        return ()

    def _recognised(self, values: list[Any]) -> tuple[tuple[str, str], ...]:
        found = [recognised_calls(value, self._tools) for value in values]
        return tuple(call for calls in found for call in calls) if found and all(found) else ()


def _may_be_call(text: str) -> bool:
    """Whether JSON that begins so can have the form of a call."""
    found = _JSON_SO_FAR.match(text)
    if found is None or found.end() == 0:
        return False
    key = found["key"]
    if key is None or (not found["end"] and found.end() < len(text)):
        return found.end() == len(text)
    return key in _FIRST_KEYS if found["end"] else any(known.startswith(key) for known in _FIRST_KEYS)


def _is_marker_open(text: str) -> bool:
    """Whether what follows a marker may still become a call: a name, a tag, or the beginning of JSON."""
    text = text.lstrip()
    if text.startswith("<function="):
        return "</function>" not in text
    return "<function=".startswith(text) or bool(re.fullmatch(r"[\w.:-]+(?:\[\w*\]?\w*)*\s*", text))


def _values(text: str, place: int, *, is_single: bool = False) -> tuple[list[Any], int] | None:
    """JSON values one after the other, and where they end; none: not complete yet. None: this is no JSON."""
    values: list[Any] = []
    while True:
        start = place + len(text[place:]) - len(text[place:].lstrip())
        try:
            value, end = _DECODER.raw_decode(text, start)
        except RecursionError:
            return None
        except json.JSONDecodeError as error:
            is_cut = error.msg.startswith("Unterminated string") or error.pos >= len(text) - _LONGEST_TOKEN
            return ([], place) if is_cut else None
        values.append(value)
        separator = _SEPARATOR.match(text, end)
        if is_single or separator is None:
            return values, end
        place = separator.end()


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
