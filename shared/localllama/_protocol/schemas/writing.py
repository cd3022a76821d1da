"""Writes nodes out as one schema: what is used more than once, or by itself, becomes a definition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from .containers import Ref

__all__ = ["is_possible", "write_out"]

_Body = dict[str, Any] | None

_LARGE = frozenset({"additionalProperties", "anyOf", "enum", "items", "pattern", "prefixItems", "properties"})
"""A body with one of these is a definition where it is used twice; any other is written where it stands."""


def is_possible(bodies: Sequence[_Body]) -> list[bool]:
    """For each node whether a finite value can be written for it: by the least fixed point."""
    possible = [False] * len(bodies)
    is_changed = True
    while is_changed:
        is_changed = False
        for number, body in enumerate(bodies):
            if not possible[number] and _is_possible(body, possible):
                possible[number] = is_changed = True
    return possible


def _is_possible(body: Any, possible: list[bool]) -> bool:
    if isinstance(body, Ref):
        return possible[body.number]
    if body is None:
        return False
    if "anyOf" in body:
        return any(_is_possible(each, possible) for each in body["anyOf"])
    if "prefixItems" in body:
        return all(_is_possible(each, possible) for each in body["prefixItems"])
    if "items" in body:
        return body.get("minItems", 0) == 0 or _is_possible(body["items"], possible)
    if "properties" in body:
        return all(_is_possible(body["properties"][name], possible) for name in body["required"])
    return True


def write_out(bodies: Sequence[_Body], possible: list[bool], first: Ref) -> dict[str, Any]:
    """The schema whose root is the first node.

    The names of definitions matter: llama.cpp makes the names of grammar rules from them by replacing what is not a letter or
    digit, appends numbers where two clash, and in places finds a rule by name alone. `d1x` can clash with nothing. For the
    same reason a root with properties stands in a definition too: a property named `date_time` at the root would become
    the rule that dates are made of.
    """
    return _Writer(bodies, possible).root(first)


class _Writer:
    def __init__(self, bodies: Sequence[_Body], possible: list[bool]) -> None:
        self._bodies = bodies
        self._possible = possible
        self._uses: Counter[int] = Counter()
        self._names: dict[int, str] = {}
        self._definitions: dict[str, Any] = {}

    def root(self, first: Ref) -> dict[str, Any]:
        self._count(first)
        self._uses[first.number] += 1  # never inline: see write_out
        written = self._use(first)
        if self._definitions and "$ref" not in written:
            written = {**written, "$defs": self._definitions}
        elif self._definitions:
            written = {"$ref": written["$ref"], "$defs": dict(sorted(self._definitions.items(), key=_definition_order))}
        return written

    def _count(self, first: Ref) -> None:
        waiting = [first]
        while waiting:
            ref = waiting.pop()
            self._uses[ref.number] += 1
            if self._uses[ref.number] == 1:
                waiting += [each for each in _refs(self._bodies[ref.number]) if self._possible[each.number]]

    def _use(self, ref: Ref) -> dict[str, Any]:
        body = self._bodies[ref.number]
        is_used_once = self._uses[ref.number] == 1
        if is_used_once or not _is_worth_a_name(body):
            return self._written(body)
        name = self._names.get(ref.number)
        if name is None:
            name = self._names[ref.number] = f"d{len(self._names) + 1}x"
            self._definitions[name] = self._written(body)
        return {"$ref": f"#/$defs/{name}"}

    def _written(self, body: Any) -> dict[str, Any]:
        if isinstance(body, Ref):
            return self._use(body)
        if body is None:
            raise AssertionError("an impossible node is never written")  # pragma: no cover
        if "anyOf" in body:
            options = [self._written(each) for each in body["anyOf"] if _is_possible(each, self._possible)]
            return options[0] if len(options) == 1 else {"anyOf": options}
        if "prefixItems" in body:
            return {**body, "prefixItems": [self._written(each) for each in body["prefixItems"]]}
        if "items" in body:
            if not _is_possible(body["items"], self._possible):
                return {"const": []}
            return {**body, "items": self._written(body["items"])}
        if "properties" in body:
            return self._written_object(body)
        if "additionalProperties" in body:
            if not _is_possible(body["additionalProperties"], self._possible):
                return {"const": {}}
            return {**body, "additionalProperties": self._written(body["additionalProperties"])}
        scalar: dict[str, Any] = body
        return scalar

    def _written_object(self, body: dict[str, Any]) -> dict[str, Any]:
        properties = {
            name: self._written(each) for name, each in body["properties"].items() if _is_possible(each, self._possible)
        }
        rest: Any = False
        if "additionalProperties" in body and _is_possible(body["additionalProperties"], self._possible):
            rest = self._written(body["additionalProperties"])
        if not properties and rest is False:
            return {"const": {}}
        return {"type": "object", "properties": properties, "required": body["required"], "additionalProperties": rest}


def _definition_order(item: tuple[str, Any]) -> int:
    return int(item[0][1:-1])


def _is_worth_a_name(body: Any) -> bool:
    return isinstance(body, dict) and bool(_LARGE & body.keys())


def _refs(body: Any) -> Iterator[Ref]:
    if isinstance(body, Ref):
        yield body
    elif isinstance(body, dict):
        for value in body.values():
            yield from _refs(value)
    elif isinstance(body, list):
        for value in body:
            yield from _refs(value)
