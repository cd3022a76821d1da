"""Decides whether a value satisfies a schema, without the `jsonschema` package: for the values that a schema itself lists.

Small and quick, because each value of each `enum` passes through it while a schema is prepared. What it does not know it
accepts; the final check of an answer is made in `check.py` by `jsonschema`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from .form import Schema
from .formats import is_format
from .places import SchemaIndex

__all__ = ["accepts", "is_multiple", "is_type", "same_value", "type_of"]

_Rule = Callable[[Any, Any, "dict[str, Any]", SchemaIndex], bool]


def type_of(value: Any) -> str:
    """The JSON type of a value; a whole float counts as "integer", as in JSON Schema."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list | tuple) else "object"


def is_type(value: Any, name: str) -> bool:
    """Whether a value is of a JSON type."""
    kind = type_of(value)
    return kind == name or (kind == "integer" and name == "number")


def same_value(left: Any, right: Any) -> bool:
    """JSON equality: 1 is 1.0, but neither is true."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_value(value, right[key]) for key, value in left.items())
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def is_multiple(value: float, step: float) -> bool:
    """Whether a number is a whole multiple in decimal digits: 0.07 is one of 0.01, which binary division denies."""
    try:
        return (Fraction(str(value)) / Fraction(str(step))).denominator == 1
    except (ValueError, ZeroDivisionError):  # infinite
        return False


def accepts(value: Any, schema: Schema, index: SchemaIndex) -> bool:
    """Whether a value satisfies a schema, as far as this module knows."""
    if isinstance(schema, bool):
        return schema
    return all(rule(value, schema[key], schema, index) for key, rule in _RULES.items() if key in schema)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _for_numbers(test: Callable[[Any, Any], bool]) -> _Rule:
    return lambda value, wanted, _schema, _index: not _is_number(value) or test(value, wanted)


def _for_length(kind: type[Any], test: Callable[[int, Any], bool]) -> _Rule:
    return lambda value, wanted, _schema, _index: not isinstance(value, kind) or test(len(value), wanted)


def _type(value: Any, wanted: Any, _schema: dict[str, Any], _index: SchemaIndex) -> bool:
    return any(is_type(value, name) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _items(value: Any, wanted: Any, schema: dict[str, Any], index: SchemaIndex) -> bool:
    if not isinstance(value, list):
        return True
    return all(accepts(each, wanted, index) for each in value[len(schema.get("prefixItems", ())) :])


def _prefix_items(value: Any, wanted: Any, _schema: dict[str, Any], index: SchemaIndex) -> bool:
    return not isinstance(value, list) or all(
        accepts(each, part, index) for each, part in zip(value, wanted, strict=False)
    )


def _contains(value: Any, wanted: Any, schema: dict[str, Any], index: SchemaIndex) -> bool:
    if not isinstance(value, list):
        return True
    count = sum(accepts(each, wanted, index) for each in value)
    return bool(schema.get("minContains", 1) <= count <= schema.get("maxContains", count))


def _unique(value: Any, wanted: Any, _schema: dict[str, Any], _index: SchemaIndex) -> bool:
    if not wanted or not isinstance(value, list):
        return True
    return not any(same_value(left, right) for n, left in enumerate(value) for right in value[:n])


def _properties(value: Any, wanted: Any, _schema: dict[str, Any], index: SchemaIndex) -> bool:
    return not isinstance(value, dict) or all(
        accepts(value[name], part, index) for name, part in wanted.items() if name in value
    )


def _pattern_properties(value: Any, wanted: Any, _schema: dict[str, Any], index: SchemaIndex) -> bool:
    return not isinstance(value, dict) or all(
        accepts(each, part, index)
        for pattern, part in wanted.items()
        for name, each in value.items()
        if re.search(pattern, name)
    )


def _additional_properties(value: Any, wanted: Any, schema: dict[str, Any], index: SchemaIndex) -> bool:
    if not isinstance(value, dict):
        return True
    known, patterns = schema.get("properties", ()), schema.get("patternProperties", ())
    return all(
        accepts(each, wanted, index)
        for name, each in value.items()
        if name not in known and not any(re.search(pattern, name) for pattern in patterns)
    )


def _property_names(value: Any, wanted: Any, _schema: dict[str, Any], index: SchemaIndex) -> bool:
    return not isinstance(value, dict) or all(accepts(name, wanted, index) for name in value)


def _dependent_required(value: Any, wanted: Any, _schema: dict[str, Any], _index: SchemaIndex) -> bool:
    return not isinstance(value, dict) or all(
        set(needed) <= value.keys() for name, needed in wanted.items() if name in value
    )


def _dependent_schemas(value: Any, wanted: Any, _schema: dict[str, Any], index: SchemaIndex) -> bool:
    return not isinstance(value, dict) or all(
        accepts(value, part, index) for name, part in wanted.items() if name in value
    )


def _if(value: Any, wanted: Any, schema: dict[str, Any], index: SchemaIndex) -> bool:
    return accepts(value, schema.get("then" if accepts(value, wanted, index) else "else", True), index)


_RULES: dict[str, _Rule] = {
    "type": _type,
    "const": lambda value, wanted, _schema, _index: same_value(value, wanted),
    "enum": lambda value, wanted, _schema, _index: any(same_value(value, each) for each in wanted),
    "minimum": _for_numbers(lambda value, wanted: value >= wanted),
    "maximum": _for_numbers(lambda value, wanted: value <= wanted),
    "exclusiveMinimum": _for_numbers(lambda value, wanted: value > wanted),
    "exclusiveMaximum": _for_numbers(lambda value, wanted: value < wanted),
    "multipleOf": _for_numbers(is_multiple),
    "minLength": _for_length(str, lambda length, wanted: length >= wanted),
    "maxLength": _for_length(str, lambda length, wanted: length <= wanted),
    "pattern": lambda value, wanted, _schema, _index: not isinstance(value, str) or bool(re.search(wanted, value)),
    "format": lambda value, wanted, _schema, _index: not isinstance(value, str) or is_format(value, wanted),
    "minItems": _for_length(list, lambda length, wanted: length >= wanted),
    "maxItems": _for_length(list, lambda length, wanted: length <= wanted),
    "minProperties": _for_length(dict, lambda length, wanted: length >= wanted),
    "maxProperties": _for_length(dict, lambda length, wanted: length <= wanted),
    "items": _items,
    "prefixItems": _prefix_items,
    "contains": _contains,
    "uniqueItems": _unique,
    "required": lambda value, wanted, _schema, _index: not isinstance(value, dict) or set(wanted) <= value.keys(),
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
    "allOf": lambda value, wanted, _schema, index: all(accepts(value, part, index) for part in wanted),
    "anyOf": lambda value, wanted, _schema, index: any(accepts(value, part, index) for part in wanted),
    "oneOf": lambda value, wanted, _schema, index: sum(accepts(value, part, index) for part in wanted) == 1,
    "not": lambda value, wanted, _schema, index: not accepts(value, wanted, index),
    "if": _if,
    "$ref": lambda value, _wanted, schema, index: accepts(value, index.target(schema, "$ref"), index),
    "$dynamicRef": lambda value, _wanted, schema, index: accepts(value, index.target(schema, "$dynamicRef"), index),
}
