r"""Regular expressions in the dialect of llama.cpp's `pattern`, which knows `^...$`, classes, groups, `|` and repetition.

The converter writes a pattern into the grammar between two quotes as it is, so a pattern must describe the string as it
stands in the JSON text: no raw quote, backslash or control character. Everything else (`\d`, `\w`, unanchored patterns, ...)
it would silently take for "any string". So a pattern is read with Python's own parser, and written anew; every string
that the result describes matches the original, and where the original is endless, its repetition is bounded.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "ANY_CHARACTER",
    "Characters",
    "Choice",
    "Node",
    "Repeat",
    "Sequence",
    "fitted",
    "read_pattern",
    "width",
    "written",
]

_MAX_CODE_POINT = 0x10FFFF
_LONGEST_REPEAT = 1900  # llama.cpp reads a longer one as endless, or refuses it (MAX_REPETITION_THRESHOLD is 2000)
_ENDLESS = 2**31 - 1  # at least this is what the parsers of all Python versions say for "no end"
_PADDING = 100  # characters before and after what an unanchored pattern looks for


class Characters(NamedTuple):
    """One character of these ranges of code points, sorted and apart."""

    ranges: tuple[tuple[int, int], ...]


class Sequence(NamedTuple):
    """One after the other."""

    parts: tuple[Node, ...]


class Choice(NamedTuple):
    """One of these."""

    options: tuple[Node, ...]


class Repeat(NamedTuple):
    """The same part again and again; `most` may be infinite."""

    part: Node
    least: int
    most: float


Node: TypeAlias = "Characters | Sequence | Choice | Repeat"


class _Unsupported(Exception):  # noqa: N818 - never leaves this module
    pass


ANY_CHARACTER = Characters(((0x09, 0x0A), (0x0D, 0x0D), (0x20, 0x7E), (0x80, 0xD7FF), (0xE000, _MAX_CODE_POINT)))
_DIGITS = ((0x30, 0x39),)
_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE = ((0x09, 0x0D), (0x1C, 0x20))  # Python counts the four separators before the blank too
# Python's classes hold more than ASCII: the positive ones are cut to it, the negative ones lose all beyond it.
_CATEGORIES = {
    "CATEGORY_DIGIT": _DIGITS,
    "CATEGORY_WORD": _WORD,
    "CATEGORY_SPACE": _SPACE,
}
_ASCII = ((0x00, 0x7F),)


def read_pattern(pattern: str, longest: int | None) -> Node | None:
    """Parse a pattern as `re.search` understands it.

    Args:
        pattern: A valid regular expression.
        longest: Bound of endless repetition of one character, in characters; None leaves it endless.

    Returns:
        What a whole string must look like, or None if the pattern needs what the grammar does not have (lookaround other
        than a leading "not only these characters", word boundaries, back references, flags).
    """
    try:
        parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
        tree = parser.parse(pattern)
        if tree.state.flags & ~int(re.UNICODE):
            return None
        return _Reader(longest).whole(list(tree))
    except (_Unsupported, re.error, RecursionError):
        return None


class _Reader:
    def __init__(self, longest: int | None) -> None:
        self._longest = longest

    def whole(self, items: list[Any]) -> Node:
        if len(items) == 1 and str(items[0][0]) == "BRANCH":
            return Choice(tuple(self.whole(list(option)) for option in items[0][1][1]))
        if len(items) == 1 and str(items[0][0]) == "SUBPATTERN" and not items[0][1][1]:
            return self.whole(list(items[0][1][3]))
        begins = ends = False
        while items and _is_anchor(items[0], "AT_BEGINNING"):
            begins, items = True, items[1:]
        excluded = None
        if items and str(items[0][0]) == "ASSERT_NOT":
            excluded, items = self._only_these(items[0]), items[1:]
            if not begins:
                raise _Unsupported
        while items and _is_anchor(items[0], "AT_BEGINNING"):
            begins, items = True, items[1:]
        while items and _is_anchor(items[-1], "AT_END"):
            ends, items = True, items[:-1]
        parts = [self.node(item) for item in items]
        if excluded is not None:
            parts = _with_other_than(excluded, parts)
        padding = Repeat(ANY_CHARACTER, 0, math.inf if self._longest is None else min(_PADDING, self._longest))
        return Sequence((*(() if begins else (padding,)), *parts, *(() if ends else (padding,))))

    def _only_these(self, item: tuple[Any, Any]) -> Characters:
        r"""The characters of `(?![...]*$)`, which is how pydantic says that a decimal has a digit."""
        direction, items = item[1]
        rest = [each for each in items if not _is_anchor(each, "AT_BEGINNING")]
        is_pair = len(rest) == len(("class", "end"))
        if direction == 1 and is_pair and _is_anchor(rest[1], "AT_END") and str(rest[0][0]) == "MAX_REPEAT":
            least, _, body = rest[0][1]
            inner = self.node(body[0]) if least == 0 and len(body) == 1 else None
            if isinstance(inner, Characters):
                return inner
        raise _Unsupported

    def node(self, item: tuple[Any, Any]) -> Node:
        name, value = str(item[0]), item[1]
        if name in {"LITERAL", "NOT_LITERAL", "ANY", "IN"}:
            return _characters(name, value)
        if name == "SUBPATTERN":
            if value[1] or value[2]:
                raise _Unsupported
            return self._sequence(value[3])
        if name == "BRANCH":
            return Choice(tuple(self._sequence(option) for option in value[1]))
        if name in {"MAX_REPEAT", "MIN_REPEAT"}:
            least, most, body = value
            # MAXREPEAT is a named int of some billions
            return self._repeat(self._sequence(body), int(least), math.inf if int(most) >= _ENDLESS else int(most))
        raise _Unsupported

    def _sequence(self, items: Any) -> Node:
        parts = tuple(self.node(item) for item in items)
        return parts[0] if len(parts) == 1 else Sequence(parts)

    def _repeat(self, part: Node, least: int, most: float) -> Node:
        if least > _LONGEST_REPEAT:
            raise _Unsupported
        if most is math.inf or most > _LONGEST_REPEAT:
            is_plain = isinstance(part, Characters)
            if most is not math.inf:
                most = _LONGEST_REPEAT
            elif self._longest is not None and is_plain:
                # A counted repetition of what varies in length itself would make the grammar ambiguous without need.
                most = max(least, min(self._longest, _LONGEST_REPEAT))
        return Repeat(part, least, most)


def _is_anchor(item: tuple[Any, Any], kind: str) -> bool:
    return str(item[0]) == "AT" and str(item[1]).startswith(kind)


def _characters(name: str, value: Any) -> Characters:
    if name == "LITERAL":
        return Characters(((value, value),))
    if name == "NOT_LITERAL":
        return _within(ANY_CHARACTER.ranges, _complement(((value, value),)))
    if name == "ANY":
        return _within(ANY_CHARACTER.ranges, _complement(((0x0A, 0x0A),)))
    is_negated = str(value[0][0]) == "NEGATE"
    ranges: list[tuple[int, int]] = []
    for kind, what in value[1:] if is_negated else value:
        ranges += _class_member(str(kind), what, is_negated=is_negated)
    merged = _merged(ranges)
    return _within(ANY_CHARACTER.ranges, _complement(merged)) if is_negated else Characters(merged)


def _class_member(kind: str, what: Any, *, is_negated: bool) -> tuple[tuple[int, int], ...]:
    if kind == "LITERAL":
        return ((what, what),)
    if kind == "RANGE":
        return (tuple(what),)
    category = str(what)
    positive = _CATEGORIES[category.replace("_NOT", "")]
    if "_NOT" not in category:
        # In a negated class the whole of Unicode's digits and letters would have to be left out.
        return (*positive, (0x80, _MAX_CODE_POINT)) if is_negated else positive
    inverse = _complement(positive)
    return inverse if is_negated else _within(_ASCII, inverse).ranges


def _merged(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return tuple(result)


def _complement(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    result, next_low = [], 0
    for low, high in ranges:
        if low > next_low:
            result.append((next_low, low - 1))
        next_low = high + 1
    return (*result, (next_low, _MAX_CODE_POINT)) if next_low <= _MAX_CODE_POINT else tuple(result)


def _within(outer: tuple[tuple[int, int], ...], inner: tuple[tuple[int, int], ...]) -> Characters:
    pairs = ((max(a, c), min(b, d)) for a, b in outer for c, d in inner)
    return Characters(_merged([(low, high) for low, high in pairs if low <= high]))


def _with_other_than(excluded: Characters, parts: list[Node]) -> list[Node]:
    """Make sure of one character that is not excluded: the first repetition of only such characters occurs at least once."""
    for number, part in enumerate(parts):
        repeated = part.part if isinstance(part, Repeat) else part
        if isinstance(repeated, Characters) and not _within(repeated.ranges, excluded.ranges).ranges:
            if isinstance(part, Repeat) and part.least == 0:
                part = Repeat(repeated, 1, part.most)  # noqa: PLW2901
            return [*parts[:number], part, *parts[number + 1 :]]
    raise _Unsupported


# -- lengths ----------------------------------------------------------------------------------------------------------


def width(node: Node) -> tuple[int, float]:
    """The least and the greatest number of characters."""
    if isinstance(node, Characters):
        return (1, 1)
    if isinstance(node, Sequence):
        widths = [width(part) for part in node.parts]
        return sum(low for low, _ in widths), sum(high for _, high in widths)
    if isinstance(node, Choice):
        widths = [width(option) for option in node.options]
        return min(low for low, _ in widths), max(high for _, high in widths)
    low, high = width(node.part)
    return low * node.least, 0 if high == 0 or node.most == 0 else high * node.most


def fitted(node: Node, least: int, most: float) -> Node | None:
    """The same pattern with lengths within bounds, some of its strings given up; None if no way was found."""
    low, high = width(node)
    if least <= low and high <= most:
        return node
    if isinstance(node, Choice):
        options = [each for option in node.options if (each := fitted(option, least, most)) is not None]
        return Choice(tuple(options)) if options else None
    parts = node.parts if isinstance(node, Sequence) else (node,)
    for is_short in (False, True):
        for number, part in enumerate(parts):
            others = [*parts[:number], *parts[number + 1 :]]
            if is_short:
                others = [_shortest(each) for each in others]
            stretched = _stretched(part, width(Sequence(tuple(others))), least, most)
            if stretched is not None:
                return Sequence((*others[:number], stretched, *others[number:]))
    return None


def _shortest(node: Node) -> Node:
    return Repeat(node.part, node.least, node.least) if isinstance(node, Repeat) else node


def _stretched(part: Node, others: tuple[int, float], least: int, most: float) -> Node | None:
    if not isinstance(part, Repeat):
        return None
    low, high = width(part.part)
    if low != high or low == 0:
        return None
    fewest = max(part.least, math.ceil((least - others[0]) / low))
    room = min(part.most, _LONGEST_REPEAT, math.inf if most == math.inf else (most - others[1]) // low)
    return Repeat(part.part, fewest, int(room)) if fewest <= room else None


# -- writing ----------------------------------------------------------------------------------------------------------


def written(node: Node) -> str | None:
    """The pattern for llama.cpp, with `^` and `$`; None if it describes nothing that JSON text can hold."""
    text = _written(node)
    return None if text is None else f"^{text}$"


def _written(node: Node) -> str | None:
    if isinstance(node, Characters):
        return _written_class(node.ranges)
    if isinstance(node, Sequence):
        parts = [text for part in node.parts if (text := _written(part)) is not None]
        return "".join(parts) if len(parts) == len(node.parts) else None
    if isinstance(node, Choice):
        options = [text for option in node.options if (text := _written(option)) is not None]
        return f"({'|'.join(options)})" if options else None
    body = _written(node.part)
    if body is None or node.most == 0:
        return "" if node.least == 0 else None
    if (node.least, node.most) == (1, 1):
        return body
    return f"({body})" + _count(node.least, node.most) if body else ""


def _count(least: int, most: float) -> str:
    if most is math.inf or most == math.inf:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return "?" if (least, most) == (0, 1) else f"{{{least},{int(most)}}}"


_ESCAPED = {0x22: '"', 0x5C: "\\\\", 0x0A: "n", 0x09: "t", 0x0D: "r"}
_RAW = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, 0xD7FF), (0xE000, _MAX_CODE_POINT))
# Models write escapes such as \u00e9 too; those of surrogates alone are no text.
_WRITTEN_ANY = (
    r"([\x20-\x21\x23-\x5B\x5D-\x7E\x80-\uD7FF\uE000-\U0010FFFF]"
    r'|[\\](["\\/bfnrt]|u([0-9a-cefA-CEF][0-9a-fA-F]|[dD][0-7])[0-9a-fA-F][0-9a-fA-F]))'
)


def _written_class(ranges: tuple[tuple[int, int], ...]) -> str | None:
    if ranges == ANY_CHARACTER.ranges:
        return _WRITTEN_ANY
    raw = _within(_RAW, ranges).ranges
    escaped = "".join(letter for code, letter in _ESCAPED.items() if any(low <= code <= high for low, high in ranges))
    options = []
    if raw:
        options.append(_bracketed(raw))
    if escaped:
        options.append(rf"[\\][{escaped}]")
    if not options:
        return None
    return options[0] if len(options) == 1 and not escaped else f"({'|'.join(options)})"


def _bracketed(ranges: tuple[tuple[int, int], ...]) -> str:
    if (
        ranges[0] == ranges[-1]
        and ranges[0][0] == ranges[0][1]
        and chr(ranges[0][0]).isascii()
        and chr(ranges[0][0]).isalnum()
    ):
        return chr(ranges[0][0])
    body = "".join(_code(low) if low == high else f"{_code(low)}-{_code(high)}" for low, high in ranges)
    return f"[{body}]"


def _code(code: int) -> str:
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    digits = f"{code:X}"
    for letter, length in (("x", 2), ("u", 4)):
        if len(digits) <= length:
            return f"\\{letter}{digits.zfill(length)}"
    return f"\\U{digits.zfill(8)}"
