"""`prepare_schema`: a schema that llama.cpp's converter enforces, from one that it would drop half of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .acceptance import accepts, is_type, same_value
from .alternatives import Alternative, Expander, Notes, declared_types
from .containers import Ref, Workshop, array_bodies, object_bodies
from .form import TYPE_NAMES, Schema, modernized, refusal
from .negation import EXCLUDED, constrains
from .places import SchemaIndex
from .scalars import GenerationBounds, free_text, number_body, string_body
from .writing import is_possible, write_out

__all__ = ["PreparedSchema", "prepare_schema"]

_OWN_TYPES = {  # the type that a schema without `type` means by its keywords
    "object": frozenset(
        {
            "additionalProperties",
            "maxProperties",
            "minProperties",
            "patternProperties",
            "properties",
            "propertyNames",
            "required",
            "unevaluatedProperties",
        }
    ),
    "array": frozenset({"contains", "items", "maxItems", "minItems", "prefixItems", "unevaluatedItems", "uniqueItems"}),
    "string": frozenset({"format", "maxLength", "minLength", "pattern"}),
    "number": frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"}),
}


@dataclass(frozen=True)
class PreparedSchema:
    """A schema, ready for llama-server.

    Attributes:
        original: As the user gave it; answers are checked against it.
        for_server: What llama.cpp gets. Every valid instance that a model is likely to mean can still be written; an answer
            may break the keywords in `unenforced`.
        unenforced: (JSON pointer, keyword) of what only the check of the answer finds.
        for_repair: The narrow form for the second attempt: instances are given up (a bounded `number` is a whole number or
            one of a list) so that what the grammar lets through is valid wherever that is possible at all.
        unenforced_in_repair: What even that leaves to the check.
    """

    original: Mapping[str, Any] = field(repr=False)
    for_server: dict[str, Any]
    unenforced: tuple[tuple[str, str], ...]
    for_repair: dict[str, Any] = field(repr=False)
    unenforced_in_repair: tuple[tuple[str, str], ...]


def prepare_schema(
    schema: Mapping[str, Any],
    *,
    bounds: GenerationBounds | None = GenerationBounds(),  # noqa: B008 - frozen
) -> PreparedSchema:
    """Rewrite a JSON schema to what llama.cpp's converter enforces.

    Args:
        schema: Draft 2020-12, or an older draft or OpenAPI 3.0, which are translated. Not changed.
        bounds: Ends for endless strings, arrays and values of any type; None for none.

    Raises:
        ConfigurationError: It is no schema, refers to something outside of itself, or no finite value satisfies it; the
            message names the place and the keyword.
    """
    root = modernized(schema)
    index = SchemaIndex(root)
    wide = _Compiler(index, bounds, is_narrow=False)
    for_server = wide.compile(root)
    if for_server is None:
        pointer, keyword = wide.conflict or ("", "")
        raise refusal(pointer, keyword, "no value can satisfy it", "Relax the keywords that contradict each other.")
    unenforced = tuple(wide.notes.places)
    for_repair, left = for_server, unenforced
    if unenforced:
        narrow = _Compiler(index, bounds, is_narrow=True)
        narrowed = narrow.compile(root)
        if narrowed is not None:
            for_repair, left = narrowed, tuple(narrow.notes.places)
    return PreparedSchema(schema, for_server, unenforced, for_repair, left)


class _Compiler:
    def __init__(self, index: SchemaIndex, bounds: GenerationBounds | None, *, is_narrow: bool) -> None:
        self.notes = Notes(index)
        self.conflict: tuple[str, str] | None = None
        self._index = index
        self._bounds = bounds
        self._is_narrow = is_narrow
        self._expander = Expander(index, self.notes, is_narrow=is_narrow)
        self._numbers: dict[tuple[Any, ...], Ref] = {}
        self._bodies: list[dict[str, Any] | None] = []
        self._waiting: list[tuple[int, tuple[Schema, ...]]] = []
        self._shop = Workshop(
            index=index,
            notes=self.notes,
            is_narrow=is_narrow,
            max_items=None if bounds is None else bounds.max_items,
            node=self._node,
            listed=self._listed,
        )

    def compile(self, root: dict[str, Any]) -> dict[str, Any] | None:
        first = self._node((root,))
        while self._waiting:
            number, together = self._waiting.pop()
            self._bodies[number] = self._body(together)
        possible = is_possible(self._bodies)
        if not possible[first.number]:
            return None
        return write_out(self._bodies, possible, first)

    # -- nodes ------------------------------------------------------------------------------------------------------

    def _node(self, together: tuple[Schema, ...]) -> Ref:
        together = tuple(self._followed(schema) for schema in together)
        together = tuple({id(schema): schema for schema in together if constrains(schema)}.values())
        if not together:
            return self._anything(0)
        key = tuple(id(schema) for schema in together)
        if key not in self._numbers:
            for schema in together:
                if isinstance(schema, dict) and not self._index.is_known(schema):
                    self._index.adopt(schema, self._index.root)
            self._numbers[key] = self._new(None)
            self._waiting.append((self._numbers[key].number, together))
        return self._numbers[key]

    def _new(self, body: dict[str, Any] | None) -> Ref:
        self._bodies.append(body)
        return Ref(len(self._bodies) - 1)

    def _followed(self, schema: Schema) -> Schema:
        """Through references that say nothing else, so that all ways to a definition share its node."""
        seen: set[int] = set()
        while isinstance(schema, dict) and "$ref" in schema and id(schema) not in seen:
            if constrains({key: value for key, value in schema.items() if key != "$ref"}):
                break
            seen.add(id(schema))
            schema = self._index.target(schema, "$ref")
        return schema

    def _anything(self, depth: int) -> Ref:
        """Any value; with bounds, strings, arrays and depth have an end."""
        key = ("anything", depth)
        if key not in self._numbers:
            self._numbers[key] = ref = self._new(None)
            bounds = self._bounds
            body: dict[str, Any] = {}
            if bounds is not None:
                options: list[Any] = [self._text(), {"type": "number"}, {"type": "boolean"}, {"type": "null"}]
                if depth < bounds.max_free_depth:
                    inner = self._anything(depth + 1)
                    options.append({"type": "array", "items": inner, "maxItems": bounds.max_items})
                    options.append({"type": "object", "additionalProperties": inner})
                body = {"anyOf": options}
            self._bodies[ref.number] = body
        return self._numbers[key]

    def _text(self) -> Ref:
        """A string without any rule; one for all, since its bound makes it a large piece of grammar."""
        if ("text",) not in self._numbers:
            most = float("inf") if self._bounds is None else self._bounds.max_string_length
            self._numbers[("text",)] = self._new(free_text(0, most))
        return self._numbers[("text",)]

    def _shared(self, body: dict[str, Any]) -> Any:
        """One node for all equal patterns: a pattern with long repetitions becomes a thousand rules of grammar."""
        if "pattern" not in body:
            return body
        key = ("pattern", body["pattern"])
        if key not in self._numbers:
            self._numbers[key] = self._new(body)
        return self._numbers[key]

    # -- bodies -----------------------------------------------------------------------------------------------------

    def _body(self, together: tuple[Schema, ...]) -> dict[str, Any] | None:
        bodies: list[Any] = []
        for alternative in self._expander.alternatives(together):
            bodies += self._alternative_bodies(alternative, together)
        if not bodies:
            if self.conflict is None:
                self.conflict = self._conflict(together)
            return None
        bodies = _joined(bodies)
        return bodies[0] if len(bodies) == 1 else {"anyOf": bodies}

    def _conflict(self, together: tuple[Schema, ...]) -> tuple[str, str]:
        named = [schema for schema in together if isinstance(schema, dict)]
        if not named:
            return "", "false"
        rules = [key for key in named[0] if key != "type" and constrains({key: named[0][key]})]
        return self._index.place(named[0]).pointer, ", ".join(rules) or "type"

    def _alternative_bodies(self, alternative: Alternative, together: tuple[Schema, ...]) -> list[Any]:
        values = self._values(alternative, together)
        if values is not None:
            return [{"enum": values}] if values else []
        types = self._types(alternative)
        if set(types) == set(TYPE_NAMES) and not any(map(constrains, alternative)):
            return [self._anything(0)]
        bodies: list[Any] = []
        for name in types:
            if name != "integer" or "number" not in types:
                bodies += self._typed(name, alternative)
        return bodies

    def _typed(self, name: str, alternative: Alternative) -> list[Any]:
        if name in {"null", "boolean"}:
            excluded = [value for schema in alternative for value in schema.get(EXCLUDED, ())]
            values = [
                value for value in ((None,) if name == "null" else (True, False)) if not _is_among(value, excluded)
            ]
            if len(values) == (1 if name == "null" else 2):
                return [{"type": name}]
            return [{"enum": values}] if values else []
        if name in {"integer", "number"}:
            body = number_body(alternative, self.notes, is_integer=name == "integer", is_narrow=self._is_narrow)
            return [] if body is None else [body]
        if name == "string":
            if not any(schema.keys() & (_OWN_TYPES["string"] | {EXCLUDED}) for schema in alternative):
                return [self._text()]
            body = string_body(alternative, self.notes, self._bounds, is_narrow=self._is_narrow)
            return [] if body is None else [self._shared(body)]
        kind = list if name == "array" else dict
        if any(isinstance(value, kind) for schema in alternative for value in schema.get(EXCLUDED, ())):
            self._shop.leave(alternative, EXCLUDED)
        return array_bodies(alternative, self._shop) if name == "array" else object_bodies(alternative, self._shop)

    def _types(self, alternative: Alternative) -> list[str]:
        types = declared_types(alternative)
        if any("type" in schema for schema in alternative):
            return types
        meant = [
            name for name, keywords in _OWN_TYPES.items() if any(schema.keys() & keywords for schema in alternative)
        ]
        return meant or types

    def _values(self, alternative: Alternative, together: tuple[Schema, ...]) -> list[Any] | None:
        """The listed values that satisfy everything, or None if there is no list."""
        lists = [
            schema["enum"] if "enum" in schema else [schema["const"]]
            for schema in alternative
            if {"enum", "const"} & schema.keys()
        ]
        if not lists:
            return None
        types = declared_types(alternative)
        excluded = [value for schema in alternative for value in schema.get(EXCLUDED, ())]
        return [
            value
            for value in min(lists, key=len)
            if any(is_type(value, name) for name in types)
            and all(accepts(value, schema, self._index) for schema in (*alternative, *together))
            and not _is_among(value, excluded)
        ]

    def _listed(self, together: tuple[Schema, ...]) -> list[Any] | None:
        """All values of schemas where every alternative lists them."""
        result: list[Any] = []
        alternatives = self._expander.alternatives(together)
        for alternative in alternatives:
            values = self._values(alternative, together)
            if values is None:
                types = declared_types(alternative) if any("type" in schema for schema in alternative) else ["string"]
                if not set(types) <= {"null", "boolean"}:
                    return None
                values = [None] * ("null" in types) + [True, False] * ("boolean" in types)
            result += values
        return result


def _is_among(value: Any, others: list[Any]) -> bool:
    return any(same_value(value, other) for other in others)


def _joined(bodies: list[Any]) -> list[Any]:
    """Without repeats, and with neighbouring lists of values as one."""
    result: list[Any] = []
    for body in bodies:
        last = result[-1] if result else None
        if isinstance(body, dict) and isinstance(last, dict) and body.keys() == last.keys() == {"enum"}:
            last["enum"] = last["enum"] + [value for value in body["enum"] if not _is_among(value, last["enum"])]
        elif not any(_text_of(body) == _text_of(other) for other in result):
            result.append(dict(body) if isinstance(body, dict) else body)
    return result


def _text_of(body: Any) -> str:
    return json.dumps(body, sort_keys=False, default=repr)
