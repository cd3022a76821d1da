"""Arrays and objects in the words of llama.cpp's converter.

The converter's arrays are either `items` with counts or a tuple of exact length; its objects are closed as soon as they name
a property, write the required properties first, and know no other keyword. What a schema says beyond that is rewritten to
these forms here, or left to the check.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .acceptance import accepts, same_value
from .alternatives import Alternative, Notes
from .form import Schema
from .places import SchemaIndex

__all__ = ["Ref", "Workshop", "array_bodies", "object_bodies"]

_MOST_ITEMS = 1900  # llama.cpp refuses or ignores greater counts
_MOST_TUPLES = 12  # alternatives of different lengths
_MOST_LISTED_ARRAYS = 130
_MOST_SUBSETS = 12
_ANY_NAME = "\0"  # stands for a name that no schema knows
_MAP_KEYWORDS = ("additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames")


class Ref(NamedTuple):
    """A node that is not written out yet."""

    number: int


@dataclass(frozen=True)
class Workshop:
    """What the builders of bodies share.

    Attributes:
        index: The places of the schema.
        notes: Gets what is left to the check.
        is_narrow: Give up instances rather than let one through that does not satisfy the schema.
        max_items: Items of an array that names no greatest number; None for no end.
        node: The node for schemas that must all hold.
        listed: Their values where they are few and known, else None.
    """

    index: SchemaIndex
    notes: Notes
    is_narrow: bool
    max_items: int | None
    node: Callable[[tuple[Schema, ...]], Ref]
    listed: Callable[[tuple[Schema, ...]], list[Any] | None]

    def leave(self, alternative: Alternative, keyword: str) -> None:
        """Leave a keyword to the check wherever it stands."""
        for schema in alternative:
            if keyword in schema:
                self.notes.leave(schema, keyword)


# -- arrays -----------------------------------------------------------------------------------------------------------


@dataclass
class _Items:
    """What an alternative says about items."""

    alternative: Alternative
    least: int = 0
    most: float = math.inf
    n_prefix: int = 0
    contains: list[dict[str, Any]] = field(default_factory=list)
    is_unique: bool = False

    def at(self, position: int) -> tuple[Schema, ...]:
        parts: list[Schema] = []
        for schema in self.alternative:
            prefix = schema.get("prefixItems", ())
            if position < len(prefix):
                parts.append(prefix[position])
            elif "items" in schema:
                parts.append(schema["items"])
            elif "unevaluatedItems" in schema and not self.covering(schema, position):
                parts.append(schema["unevaluatedItems"])
        return tuple(part for part in parts if part is not True)

    def covering(self, schema: dict[str, Any], position: int) -> list[dict[str, Any]]:
        """The schemas beside it that speak of an item, so that it counts as evaluated."""
        return [
            other
            for other in self.alternative
            if other is not schema
            and ("items" in other or "contains" in other or position < len(other.get("prefixItems", ())))
        ]


def _read_items(alternative: Alternative) -> _Items:
    items = _Items(alternative)
    for schema in alternative:
        items.least = max(items.least, int(schema.get("minItems", 0)))
        items.most = min(items.most, schema.get("maxItems", math.inf))
        items.n_prefix = max(items.n_prefix, len(schema.get("prefixItems", ())))
        items.is_unique |= schema.get("uniqueItems") is True
        if "contains" in schema and schema.get("minContains", 1) > 0:
            items.contains.append(schema)
    # The first place that nothing can fill ends the array.
    for position in range(items.n_prefix + 1):
        if position < items.most and False in items.at(position):
            items.most = position
    return items


def array_bodies(alternative: Alternative, shop: Workshop) -> list[dict[str, Any]]:
    """The bodies whose union an array is; none if there can be none."""
    items = _read_items(alternative)
    if items.least > items.most or any(
        schema.get("minContains", 1) > schema.get("maxContains", math.inf) for schema in items.contains
    ):
        return []
    if any("unevaluatedItems" in schema and items.covering(schema, 0) for schema in alternative):
        shop.leave(alternative, "unevaluatedItems")
    if items.is_unique and (unique := _unique_bodies(items, shop)) is not None:
        return unique
    if items.contains and (shop.is_narrow or len(items.contains) == 1):
        found = _containing_bodies(items, shop)
        if found is not None:
            return found
        shop.leave(alternative, "contains")
    elif items.contains:
        shop.leave(alternative, "contains")
    if any("maxContains" in schema and schema.get("minContains") == 0 for schema in alternative):
        shop.leave(alternative, "maxContains")
    return _tuples(items, shop, _lengths(items)) if items.n_prefix else _list(items, shop)


def _lengths(items: _Items) -> list[int]:
    usual = int(min(max(items.n_prefix, items.least), items.most))
    last = int(min(items.most, max(items.n_prefix + (0 if items.most == math.inf else _MOST_TUPLES), items.least)))
    lengths = [usual, *(n for n in range(items.least, last + 1) if n != usual)]
    return lengths[:_MOST_TUPLES]


def _tuples(items: _Items, shop: Workshop, lengths: list[int], first: tuple[Schema, ...] = ()) -> list[dict[str, Any]]:
    if lengths[0] > _MOST_ITEMS:
        shop.leave(items.alternative, "minItems")
    bodies: list[dict[str, Any]] = []
    for length in dict.fromkeys(min(length, _MOST_ITEMS) for length in lengths):
        if length == 0:
            bodies.append({"enum": [[]]})
        else:
            places = [shop.node((*first[n : n + 1], *items.at(n))) for n in range(length)]
            bodies.append(_tuple(places))
    return bodies


def _tuple(places: list[Any]) -> dict[str, Any]:
    # Some builds of llama.cpp take `prefixItems` alone for a tuple; to others, as to JSON Schema, it may be shorter or longer.
    return {"type": "array", "prefixItems": places, "minItems": len(places), "maxItems": len(places)}


def _list(items: _Items, shop: Workshop, also: tuple[Schema, ...] = ()) -> list[dict[str, Any]]:
    if items.most == 0:
        return [{"enum": [[]]}]
    body: dict[str, Any] = {"type": "array", "items": shop.node((*also, *items.at(0)))}
    least, most = items.least, items.most
    if most == math.inf and shop.max_items is not None:
        most = max(shop.max_items, least)
    if least > _MOST_ITEMS:
        shop.leave(items.alternative, "minItems")
        least, most = _MOST_ITEMS, math.inf
    elif most != math.inf:
        most = min(most, _MOST_ITEMS)
    if least:
        body["minItems"] = least
    if most != math.inf:
        body["maxItems"] = int(most)
    return [body]


def _unique_bodies(items: _Items, shop: Workshop) -> list[dict[str, Any]] | None:
    """Every array of different values where these are few; None where the rest of the rules must do."""
    if items.most <= 1:
        return None
    values = None if items.n_prefix or items.contains else shop.listed(items.at(0))
    if values is None:
        if shop.is_narrow and items.least <= 1 and not items.n_prefix:
            items.most = 1
        else:
            shop.leave(items.alternative, "uniqueItems")
        return None
    different = [value for n, value in enumerate(values) if not any(same_value(value, each) for each in values[:n])]
    if items.least > len(different):
        return []
    most = int(min(items.most, len(different)))
    lengths = range(items.least, most + 1)
    for choose in (itertools.permutations, itertools.combinations):  # in any order; else in the order of the list
        if sum(_count(choose, len(different), n) for n in lengths) <= _MOST_LISTED_ARRAYS:
            return [{"enum": [list(chosen) for n in lengths for chosen in choose(different, n)]}]
    if not shop.is_narrow:
        items.most = most
        shop.leave(items.alternative, "uniqueItems")
        return None
    # Each place draws from values of its own, so that no two places can hold the same one.
    count = max(1, items.least)
    shares = [_tuple([shop.node(({"enum": different[n::count]},)) for n in range(count)])]
    return [{"enum": [[]]}, *shares] if items.least == 0 else shares


def _count(choose: Any, n_values: int, n_chosen: int) -> int:
    return math.perm(n_values, n_chosen) if choose is itertools.permutations else math.comb(n_values, n_chosen)


def _containing_bodies(items: _Items, shop: Workshop) -> list[dict[str, Any]] | None:
    """Arrays that begin with what they must contain, or consist of it; None where that is too narrow to be fair."""
    wanted: list[Schema] = []
    for schema in items.contains:
        wanted += [schema["contains"]] * int(schema.get("minContains", 1))
    limits = [schema["maxContains"] for schema in items.contains if "maxContains" in schema]
    if len(wanted) > items.most:
        return []
    if not shop.is_narrow:
        return None
    if limits:
        every = tuple(schema["contains"] for schema in items.contains)
        items.least, items.most = max(items.least, len(wanted)), min(items.most, *limits)
        return _list(items, shop, every) if items.least <= items.most and not items.n_prefix else None
    least = max(items.least, len(wanted), items.n_prefix)
    lengths = [n for n in range(least, least + 8) if n <= items.most]
    return _tuples(items, shop, lengths, tuple(wanted)) if lengths else None


# -- objects ----------------------------------------------------------------------------------------------------------


def object_bodies(alternative: Alternative, shop: Workshop) -> list[dict[str, Any]]:
    """The bodies whose union an object is; none if there can be none."""
    names = list(dict.fromkeys(name for schema in alternative for name in schema.get("properties", ())))
    required = list(dict.fromkeys(name for schema in alternative for name in schema.get("required", ())))
    listed = _listed_names(alternative, shop)
    if not names and not required and listed is None:
        return _map_bodies(alternative, shop)
    names += [name for name in (*required, *(listed or ())) if name not in names]
    parts = {name: _property_parts(name, alternative, shop) for name in names}
    allowed = [name for name in names if False not in parts[name] and _is_allowed_name(name, alternative, shop)]
    if not set(required) <= set(allowed):
        return []
    _leave_unevaluated(allowed, alternative, shop)
    if _needs_more_names(allowed, alternative):
        shop.leave(alternative, "minProperties")
        properties = {name: shop.node(parts[name]) for name in allowed}
        rest = shop.node(_property_parts(_ANY_NAME, alternative, shop))
        return [{"type": "object", "properties": properties, "required": required, "additionalProperties": rest}]
    bodies = []
    for needed, possible in _by_number(allowed, required, alternative, shop):
        properties = {name: shop.node(parts[name]) for name in possible}
        bodies.append({"type": "object", "properties": properties, "required": list(needed)})
    return bodies


def _needs_more_names(allowed: list[str], alternative: Alternative) -> bool:
    """Whether `minProperties` asks for names that the schema does not give, but allows."""
    least = max((schema.get("minProperties", 0) for schema in alternative), default=0)
    most = min((schema.get("maxProperties", math.inf) for schema in alternative), default=math.inf)
    is_closed = any(
        schema.get(key) is False for schema in alternative for key in ("additionalProperties", "unevaluatedProperties")
    )
    # Other characters would go unescaped into llama.cpp's grammar of "any name but these".
    is_plain = all(re.fullmatch(r"\w+", name, re.ASCII) for name in allowed)
    return len(allowed) < least <= most and is_plain and not is_closed


def _property_parts(name: str, alternative: Alternative, shop: Workshop) -> tuple[Schema, ...]:
    parts: list[Schema] = []
    for schema in alternative:
        mine = [schema["properties"][name]] if name in schema.get("properties", ()) else []
        mine += [part for pattern, part in schema.get("patternProperties", {}).items() if re.search(pattern, name)]
        if not mine and "additionalProperties" in schema:
            mine = [schema["additionalProperties"]]
        if not mine and "unevaluatedProperties" in schema and not _speaking_of(name, schema, alternative, shop.index):
            mine = [schema["unevaluatedProperties"]]
        parts += mine
    return tuple(part for part in parts if part is not True)


def _speaking_of(
    name: str, schema: dict[str, Any], alternative: Alternative, index: SchemaIndex
) -> list[dict[str, Any]]:
    """The schemas beside it that speak of a property, so that it counts as evaluated."""
    return [
        other
        for other in alternative
        if other is not schema
        and not index.is_silent(other)
        and (
            name in other.get("properties", ())
            or "additionalProperties" in other
            or any(re.search(pattern, name) for pattern in other.get("patternProperties", ()))
        )
    ]


def _leave_unevaluated(names: list[str], alternative: Alternative, shop: Workshop) -> None:
    """Leave it to the check where a property is spoken of by what may not be below the schema that asks."""
    for schema in alternative:
        if "unevaluatedProperties" in schema:
            below = shop.index.place(schema).pointer + "/"
            others = [other for name in names for other in _speaking_of(name, schema, alternative, shop.index)]
            if any(not shop.index.place(other).pointer.startswith(below) for other in others):
                shop.notes.leave(schema, "unevaluatedProperties")


def _is_allowed_name(name: str, alternative: Alternative, shop: Workshop) -> bool:
    return all(accepts(name, schema.get("propertyNames", True), shop.index) for schema in alternative)


def _listed_names(alternative: Alternative, shop: Workshop) -> list[str] | None:
    """The names of a map whose `propertyNames` is a list, such as pydantic's `dict[Literal[...], X]`."""
    for schema in alternative:
        if "propertyNames" in schema:
            values = shop.listed((schema["propertyNames"],))
            if values is not None:
                return [value for value in values if isinstance(value, str)]
    return None


