"""Small schemas by group, for which an answer of random tokens must satisfy the schema that it was made from."""

from __future__ import annotations

from typing import Any

NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"$ref": "#"}},
    "required": ["value"],
}

SCHEMA_CASES: dict[str, list[dict[str, Any]]] = {
    "type": [{"type": kind} for kind in ("null", "boolean", "integer", "number", "string")]
    + [{"type": ["integer", "null"]}, {"type": ["string", "boolean"], "maxLength": 9}],
    "properties": [
        {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "null"}}},
        {
            "properties": {"date_time": {"enum": ["x"]}, "at": {"type": "string", "format": "date-time"}},
            "required": ["date_time", "at"],
        },
        {"properties": {"integral_part": {"enum": [1]}, "n": {"type": "number"}}, "required": ["integral_part", "n"]},
    ],
    "required": [{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a", "b"]}],
    "enum": [
        {"enum": [1, "a", None, True, [], {"x": 1}]},
        {"type": "integer", "enum": [1, "a", 2.0]},
        {"enum": ['é\n"\\', "a/b"]},
    ],
    "const": [{"const": {"a": [False]}}, {"const": 0.1}],
    "minimum": [{"type": "integer", "minimum": 7}, {"type": "number", "minimum": -1.5}],
    "maximum": [{"type": "integer", "maximum": -7}, {"type": "number", "maximum": 0}],
    "exclusiveMinimum": [
        {"type": "integer", "exclusiveMinimum": 1.5, "minimum": 0},
        {"type": "number", "exclusiveMinimum": 0},
    ],
    "exclusiveMaximum": [
        {"type": "integer", "exclusiveMinimum": -100, "exclusiveMaximum": -42},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "number", "minimum": -90, "maximum": 90},
    ],
    "multipleOf": [
        {"type": "integer", "multipleOf": 5, "minimum": 1, "maximum": 99},
        {"type": "integer", "multipleOf": 7},
        {"type": "number", "multipleOf": 0.01, "minimum": 0},
        {"allOf": [{"multipleOf": 4}, {"multipleOf": 6}], "type": "integer"},
    ],
    "length": [
        {"type": "string", "minLength": 3, "maxLength": 5},
        {"type": "string", "minLength": 2},
        {"type": "string", "maxLength": 0},
    ],
    "pattern": [
        {"type": "string", "pattern": pattern}
        for pattern in (
            r"^[A-Z]{2}\d{3}$",
            r"foo\.",
            r"^a|b$",
            r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
            r'^[^"x]+"\\$',
            r"^\w+@\w+\.(com|org)$",
            r"^(?:\+?1-)?[2-9]\d{2}-\d{4}$",
            r"^\S+\s\S+$",
            r"^.{2,4}$",
            r"^[é-ü]?$",
        )
    ]
    + [{"type": "string", "pattern": "^[a-z]+$", "minLength": 4, "maxLength": 6}],
    "items": [{"type": "array", "items": {"type": "boolean"}}, {"type": "array", "items": False}],
    "minItems": [{"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 4}],
    "prefixItems": [
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}]},
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "null"}],
            "items": {"type": "boolean"},
            "minItems": 1,
            "maxItems": 4,
        },
        {"type": "array", "prefixItems": [{"const": 1}], "items": False},
        {"type": "array", "prefixItems": [{"enum": [1, 2]}, {"type": "boolean"}], "minItems": 2, "maxItems": 2},
    ],
    "uniqueItems": [
        {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b", "c"]}},
        {"type": "array", "uniqueItems": True, "items": {"enum": list("abcdefghij")}, "minItems": 3},
        {"type": "array", "uniqueItems": True, "items": {"type": "boolean"}},
        {"type": "array", "uniqueItems": True, "items": {"type": "string"}, "maxItems": 3},
    ],
    "contains": [
        {"type": "array", "contains": {"const": 7}, "items": {"type": "integer"}},
        {"type": "array", "contains": {"type": "string", "maxLength": 3}, "minContains": 2, "maxContains": 3},
    ],
    "anyOf": [
        {"anyOf": [{"type": "integer"}, {"minLength": 2}]},
        {
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
    ],
    "oneOf": [
        {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}]},
        {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        {
            "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
            "discriminator": {"propertyName": "kind"},
            "$defs": {
                "Cat": {"properties": {"kind": {"const": "cat"}, "n": {"type": "integer"}}},
                "Dog": {"properties": {"kind": {"const": "dog"}, "n": {"type": "integer"}}},
            },
        },
    ],
    "allOf": [
        {
            "properties": {"a": {"type": "integer"}},
            "allOf": [
                {"properties": {"a": {"minimum": 3}, "b": {"type": "null"}}, "required": ["b"]},
                {"required": ["a"]},
            ],
        },
        {"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}, {"not": {"const": 3}}]},
    ],
    "not": [
        {"not": {"type": ["integer", "number", "array", "object"]}},
        {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "not": {"required": ["a"]}},
        {"type": "integer", "not": {"minimum": 3}},
        {"type": "string", "not": {"enum": ["", "a"]}},
        {"type": "boolean", "not": {"const": True}},
    ],
    "$ref": [
        {
            "properties": {"a": {"$ref": "#/$defs/x%25y~1z", "maximum": 9}},
            "required": ["a"],
            "$defs": {"x%y/z": {"type": "integer", "minimum": 3}},
        },
        {"$ref": "#n", "definitions": {"deep": {"definitions": {"n": {"$anchor": "n", "type": "null"}}}}},
        {
            "$id": "https://example.com/a",
            "items": {"$ref": "b"},
            "type": "array",
            "$defs": {"b": {"$id": "b", "type": "boolean"}},
        },
        {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"enum": [1]}}, "required": ["a"]},
        # In llama.cpp both rules would be called ref--defs-A-b.
        {
            "properties": {"x": {"$ref": "#/$defs/A"}, "y": {"$ref": "#/$defs/A_b"}},
            "required": ["x", "y"],
            "$defs": {"A": {"properties": {"b": {"enum": [1]}}, "required": ["b"]}, "A_b": {"enum": [2]}},
        },
    ],
    "recursion": [
        NODE,
        {
            "$ref": "#/$defs/tree",
            "$defs": {
                "tree": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
            },
        },
    ],
    "additionalProperties": [
        {"type": "object", "additionalProperties": {"type": "boolean"}},
        {"properties": {"a]": {"type": "null"}}, "additionalProperties": {"type": "integer"}},
        {
            "allOf": [
                {"properties": {"a": {"type": "null"}}},
                {"properties": {"b": {}}, "additionalProperties": {"maxLength": 2, "type": "string"}},
            ]
        },
    ],
    "patternProperties": [
        {
            "properties": {"n_a": {}, "b": {"type": "null"}},
            "required": ["n_a"],
            "patternProperties": {"^n_": {"type": "integer"}},
        },
        {"type": "object", "patternProperties": {"^x": {"type": "null"}}, "additionalProperties": {"type": "null"}},
    ],
    "propertyNames": [
        {"type": "object", "propertyNames": {"enum": ["p", "q"]}, "additionalProperties": {"type": "integer"}},
        {"properties": {"long": {"type": "null"}, "s": {"type": "null"}}, "propertyNames": {"maxLength": 3}},
    ],
    "minProperties": [
        {"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}, "minProperties": 2},
        {"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}, "maxProperties": 1},
    ],
    "dependentRequired": [
        {
            "properties": {"card": {"type": "null"}, "address": {"type": "null"}},
            "dependentRequired": {"card": ["address"]},
        },
        {
            "properties": {"a": {"type": "null"}, "b": {"enum": [1, "x"]}},
            "dependentSchemas": {"a": {"properties": {"b": {"type": "string"}}, "required": ["b"]}},
        },
    ],
    "if": [
        {
            "type": "object",
            "properties": {"kind": {"enum": ["a", "b"]}, "n": {"type": "integer"}},
            "required": ["kind"],
            "if": {"properties": {"kind": {"const": "a"}}, "required": ["kind"]},
            "then": {"required": ["n"]},
            "else": {"properties": {"n": False}},
        }
    ],
    "unevaluated": [
        {
            "allOf": [{"properties": {"a": {"type": "null"}}}],
            "properties": {"b": {"type": "null"}},
            "unevaluatedProperties": False,
        },
        {"type": "array", "prefixItems": [{"type": "null"}], "unevaluatedItems": False},
    ],
    "format": [
        {"type": "string", "format": name}
        for name in (
            "date",
            "time",
            "date-time",
            "duration",
            "uuid",
            "email",
            "hostname",
            "ipv4",
            "ipv6",
            "uri",
            "uri-reference",
        )
    ],
    "bounds": [{"type": "string", "minLength": 2100, "maxLength": 2200}],
    "anything": [{"type": "array", "items": {}, "maxItems": 3}],
}

AWKWARD_NAMES = (
    "get weather",
    'say "hi"',
    "größe 日付",
    "back\\slash \\\\",
    "tab\tname",
    "it's: {a} [b]",
    "e\u0301 👍🏽",
    "del\x7f",
)
"""Names of tools and of members that a grammar or a template has to escape."""
