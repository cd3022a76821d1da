"""The mock's value for a schema is valid, and the same each time."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from localllama._protocol.minimal_value import minimal_value

SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True},
    {"type": "string", "minLength": 9, "maxLength": 12},
    {"type": "string", "maxLength": 2},
    {"type": "string", "format": "date-time"},
    {"type": "integer", "minimum": 7, "multipleOf": 5},
    {"type": "integer", "exclusiveMinimum": 7},
    {"type": "integer", "maximum": -3},
    {"type": "number", "minimum": 0.1, "maximum": 0.2},
    {"type": "number", "exclusiveMaximum": 0},
    {"enum": ["x", "y"]},
    {"const": {"k": [1]}},
    {"type": ["null", "string"]},
    {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"const": 3}}}]},
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["next"],
            }
        },
        "$ref": "#/$defs/node",
    },
    {"allOf": [True, {"type": "integer", "minimum": 3}]},
    {"type": "object", "properties": {"a": {"type": "null"}, "b": {"const": 1}, "c": {}}, "minProperties": 2},
    {
        "properties": {"a": {"const": 1}},
        "required": ["a"],
        "allOf": [{"properties": {"b": {"const": 2}}, "required": ["b"]}],
    },
    {"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "uniqueItems": True},
    {"minLength": 6},
    {"type": "integer", "exclusiveMaximum": -2},
    {"items": {"type": "null"}, "minItems": 2},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}], "minItems": 2},
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_it_is_valid(schema: dict[str, Any]) -> None:
    value = minimal_value(schema)
    jsonschema.Draft202012Validator(schema).validate(value)
    assert minimal_value(schema) == value


def test_what_is_not_required_is_left_out() -> None:
    assert minimal_value({"type": "object", "properties": {"a": {"type": "string"}}}) == {}


def test_an_endless_schema_ends() -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    assert "a" in minimal_value(endless)


def test_a_reference_to_nothing_is_any_value() -> None:
    assert minimal_value({"properties": {"a": {"$ref": "#/$defs/none"}}, "required": ["a"]}) == {"a": {}}