def _by_number(
    allowed: list[str], required: list[str], alternative: Alternative, shop: Workshop
) -> list[tuple[list[str], list[str]]]:
    """Pairs of required and possible names that keep `minProperties` and `maxProperties`."""
    least = max((int(schema.get("minProperties", 0)) for schema in alternative), default=0)
    most = min((schema.get("maxProperties", math.inf) for schema in alternative), default=math.inf)
    optional = [name for name in allowed if name not in required]
    if least > len(allowed) or most < len(required) or least > most:
        return []
    if most >= len(allowed):
        missing = least - len(required)
        if missing <= 0:
            return [(required, allowed)]
        if math.comb(len(optional), missing) > _MOST_SUBSETS:
            return [([*required, *optional[:missing]], allowed)]
        return [([*required, *chosen], allowed) for chosen in itertools.combinations(optional, missing)]
    room = int(most) - len(required)
    if math.comb(len(optional), room) > _MOST_SUBSETS:
        choices = [tuple(optional[:room])]
        if not shop.is_narrow and least <= len(required):
            shop.leave(alternative, "maxProperties")
            return [(required, allowed)]
    else:
        choices = list(itertools.combinations(optional, room))
    kept = [[name for name in allowed if name in required or name in chosen] for chosen in choices]
    missing = max(0, least - len(required))
    return [
        ([*required, *[name for name in possible if name not in required][:missing]], possible) for possible in kept
    ]


