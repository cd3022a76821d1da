"""Strings and numbers in the words of llama.cpp's converter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from .acceptance import is_multiple
from .alternatives import Alternative, Notes
from .formats import CHECKED_FORMATS, FORMAT_PATTERNS
from .negation import EXCLUDED
from .patterns import ANY_CHARACTER, Node, Repeat, Sequence, fitted, read_pattern, width, written

__all__ = ["GenerationBounds", "free_text", "number_body", "string_body"]

_LONGEST_COUNT = 1900
"""The greatest count that is written; llama.cpp takes one over 2000 for endless, or refuses the grammar."""
_BLOCK = 500
_LARGEST_INTEGER = 10**15 - 1
"""The converter writes integers of 16 digits at most, and a bound on one side only may come out with leading zeros."""
_MOST_LISTED = 256  # alternatives of an enum that stands for a range


@dataclass(frozen=True)
class GenerationBounds:
    """Ends for what a schema leaves endless, so that a weak model's runaway answer ends and can be read.

    Attributes:
        max_string_length: Characters of a string without `maxLength` and of an endless pattern's repetition. The default
            is far above what models write by intention: a string argument of 20 kB passes.
        max_items: Items of an array without `maxItems`.
        max_free_depth: Levels of nested arrays and objects in a place that takes any value (`{}`).
    """

    max_string_length: int = 32_000
    max_items: int = 1_000
    max_free_depth: int = 4

    @classmethod
    def for_tokens(cls, max_tokens: int) -> GenerationBounds:
        """Bounds that let an answer of some strings end within a number of tokens: half a character a token."""
        length = max(32, min(max_tokens // 2, cls.max_string_length))
        return cls(max_string_length=length, max_items=max(4, min(max_tokens // 16, cls.max_items)), max_free_depth=2)


def _counts(alternative: Alternative, least_key: str, most_key: str) -> tuple[int, float]:
    least = max((int(schema[least_key]) for schema in alternative if least_key in schema), default=0)
    most = min((int(schema[most_key]) for schema in alternative if most_key in schema), default=math.inf)
    return least, most


def _excluded(alternative: Alternative) -> list[Any]:
    return [value for schema in alternative for value in schema.get(EXCLUDED, ())]


# -- strings ----------------------------------------------------------------------------------------------------------


def free_text(least: int, most: float) -> dict[str, Any] | None:
    """A string of any characters with these lengths; None if llama.cpp has no count for them. `least` is not above `most`."""
    if most is math.inf or most == math.inf:
        return {"type": "string", **({"minLength": least} if least else {})} if least <= _LONGEST_COUNT else None
    if most <= _LONGEST_COUNT:
        return {"type": "string", "minLength": least, "maxLength": int(most)}
    blocks, rest = divmod(least, _BLOCK)
    parts: list[Node] = [*_blocks(blocks, blocks), Repeat(ANY_CHARACTER, rest, rest)]
    free = int(most) - least
    # Blocks first, then one run that is at least as long as a block: every length, and hardly two ways to any of them.
    more = max(0, free // _BLOCK - 1)
    parts += [*_blocks(0, more), Repeat(ANY_CHARACTER, 0, free - more * _BLOCK)]
    return {"type": "string", "pattern": written(Sequence(tuple(parts)))}


def _blocks(least: int, most: int) -> list[Node]:
    if most == 0:
        return []
    most = min(most, _LONGEST_COUNT)
    return [Repeat(Repeat(ANY_CHARACTER, _BLOCK, _BLOCK), least, most)]


def string_body(
    alternative: Alternative, notes: Notes, bounds: GenerationBounds | None, *, is_narrow: bool
) -> dict[str, Any] | None:
    """A string as the converter enforces it, or None if there can be none."""
    least, most = _counts(alternative, "minLength", "maxLength")
    if excluded := [value for value in _excluded(alternative) if isinstance(value, str)]:
        if is_narrow:
            least, most = _other_lengths(least, most, excluded)
        else:
            _leave_all(alternative, notes, (EXCLUDED,))
    if least > most:
        return None
    longest = None if bounds is None else max(bounds.max_string_length, least)
    shaped = _shaped(alternative, notes, (least, most), longest)
    if shaped is not None:
        return shaped
    if most == math.inf and longest is not None:
        most = longest
    body = free_text(least, most)
    if body is None:
        _leave_all(alternative, notes, ("minLength",))
        return {"type": "string"}
    return body


def _other_lengths(least: int, most: float, excluded: list[str]) -> tuple[int, float]:
    """Longer than each excluded string; shorter where that is too long."""
    longer = max(len(value) for value in excluded) + 1
    if longer <= most:
        return max(least, longer), most
    return least, min(len(value) for value in excluded) - 1


def _shaped(
    alternative: Alternative, notes: Notes, lengths: tuple[int, float], longest: int | None
) -> dict[str, Any] | None:
    """By the first pattern or format that can be written; what else there is, is left to the check."""
    body: dict[str, Any] | None = None
    done: set[str] = set()
    for schema, keyword in _shapes(alternative):
        if schema[keyword] in done:
            continue
        done.add(schema[keyword])
        text = None if body is not None else _written_shape(schema[keyword], keyword, lengths, longest)
        if text is not None:
            body = {"enum": [""]} if text == "^$" else {"type": "string", "pattern": text}
        elif keyword == "pattern" or schema[keyword] in CHECKED_FORMATS:
            notes.leave(schema, keyword)
    return body


def _shapes(alternative: Alternative) -> Iterable[tuple[dict[str, Any], str]]:
    for keyword in ("pattern", "format"):
        for schema in alternative:
            if keyword in schema:
                yield schema, keyword


@lru_cache(maxsize=256)
def _written_shape(value: str, keyword: str, lengths: tuple[int, float], longest: int | None) -> str | None:
    pattern = value if keyword == "pattern" else FORMAT_PATTERNS.get(value)
    node = None if pattern is None else read_pattern(pattern, longest)
    node = None if node is None else fitted(node, *lengths)
    if node is None or (longest is not None and width(node)[0] > max(longest, lengths[0])):
        return None
    return written(node)


# -- numbers ----------------------------------------------------------------------------------------------------------


@dataclass
class _Range:
    low: Fraction | None = None
    high: Fraction | None = None
    is_open_low: bool = False
    is_open_high: bool = False

    def raise_low(self, bound: float, *, is_open: bool) -> None:
        value = Fraction(str(bound))
        if self.low is None or value > self.low or (value == self.low and is_open):
            self.low, self.is_open_low = value, is_open

    def lower_high(self, bound: float, *, is_open: bool) -> None:
        value = Fraction(str(bound))
        if self.high is None or value < self.high or (value == self.high and is_open):
            self.high, self.is_open_high = value, is_open

    def is_within(self, value: Fraction) -> bool:
        is_low = self.low is not None and (value < self.low or (self.is_open_low and value == self.low))
        is_high = self.high is not None and (value > self.high or (self.is_open_high and value == self.high))
        return not is_low and not is_high

    @property
    def is_empty(self) -> bool:
        if self.low is None or self.high is None:
            return False
        return self.low > self.high or (self.low == self.high and (self.is_open_low or self.is_open_high))

    def integers(self, step: int = 1) -> tuple[int | None, int | None]:
        """The first and last whole multiple of the step within."""
        low = high = None
        if self.low is not None:
            low = math.ceil(self.low / step) * step
            low += step if self.is_open_low and low == self.low else 0
        if self.high is not None:
            high = math.floor(self.high / step) * step
            high -= step if self.is_open_high and high == self.high else 0
        return low, high


def _read_range(alternative: Alternative) -> _Range:
    within = _Range()
    for schema in alternative:
        for keyword in ("minimum", "exclusiveMinimum"):
            if keyword in schema:
                within.raise_low(schema[keyword], is_open=keyword != "minimum")
        for keyword in ("maximum", "exclusiveMaximum"):
            if keyword in schema:
                within.lower_high(schema[keyword], is_open=keyword != "maximum")
    return within


def number_body(alternative: Alternative, notes: Notes, *, is_integer: bool, is_narrow: bool) -> dict[str, Any] | None:
    """A number as the converter enforces it, or None if there can be none.

    The converter knows bounds for integers only. A `number` with bounds is left free and to the check, since the whole
    numbers and a few fractions within them would force another value on the model than the one it means (48 for a latitude
    of 48.8566). The narrow form does just that.
    """
    within = _read_range(alternative)
    steps = [Fraction(str(schema["multipleOf"])) for schema in alternative if "multipleOf" in schema]
    excluded = [value for value in _excluded(alternative) if isinstance(value, int | float) and value is not True]
    if within.is_empty:
        return None
    step = _joint_step(steps)
    if is_integer or (step is not None and step.denominator == 1):
        whole = 1 if step is None else step.numerator
        return _integer(alternative, within, whole, excluded, notes, is_narrow=is_narrow)
    if within.low is None and within.high is None and step is None and not excluded:
        return {"type": "number"}
    if is_narrow:
        return _narrow_number(within, step, excluded)
    _leave_all(
        alternative, notes, ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", EXCLUDED)
    )
    return {"type": "number"}


def _leave_all(alternative: Alternative, notes: Notes, keywords: Iterable[str]) -> None:
    for schema in alternative:
        for keyword in keywords:
            if keyword in schema:
                notes.leave(schema, keyword)


def _joint_step(steps: list[Fraction]) -> Fraction | None:
    if not steps:
        return None
    numerator = math.lcm(*(step.numerator for step in steps))
    return Fraction(numerator, math.gcd(*(step.denominator for step in steps)))


def _integer(
    alternative: Alternative, within: _Range, step: int, excluded: list[Any], notes: Notes, *, is_narrow: bool
) -> dict[str, Any] | None:
    low, high = within.integers(step)
    if low is not None and high is not None and low > high:
        return None
    if low is None and high is None and step == 1 and not excluded:
        return {"type": "integer"}
    low = max(-_LARGEST_INTEGER, -_LARGEST_INTEGER if low is None else low)
    high = min(_LARGEST_INTEGER, _LARGEST_INTEGER if high is None else high)
    if low > high:  # beyond 15 digits
        value = within.integers(step)[0 if low > 0 else 1]
        return {"enum": [value]}
    if step == 1 and not excluded:
        return {"type": "integer", "minimum": low, "maximum": high}
    if (high - low) // step < _MOST_LISTED or is_narrow:
        values = [value for value in _multiples(low, high, step) if value not in excluded]
        return {"enum": values} if values else None
    _leave_all(alternative, notes, ("multipleOf", EXCLUDED))
    return {"type": "integer", "minimum": low, "maximum": high}


def _multiples(low: int, high: int, step: int) -> list[int]:
    """Up to 256 multiples within, from the one nearest to zero outwards, in order."""
    first = -(-low // step) * step if low > 0 else (high // step * step if high < 0 else 0)
    values: list[int] = []
    for distance in range(_MOST_LISTED):
        values += [value for value in (first + distance * step, first - distance * step) if low <= value <= high]
    return sorted(set(values[:_MOST_LISTED]))


def _narrow_number(within: _Range, step: Fraction | None, excluded: list[Any]) -> dict[str, Any] | None:
    fractions = [value for value in _fractions(within, step) if value not in excluded]
    bodies: list[dict[str, Any]] = []
    low, high = within.integers()
    if step is None and not excluded and (low is None or high is None or low <= high):
        low = max(-_LARGEST_INTEGER, -_LARGEST_INTEGER if low is None else low)
        high = min(_LARGEST_INTEGER, _LARGEST_INTEGER if high is None else high)
        if low <= high:
            bodies.append({"type": "integer", "minimum": low, "maximum": high})
            fractions = [value for value in fractions if value != int(value)]
    if fractions:
        bodies.append({"enum": fractions})
    if not bodies:
        return None
    return bodies[0] if len(bodies) == 1 else {"anyOf": bodies}


def _fractions(within: _Range, step: Fraction | None) -> list[float]:
    """Up to some 256 numbers within, in even steps that are short in decimal digits."""
    if step is None:
        if within.low is None or within.high is None:
            # Only the first unit beside the one bound; further out the whole numbers stand for it.
            edge = within.low if within.low is not None else within.high
            low, high = (edge or Fraction(0)) - (within.low is None), (edge or Fraction(0)) + (within.low is not None)
        else:
            low, high = within.low, within.high
        if low == high:
            return [int(low) if low.denominator == 1 else float(low)]
        spread = high - low
        step = Fraction(10) ** (math.floor(math.log10(spread)) - 2)
        if spread / step > _MOST_LISTED:
            step *= 10
    else:
        low = within.low if within.low is not None else (within.high or Fraction(128) * step) - 128 * step
        high = within.high if within.high is not None else low + 128 * step
    first = math.ceil(low / step)
    count = min(_MOST_LISTED, math.floor(high / step) - first + 1)
    values = [(first + n) * step for n in range(max(0, count))]
    values += [edge for edge in (within.low, within.high) if edge is not None and is_multiple(float(edge), float(step))]
    found = sorted({value for value in values if within.is_within(value)})
    return [int(value) if value.denominator == 1 else float(value) for value in found]
