r"""The grammar (GBNF) of a prepared schema, for raw completions.

`/v1/chat/completions` makes a grammar of a schema itself. `/completion` does so too, but a llama.cpp that was built with
llguidance then gives the schema to that library, which writes the byte 0xE2 where a constant has a blank. A grammar of our
own means the same to every build; and its numbers have an end, which those of newer converters have not.

Read is what `prepare_schema` and `Envelope.schema` write, no more: objects in a fixed order, lists and tuples, patterns in the
dialect of `patterns.py`, constants, whole numbers between bounds, unions, and references to definitions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["grammar_of"]

_SPACE = r'| " " | "\n"{1,2} [ \t]{0,20}'  # as llama.cpp lets models indent
_BUILT_IN: dict[str, tuple[str, tuple[str, ...]]] = {  # the text of a rule, and the rules that it speaks of
    # Models write escapes such as \u00e9 too; those of surrogates alone are no text.
    "char": (r'[^"\\\x7F\x00-\x1F] | [\\] (["\\/bfnrt] | "u" code-unit [0-9a-fA-F]{2})', ("code-unit",)),
    "code-unit": (r"[0-9a-cefA-CEF] [0-9a-fA-F] | [dD] [0-7]", ()),
    "string": (r'"\"" char* "\""', ("char",)),
    # 20 digits hold every integer of 64 bits; with an exponent below 280, 20 digits are still a finite double.
    "whole": (r"[0] | [1-9] [0-9]{0,19}", ()),
    "exponent": (r'[0-9]{1,2} | [1] [0-9]{2} | "2" [0-7] [0-9]', ()),
    "integer": (r'"-"? whole', ("whole",)),
    "number": (r'"-"? whole ("." [0-9]{1,20})? ([eE] [-+]? exponent)?', ("whole", "exponent")),
    "boolean": ('"true" | "false"', ()),
    "null": ('"null"', ()),
    "value": (
        "object | array | string | number | boolean | null",
        ("object", "array", "string", "number", "boolean", "null"),
    ),
    "member": ('string ":" space value', ("string", "value")),
    "object": (r'"{" space (member ("," space member)* space)? "}"', ("member",)),
    "array": ('"[" space (value ("," space value)* space)? "]"', ("value",)),
}
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_PATTERN_PIECE = re.compile(r"\[(?:\\.|[^\\\]])*\]|[A-Za-z0-9]|[()|*+?]|\{\d+(?:,\d*)?\}|.", re.DOTALL)


def grammar_of(schema: Mapping[str, Any]) -> str:
    """The grammar of the JSON texts that a prepared schema describes.

    Args:
        schema: As `prepare_schema` or `Envelope.schema` wrote it, or `{"type": "object"}`.

    Raises:
        ValueError: It holds what neither of them writes.
    """
    return _Writer(schema.get("$defs") or {}).grammar(schema)


class _Writer:
    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._names: dict[str, str] = {}
        self._rules: dict[str, str] = {}
        self._rule_of: dict[str, str] = {}

    def grammar(self, schema: Mapping[str, Any]) -> str:
        rules = {"root": self._expression(schema), "space": _SPACE, **self._rules}
        return "".join(f"{name} ::= {text}\n" for name, text in rules.items())

    # -- rules ------------------------------------------------------------------------------------------------------

    def _built_in(self, name: str) -> str:
        if name not in self._rules:
            self._rules[name], parts = _BUILT_IN[name]
            for part in parts:
                self._built_in(part)
        return name

    def _rule(self, text: str) -> str:
        """The name of a rule of this text: a group that is repeated must be one name, or llama.cpp counts its parts."""
        if _NAME.fullmatch(text):
            return text
        if text not in self._rule_of:
            name = self._rule_of[text] = f"r{len(self._rule_of) + 1}"
            self._rules[name] = text
        return self._rule_of[text]

    def _definition(self, reference: str) -> str:
        if reference not in self._names:
            name = self._names[reference] = f"d{len(self._names) + 1}"
            definition = self._definitions.get(reference.removeprefix("#/$defs/"))
            if definition is None:
                raise ValueError(f"the reference {reference!r} leads nowhere")
            self._rules[name] = ""  # keeps its place; the definition may speak of itself
            self._rules[name] = self._expression(definition)
        return self._names[reference]

    # -- expressions ------------------------------------------------------------------------------------------------

    def _expression(self, schema: Mapping[str, Any]) -> str:
        if "$ref" in schema:
            return self._definition(schema["$ref"])
        if "anyOf" in schema:
            return _choice(self._expression(each) for each in schema["anyOf"])
        if "enum" in schema or "const" in schema:
            values = schema["enum"] if "enum" in schema else [schema["const"]]
            return _choice(_literal(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) for value in values)
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema)
        if kind == "string":
            return self._string(schema)
        if kind == "integer" and schema.keys() & {"minimum", "maximum"}:
            return _choice(_integers(schema["minimum"], schema["maximum"]))
        if kind in ("integer", "number", "boolean", "null"):
            return self._built_in(kind)
        if kind is None and not schema.keys() - {"$defs"}:
            return self._built_in("value")
        raise ValueError(f"this is no prepared schema: {schema!r:.200}")

    def _string(self, schema: Mapping[str, Any]) -> str:
        if "pattern" in schema:
            return rf'"\"" {self._pattern(schema["pattern"])} "\""'
        if not schema.keys() & {"minLength", "maxLength"}:
            return self._built_in("string")
        count = f"{{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}}"
        return rf'"\"" {self._built_in("char")}{count} "\""'

    def _array(self, schema: Mapping[str, Any]) -> str:
        if "prefixItems" in schema:
            items = [self._expression(each) for each in schema["prefixItems"]]
            inner = ' "," space '.join(items)
            return f'"[" space {inner} space "]"'
        if "items" not in schema:
            return self._built_in("array")
        item = self._rule(self._expression(schema["items"]))
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return '"[" space "]"'
        more = f'("," space {item}){{{max(0, least - 1)},{"" if most is None else most - 1}}}'
        inner = f"{item} {more} space"
        return f'"[" space {inner} "]"' if least else f'"[" space ({inner})? "]"'

    def _object(self, schema: Mapping[str, Any]) -> str:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        rest = schema.get("additionalProperties", True)
        if not properties and rest is True:
            return self._built_in("object")
        required = [name for name in properties if name in schema.get("required", ())]
        members = [self._member(name, properties[name]) for name in required]
        optional = [self._rule(self._member(name, properties[name])) for name in properties if name not in required]
        endless = None
        if rest is not False:
            endless = self._rule(f'{self._other_name(properties)} ":" space {self._expression(rest)}')
        text = ' "," space '.join(members)
        inner = text + self._tail(optional, endless) if members else self._any_first(optional, endless)
        return f'"{{" space {inner} space "}}"' if members else f'"{{" space ({inner} space)? "}}"'

    def _member(self, name: str, schema: Mapping[str, Any]) -> str:
        return f'{_literal(json.dumps(name, ensure_ascii=False))} ":" space {self._expression(schema)}'

    def _tail(self, optional: Sequence[str], endless: str | None) -> str:
        """What may follow a member."""
        parts = [f' ("," space {each})?' for each in optional]
        parts += [f' ("," space {endless})*'] if endless is not None else []
        return "".join(parts)

    def _any_first(self, optional: Sequence[str], endless: str | None) -> str:
        """Members of which none is required: each may be the first."""
        options = []
        tail = self._tail((), endless)
        for name in reversed(optional):
            options.append(name + tail)
            # As a rule, since it stands in the next option too: so the text grows with the number of members only.
            tail = " " + self._rule(f'("," space {name})?{tail}')
        options.reverse()
        if endless is not None:
            options.append(endless + self._tail((), endless))
        return _choice(options)

    def _other_name(self, names: Iterable[str]) -> str:
        """A member's name that is none of these: it begins otherwise than all of them, which is simple and enough."""
        firsts = "".join(f"\\U{ord(name[0]):08X}" for name in names if name)
        if not firsts:
            return self._built_in("string")
        return rf'"\"" [^"\\\x7F\x00-\x1F{firsts}] {self._built_in("char")}* "\""'

    # -- patterns ---------------------------------------------------------------------------------------------------

    def _pattern(self, pattern: str) -> str:
        """A pattern as `patterns.written` wrote it; a class means the same in both."""
        pieces = _PATTERN_PIECE.findall(pattern[1:-1]) if re.fullmatch(r"\^.*\$", pattern, re.DOTALL) else ["^"]
        levels: list[list[str]] = [[]]
        for piece in pieces:
            level = levels[-1]
            if piece == "(":
                levels.append([])
            elif piece == ")" and len(levels) > 1:
                levels[-2].append(self._group(levels.pop()))
            elif piece == "|" or piece[0] == "[":
                level.append(piece)
            elif piece[0] in "*+?{" and level:
                level[-1] += piece
            elif piece.isalnum():
                level.append(f'"{piece}"')
            else:
                raise ValueError(f"this is no prepared pattern: {pattern!r:.200}")
        return f"({' '.join(levels[0])})" if "|" in levels[0] else " ".join(levels[0]) or '""'

    def _group(self, parts: list[str]) -> str:
        return self._rule(" ".join(parts) or '""')


