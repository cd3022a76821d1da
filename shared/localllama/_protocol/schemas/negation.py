"""Says `not S` in positive words, where there are such words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .form import TYPE_NAMES, Schema

__all__ = ["ANNOTATIONS", "EXCLUDED", "Negation", "constrains", "negation"]

EXCLUDED = "$excluded"
"""A keyword of our own: values that the instance must not equal. Only ever seen between the steps of preparation."""

ANNOTATIONS = frozenset(
    [
        "$anchor",
        "$comment",
        "$defs",
        "$dynamicAnchor",
        "$id",
        "$vocabulary",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "default",
        "definitions",
        "deprecated",
        "description",
        "discriminator",
        "example",
        "examples",
        "externalDocs",
        "readOnly",
        "title",
        "writeOnly",
        "xml",
    ]
)
_OPPOSITES = {
    "minimum": ("number", "exclusiveMaximum", 0),
    "maximum": ("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": ("number", "maximum", 0),
    "exclusiveMaximum": ("number", "minimum", 0),
    "minLength": ("string", "maxLength", -1),
    "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1),
    "maxItems": ("array", "minItems", 1),
    "minProperties": ("object", "maxProperties", -1),
    "maxProperties": ("object", "minProperties", 1),
}


class Negation(NamedTuple):
    """What satisfies `not S`.

    Attributes:
        alternatives: Each instance of one of these is an instance of `not S`.
        is_exact: Whether these are all there are.
    """

    alternatives: list[Schema]
    is_exact: bool


def constrains(schema: Schema) -> bool:
    """Whether a schema says anything that an instance could violate."""
    return schema is False or (isinstance(schema, dict) and not schema.keys() <= ANNOTATIONS)


def negation(schema: Schema) -> Negation:
    """The negation by De Morgan's rules, one keyword at a time; each is the alternative that breaks that keyword."""
    if isinstance(schema, bool):
        return Negation([] if schema else [True], is_exact=True)
    alternatives: list[Schema] = []
    is_exact = True
    for key, value in schema.items():
        if key in ANNOTATIONS or key in {"then", "else"}:
            continue
        broken = _broken(key, value, schema)
        if broken is None:
            is_exact = False
        else:
            alternatives += broken.alternatives
            is_exact &= broken.is_exact
    return Negation(alternatives, is_exact)


def _broken(key: str, value: Any, schema: dict[str, Any]) -> Negation | None:
    """What breaks one keyword; None where there are no words for it."""
    if key in _OPPOSITES:
        kind, opposite, shift = _OPPOSITES[key]
        limit = value + shift
        return Negation([] if shift and limit < 0 else [{"type": kind, opposite: limit}], is_exact=True)
    if key == "type":
        return _other_types([value] if isinstance(value, str) else value)
    if (key == "items" and "prefixItems" in schema) or (
        key == "contains" and {"minContains", "maxContains"} & schema.keys()
    ):
        return None
    rule = _RULES.get(key)
    return None if rule is None else Negation(rule(value), is_exact=True)


_RULES: dict[str, Callable[[Any], list[Schema]]] = {
    "const": lambda value: [{EXCLUDED: [value]}],
    "enum": lambda values: [{EXCLUDED: list(values)}],
    "required": lambda names: [{"type": "object", "properties": {name: False}} for name in names],
    "properties": lambda parts: [
        {"type": "object", "required": [name], "properties": {name: {"not": part}}}
        for name, part in parts.items()
        if constrains(part)
    ],
    "items": lambda part: [{"type": "array", "contains": {"not": part}}] if constrains(part) else [],
    "contains": lambda part: [{"type": "array", "items": {"not": part}}],
    "anyOf": lambda parts: [{"allOf": [{"not": part} for part in parts]}],
    "allOf": lambda parts: [{"not": part} for part in parts],
    "not": lambda part: [part],
}


def _other_types(names: list[str]) -> Negation:
    others = [name for name in TYPE_NAMES if name not in names and name != "integer"]
    if "number" in names:
        others = [name for name in others if name != "number"]
    is_exact = "integer" not in names or "number" in names
    if not is_exact:
        others.remove("number")  # what is left are numbers with a fraction, for which there is no word
    return Negation([{"type": others}] if others else [], is_exact=is_exact)
