"""Turns schemas that must all hold into a list of alternatives, each free of references and combinators.

`$ref`, `allOf`, `anyOf`, `oneOf`, `not`, `if` and the `dependent*` keywords are multiplied out, so that what stands beside
them, or in several members of an `allOf`, meets in one place. llama.cpp's converter would drop one side of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .acceptance import same_value
from .form import TYPE_NAMES, Schema, refusal
from .negation import EXCLUDED, constrains, negation
from .places import SchemaIndex

__all__ = ["Alternative", "Expander", "Notes", "declared_types"]

Alternative = tuple[dict[str, Any], ...]

_COMBINATORS = frozenset(
    {
        "$dynamicRef",
        "$ref",
        "allOf",
        "anyOf",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "not",
        "oneOf",
        "then",
    }
)
_MOST_ALTERNATIVES = 64  # of products; one union may have more members


@dataclass
class Notes:
    """What is left to the check of the answer, in the order in which it was met."""

    index: SchemaIndex
    places: dict[tuple[str, str], None] = field(default_factory=dict)

    def leave(self, schema: Schema, keyword: str) -> None:
        """Note that the grammar does not enforce a keyword."""
        # Our own keyword comes from the user's `not`.
        place = (self.index.place(schema).pointer, "not" if keyword == EXCLUDED else keyword)
        self.places[place] = None


class Expander:
    """Makes alternatives.

    Args:
        index: The places of the schema.
        notes: Gets what cannot be expressed.
        is_narrow: Give up instances rather than let one through that does not satisfy the schema.
    """

    def __init__(self, index: SchemaIndex, notes: Notes, *, is_narrow: bool) -> None:
        self._index = index
        self._notes = notes
        self._is_narrow = is_narrow
        self._made: dict[tuple[int, str], list[Schema]] = {}

    def alternatives(self, together: Iterable[Schema]) -> list[Alternative]:
        """The alternatives of schemas that must all hold; none if they contradict each other openly.

        Raises:
            ConfigurationError: A reference leads back to where it stands without going into a property or item.
        """
        result: list[Alternative] = [()]
        for schema in together:
            result = self._product(result, self._of(schema, frozenset()), schema, "allOf")
        return [alternative for alternative in map(_without_repeats, result) if declared_types(alternative)]

    def _of(self, schema: Schema, path: frozenset[int]) -> list[Alternative]:
        if isinstance(schema, bool):
            return [()] if schema else []
        if id(schema) in path:  # a validator would go round for ever
            fault = "it refers back to itself for the same value"
            raise refusal(
                self._index.place(schema).pointer, "$ref", fault, "Let recursion pass through a property or item."
            )
        path |= {id(schema)}
        result: list[Alternative] = [()]
        has_own = False
        for key in schema:
            if key in _COMBINATORS:
                for part in self._parts(key, schema, path):
                    result = self._product(result, part, schema, key)
            elif not has_own and constrains({key: schema[key]}):
                has_own = True
                result = [(*each, schema) for each in result]
        return result

    def _product(self, left: list[Alternative], right: list[Alternative], at: Schema, key: str) -> list[Alternative]:
        if min(len(left), len(right)) > 1 and len(left) * len(right) > _MOST_ALTERNATIVES:
            self._notes.leave(at, key)
            return left
        pairs = (a + b for a, b in itertools.product(left, right))
        return [pair for pair in pairs if declared_types(pair)]

    def _parts(self, key: str, schema: dict[str, Any], path: frozenset[int]) -> Iterator[list[Alternative]]:
        value = schema[key]
        if key in {"$ref", "$dynamicRef"}:
            yield self._referred(schema, key, path)
        elif key == "allOf":
            for part in value:
                yield self._of(part, path)
        elif key == "anyOf":
            yield self._union(self._tagged(schema, key), path)
        elif key == "oneOf":
            yield self._exclusive(schema, path)
        elif key == "not":
            yield self._negated(schema, path)
        elif key == "if":
            yield self._conditional(schema, path)
        elif key.startswith("dependent"):
            for name, part in value.items():
                yield self._dependent(schema, key, name, part, path)

    def _referred(self, schema: dict[str, Any], key: str, path: frozenset[int]) -> list[Alternative]:
        if key == "$dynamicRef" and self._index.is_ambiguous(schema):
            self._notes.leave(schema, key)
        return self._of(self._index.target(schema, key), path)

    def _dependent(
        self, schema: dict[str, Any], key: str, name: str, part: Any, path: frozenset[int]
    ) -> list[Alternative]:
        needed = [name, *part] if key == "dependentRequired" else [name]
        absent, present = self._make(schema, f"{key} {name}", [{"properties": {name: False}}, {"required": needed}])
        return self._of(absent, path) + self._both(present, True if key == "dependentRequired" else part, path)

    def _union(self, parts: Iterable[Schema], path: frozenset[int]) -> list[Alternative]:
        return [alternative for part in parts for alternative in self._of(part, path)]

    def _both(self, left: Schema, right: Schema, path: frozenset[int]) -> list[Alternative]:
        return self._product(self._of(left, path), self._of(right, path), left, "allOf")

    def _make(self, origin: Schema, label: str, parts: list[Schema]) -> list[Schema]:
        """Schemas of our own; the same objects each time, so that recursion is noticed."""
        made = self._made.get((id(origin), label))
        if made is None:
            made = [
                self._index.adopt(part, origin, is_silent=label == "not") if isinstance(part, dict) else part
                for part in parts
            ]
            self._made[(id(origin), label)] = made
        return made

    # -- not, if, oneOf -----------------------------------------------------------------------------------------------

    def _not(self, at: Schema, schema: Schema, path: frozenset[int]) -> list[Alternative] | None:
        """The alternatives of `not schema`, or None where they cannot be named (or, unless narrow, not all of them)."""
        if isinstance(schema, dict) and "$ref" in schema and not _constrains_beside(schema, "$ref"):
            target = self._index.target(schema, "$ref")
            return None if id(target) in path else self._not(at, target, path | {id(target)})
        alternatives, is_exact = negation(schema)
        if not is_exact and not (self._is_narrow and alternatives):
            return None
        if isinstance(schema, bool):
            return self._union(alternatives, path)
        return self._union(self._make(schema, "not", alternatives), path)

    def _negated(self, schema: dict[str, Any], path: frozenset[int]) -> list[Alternative]:
        alternatives = self._not(schema, schema["not"], path)
        if alternatives is None:
            self._notes.leave(schema, "not")
            return [()]
        return alternatives

    def _conditional(self, schema: dict[str, Any], path: frozenset[int]) -> list[Alternative]:
        condition, then, otherwise = schema["if"], schema.get("then", True), schema.get("else", True)
        if not constrains(then) and not constrains(otherwise):
            return [()]
        first = self._both(condition, then, path)
        unless = self._not(schema, condition, path)
        if unless is None:
            self._notes.leave(schema, "if")
            return first if self._is_narrow and first else first + self._of(otherwise, path)
        return first + self._product(unless, self._of(otherwise, path), schema, "else")

    def _exclusive(self, schema: dict[str, Any], path: frozenset[int]) -> list[Alternative]:
        parts = self._tagged(schema, "oneOf")
        expanded = [self._of(part, path) for part in parts]
        result: list[Alternative] = []
        for number, mine in enumerate(expanded):
            kept = mine
            for other, theirs in enumerate(expanded):
                if other == number or _are_disjoint(kept, theirs):
                    continue
                unless = self._not(schema, parts[other], path)
                if unless is None:
                    self._notes.leave(schema, "oneOf")
                else:
                    kept = self._product(kept, unless, schema, "oneOf")
            result += kept
        return result

    def _tagged(self, schema: dict[str, Any], key: str) -> list[Schema]:
        """The members of a union; where each has a tag of its own (a `const`), they must write it.

        pydantic does not require a tag that has a default, but without it an instance could be of another member.
        """
        parts: list[Schema] = schema[key]
        discriminator = schema.get("discriminator")
        name = discriminator.get("propertyName") if isinstance(discriminator, dict) else None
        if not isinstance(name, str):
            return parts
        label = f"tagged {key}"
        return self._make(schema, label, [{"allOf": [part, {"required": [name]}]} for part in parts])


def declared_types(alternative: Iterable[Schema]) -> list[str]:
    """The types that all of its `type` keywords allow; all seven where there is none ("integer" is within "number")."""
    allowed = list(TYPE_NAMES)
    for schema in alternative:
        if isinstance(schema, dict) and "type" in schema:
            names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
            is_whole = "integer" in names and "number" not in names
            allowed = [
                name for name in allowed if name in names or (name == "integer" and (is_whole or "number" in names))
            ]
    return allowed


def _constrains_beside(schema: dict[str, Any], key: str) -> bool:
    return constrains({name: value for name, value in schema.items() if name != key})


def _without_repeats(alternative: Alternative) -> Alternative:
    return tuple({id(schema): schema for schema in alternative}.values())


def _are_disjoint(left: list[Alternative], right: list[Alternative]) -> bool:
    return all(_is_apart(a, b) for a in left for b in right)


def _is_apart(left: Alternative, right: Alternative) -> bool:
    if not set(declared_types(left)) & set(declared_types(right)):
        return True
    mine, theirs = _listed_values(left), _listed_values(right)
    if mine is not None and theirs is not None and not _overlap(mine, theirs):
        return True
    if set(declared_types(left)) != {"object"}:
        return False
    required = {name for schema in left for name in schema.get("required", ())}
    for name in sorted(required):
        mine, theirs = _listed_property(left, name), _listed_property(right, name)
        if mine is not None and theirs is not None and not _overlap(mine, theirs):
            return True
    return any(schema.get("properties", {}).get(name) is False for schema in right for name in required)


def _listed_property(alternative: Alternative, name: str) -> list[Any] | None:
    parts = [part for schema in alternative if isinstance(part := schema.get("properties", {}).get(name), dict)]
    return _listed_values(tuple(parts))


def _listed_values(alternative: Alternative) -> list[Any] | None:
    for schema in alternative:
        if "const" in schema:
            return [schema["const"]]
        if "enum" in schema:
            return list(schema["enum"])
    return None


def _overlap(left: list[Any], right: list[Any]) -> bool:
    return any(same_value(a, b) for a in left for b in right)