def _choice(options: Iterable[str]) -> str:
    listed = list(dict.fromkeys(options))
    return listed[0] if len(listed) == 1 else f"({' | '.join(listed)})"


def _literal(text: str) -> str:
    """A text between quotes of the grammar. JSON text holds no control characters but these."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\x7f", "\\x7F")
    return f'"{escaped}"'


# -- whole numbers ----------------------------------------------------------------------------------------------------


def _integers(low: int, high: int) -> list[str]:
    options = []
    if low < 0:
        options += [f'"-" {each}' for each in _magnitudes(max(1, -high), -low)]
    if high >= 0:
        options += _magnitudes(max(0, low), high)
    return options


def _magnitudes(low: int, high: int) -> list[str]:
    """Digits of the numbers within, without leading zeros, by their length."""
    options = []
    for length in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (length - 1) if length > 1 else 0)
        options.append(_digits(str(first), str(min(high, 10**length - 1))))
    return options


def _digits(low: str, high: str) -> str:
    """Digits between two of the same length."""
    if not low:
        return ""
    if set(low) == {"0"} and set(high) == {"9"}:
        return f"[0-9]{{{len(low)}}}"
    first, last = int(low[0]), int(high[0])
    if first == last:
        return f'"{first}" {_digits(low[1:], high[1:])}'.strip()
    zeros, nines = "0" * (len(low) - 1), "9" * (len(low) - 1)
    options = []
    if low[1:] != zeros:
        options.append(f'"{first}" {_digits(low[1:], nines)}')
        first += 1
    is_cut = high[1:] != nines
    if first <= last - is_cut:
        options.append(f"[{first}-{last - is_cut}] {_digits(zeros, nines)}".strip())
    if is_cut:
        options.append(f'"{last}" {_digits(zeros, high[1:])}')
    return _choice(options)