def _names_none_on_purpose(alternative: Alternative) -> bool:
    """Whether it is the object of a class without fields, and no map: as with one that has some, nothing else is written."""
    is_map = any(key in schema for schema in alternative for key in _MAP_KEYWORDS)
    return not is_map and any("properties" in schema for schema in alternative)


def _map_bodies(alternative: Alternative, shop: Workshop) -> list[dict[str, Any]]:
    """An object that names no property: any keys, one schema for all values."""
    least = max((int(schema.get("minProperties", 0)) for schema in alternative), default=0)
    most = min((schema.get("maxProperties", math.inf) for schema in alternative), default=math.inf)
    parts: list[Schema] = []
    is_closed = is_by_pattern = False
    for schema in alternative:
        patterns = schema.get("patternProperties", {})
        parts += patterns.values()
        rest: Any = schema.get("additionalProperties", schema.get("unevaluatedProperties", True))
        if rest is False and patterns:
            is_by_pattern = True
        elif rest is False:
            is_closed = True
        else:
            parts.append(rest)
    # `properties: {p: false}` alone says nothing about other names, but no such name is ever written.
    if most == 0 or is_closed or False in parts or (least == 0 and _names_none_on_purpose(alternative)):
        return [{"enum": [{}]}] if least == 0 else []
    unsure = [key for key, is_open in (("minProperties", least > 0), ("maxProperties", most < math.inf)) if is_open]
    if is_by_pattern:
        unsure += ["patternProperties", "additionalProperties", "unevaluatedProperties"]
    unsure += [key for key in ("propertyNames",) if any(schema.get(key, True) is not True for schema in alternative)]
    if unsure and shop.is_narrow and least == 0:
        return [{"enum": [{}]}]
    for key in unsure:
        shop.leave(alternative, key)
    return [{"type": "object", "additionalProperties": shop.node(tuple(part for part in parts if part is not True))}]
