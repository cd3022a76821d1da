"""Rarely written keywords, each from a schema to what its grammar lets through, what is left to the check, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localllama import ConfigurationError
from localllama._protocol.gbnf import grammar_of
from localllama._protocol.schemas import GenerationBounds, check_instance, prepare_schema
from support.gbnf_reading import Grammar

SMALL = GenerationBounds(max_string_length=20, max_items=8, max_free_depth=1)
NEVER = {"type": "integer", "minimum": 3, "maximum": 2}
OBJECT = {"type": "object", "additionalProperties": False}
LETTERS = {name: {"const": 1} for name in "abcdefgh"}


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def judge(schema: dict[str, Any], good: list[Any], bad: list[Any], left: set[str], left_in_repair: set[str]) -> None:
    """Valid values can be written; invalid ones cannot, or a keyword is named that the check has to see to."""
    prepared = prepare_schema(schema, bounds=SMALL)
    assert {keyword for _, keyword in prepared.unenforced} == left
    assert {keyword for _, keyword in prepared.unenforced_in_repair} == left_in_repair
    wide, narrow = (Grammar(grammar_of(form)) for form in (prepared.for_server, prepared.for_repair))
    for value in good:
        assert check_instance(schema, value, is_text=False).is_valid, value
        assert wide.accepts(compact(value)), value
    for value in bad:
        assert not check_instance(schema, value, is_text=False).is_valid, value
        assert left or not wide.accepts(compact(value)), value
        assert left_in_repair or not narrow.accepts(compact(value)), value


# -- listed values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "kept", "dropped"),
    [
        ({"items": {"type": "integer"}}, [[], [1, 2], "text"], [[1, "a"]]),
        ({"prefixItems": [{"type": "null"}], "items": {"type": "integer"}}, [[None, 1], [None], []], [[1], [None, "a"]]),
        ({"contains": {"const": 1}}, [[1], [0, 1, 1], "text"], [[], [2]]),
        ({"contains": {"const": 1}, "minContains": 2, "maxContains": 3}, [[1, 1], [1, 1, 1]], [[1], [1, 1, 1, 1]]),
        ({"uniqueItems": True}, [[1, True], [], {}], [[1, 1.0], [[2], [2]]]),
        ({"uniqueItems": False}, [[1, 1]], []),
        ({"minItems": 1, "maxItems": 2}, [[1], [1, 2], "text"], [[], [1, 2, 3]]),
        ({"required": ["a"]}, [{"a": 1}, [1]], [{}, {"b": 1}]),
        ({"properties": {"a": {"type": "null"}}}, [{"a": None}, {}, 3], [{"a": 1}]),
        ({"patternProperties": {"^x": {"type": "null"}}}, [{"x1": None, "y": 1}, 3], [{"x1": 1}]),
        ({"properties": {"a": True}, "patternProperties": {"^x": True}, "additionalProperties": False}, [{"a": 1, "x2": 1}, 3], [{"b": 1}]),
        ({"additionalProperties": {"type": "null"}}, [{"b": None}], [{"b": 1}]),
        ({"propertyNames": {"maxLength": 1}}, [{"a": 1}, 3], [{"ab": 1}]),
        ({"minProperties": 1, "maxProperties": 2}, [{"a": 1}, 3], [{}, {"a": 1, "b": 2, "c": 3}]),
        ({"dependentRequired": {"a": ["b"]}}, [{"a": 1, "b": 2}, {"b": 2}, 3], [{"a": 1}]),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, [{"a": 1, "b": 2}, {}, 3], [{"a": 1}]),
        ({"dependencies": {"a": ["b"], "b": {"required": ["c"]}}}, [{"a": 1, "b": 2, "c": 3}, {}], [{"a": 1}, {"b": 2}]),
        ({"if": {"type": "string"}, "then": {"maxLength": 1}, "else": {"minimum": 3}}, ["a", 3, None], ["ab", 2]),
        ({"if": {"type": "string"}, "then": {"maxLength": 1}}, ["a", 2], ["ab"]),
        ({"type": "number", "multipleOf": 0.01}, [0.07, 2], [0.071, float("inf"), "a"]),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 4}, [2, "a", True], [1, 4]),
        ({"minLength": 2, "pattern": "^a", "format": "date"}, [3], ["a", "ab"]),
        ({"oneOf": [{"minimum": 1}, {"maximum": 3}]}, [0, 4], [2, "a"]),
        ({"anyOf": [{"const": 1}, {"const": [1]}], "not": {"const": 1}}, [[1]], [1, 2]),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"minimum": 3}}}, [3, 4], [2]),
        ({"$dynamicRef": "#n", "$defs": {"a": {"$dynamicAnchor": "n", "minimum": 3}}}, [3, 4], [2]),
    ],
)  # fmt: skip
def test_of_listed_values_those_stay_that_satisfy_the_keywords_beside_them(
    rules: dict[str, Any], kept: list[Any], dropped: list[Any]
) -> None:
    schema = {**rules, "enum": [*dropped, *kept]}
    made = prepare_schema(schema, bounds=None).for_server
    (listed,) = made["$defs"].values()
    assert sorted(map(compact, listed["enum"])) == sorted(map(compact, kept))
    assert [value for value in (*dropped, *kept) if check_instance(schema, value, is_text=False).is_valid] == kept


# -- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "good", "bad", "left", "left_in_repair"),
    [
        ({"items": {"enum": [1, 2]}, "uniqueItems": True}, [[], [1], [2, 1]], [[1, 1], [1, 2, 1]], set(), set()),
        ({"items": {"type": "boolean"}, "uniqueItems": True, "minItems": 1}, [[True], [False, True]], [[], [True, True]], set(), set()),
        ({"items": {"type": "string"}, "uniqueItems": True, "maxItems": 1}, [[], ["a"]], [["a", "b"]], set(), set()),
        ({"items": {"type": "string"}, "uniqueItems": True}, [["a", "b"]], [["a", "a"]], {"uniqueItems"}, set()),
        ({"items": {"type": "string"}, "uniqueItems": True, "minItems": 2}, [["a", "b"]], [["a", "a"]], {"uniqueItems"}, {"uniqueItems"}),
        ({"items": {"enum": list(range(12))}, "uniqueItems": True}, [[], [3], [2, 1]], [[1, 1]], {"uniqueItems"}, set()),
        ({"items": {"enum": list(range(12))}, "uniqueItems": True, "minItems": 2}, [[2, 1]], [[1, 1]], {"uniqueItems"}, set()),
        ({"items": {"type": "null"}, "contains": {"type": "null"}}, [[None], [None, None]], [[]], {"contains"}, set()),
        ({"items": {"type": "integer"}, "contains": {"const": 1}, "maxContains": 2}, [[1], [1, 2]], [[2], [1, 1, 1]], {"contains"}, set()),
        ({"items": {"type": "integer"}, "allOf": [{"contains": {"const": 1}}, {"contains": {"const": 2}}]}, [[1, 2], [2, 1]], [[1], [2]], {"contains"}, set()),
        ({"items": {"type": "integer"}, "contains": {"const": 1}, "minContains": 0, "maxContains": 1}, [[], [1], [2]], [[1, 1]], {"maxContains"}, {"maxContains"}),
        ({"prefixItems": [{"type": "null"}], "minItems": 1, "maxItems": 1}, [[None]], [[], [1], [None, None]], set(), set()),
        ({"prefixItems": [{"type": "null"}], "items": {"const": 1}}, [[], [None]], [[1], [None, 2]], set(), set()),
        ({"prefixItems": [{"type": "null"}], "unevaluatedItems": False}, [[], [None]], [[None, None]], set(), set()),
        ({"allOf": [{"prefixItems": [{"type": "null"}]}], "unevaluatedItems": {"const": 1}, "maxItems": 2}, [[None], [None, 1]], [[None, 2]], {"unevaluatedItems"}, {"unevaluatedItems"}),
        ({"type": "array", "items": NEVER}, [[]], [[1], [3]], set(), set()),
        ({"type": "array", "items": False}, [[]], [[1]], set(), set()),
    ],
)  # fmt: skip
def test_arrays(
    schema: dict[str, Any], good: list[Any], bad: list[Any], left: set[str], left_in_repair: set[str]
) -> None:
    judge(schema, good, bad, left, left_in_repair)


@pytest.mark.parametrize(
    "schema",
    [
        {"items": {"enum": [1, 2]}, "uniqueItems": True, "minItems": 3},
        {"items": {"type": "integer"}, "contains": {"const": 1}, "minContains": 2, "maxItems": 1},
        {"contains": {"const": 1}, "minContains": 3, "maxContains": 2},
        {"items": {"type": "null"}, "minItems": 3, "maxItems": 2},
        {"items": NEVER, "minItems": 1},
        {"prefixItems": [NEVER], "minItems": 1},
        {"properties": {"a": {}, "b": {}}, "required": ["a", "b"], "maxProperties": 1},
        {**OBJECT, "properties": {"a": {}}, "minProperties": 2},
        {"type": "object", "maxProperties": 0, "minProperties": 1},
        {"type": "object", "additionalProperties": False, "minProperties": 1},
        {"type": "object", "properties": {"ab": {}}, "required": ["ab"], "propertyNames": {"maxLength": 1}},
        {"type": "string", "not": {"minLength": 0}},
        {"not": True},
        {"type": "integer", "multipleOf": 10, "minimum": 11, "maximum": 19},
        {"type": "boolean", "not": {"enum": [True, False]}},
        {"oneOf": [{"type": "string"}, {"type": "string"}]},
        {"properties": {"a": False}, "required": ["a"]},
        {"items": {"$ref": "#/$defs/never"}, "minItems": 1, "$defs": {"never": NEVER}},
        {"properties": {"a": {"$ref": "#/$defs/no"}}, "required": ["a"], "$defs": {"no": False}},
        {"properties": {"a": NEVER, "b": {"type": "string", "enum": [1]}}, "required": ["a", "b"]},
    ],
)
def test_what_contradicts_itself_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="no value can satisfy it"):
        prepare_schema(schema)


def test_a_count_beyond_what_llama_cpp_takes_is_left_to_the_check() -> None:
    for schema in (
        {"type": "array", "items": {"type": "null"}, "minItems": 1901},
        {"type": "array", "prefixItems": [{"type": "null"}], "minItems": 1901, "maxItems": 1902},
        {"type": "string", "minLength": 1901},
    ):
        prepared = prepare_schema(schema, bounds=None)
        assert [keyword for _, keyword in prepared.unenforced][:1] == [next(key for key in schema if key[:3] == "min")]
        assert "1901" not in json.dumps(prepared.for_server)


# -- objects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "good", "bad", "left", "left_in_repair"),
    [
        ({"type": "object", "additionalProperties": NEVER}, [{}], [{"a": 3}], set(), set()),
        ({"type": "object", "properties": {"a": NEVER}, "additionalProperties": False}, [{}], [{"a": 3}], set(), set()),
        ({"type": "object", "additionalProperties": False}, [{}], [{"a": 3}], set(), set()),
        ({**OBJECT, "patternProperties": {"^x": {"const": 1}}}, [{}, {"x": 1}], [{"y": 1}], {"patternProperties", "additionalProperties"}, set()),
        ({"type": "object", "propertyNames": {"maxLength": 1}}, [{}, {"a": 1}], [{"ab": 1}], {"propertyNames"}, set()),
        ({"type": "object", "propertyNames": {"enum": ["a", "b"]}}, [{}, {"a": 1}], [{"c": 1}], set(), set()),
        ({"type": "object", "additionalProperties": {"const": 1}, "maxProperties": 1}, [{}, {"a": 1}], [{"a": 1, "b": 1}], {"maxProperties"}, set()),
        ({"type": "object", "additionalProperties": {"const": 1}, "minProperties": 1}, [{"a": 1}], [{}], {"minProperties"}, {"minProperties"}),
        ({**OBJECT, "properties": {"a": {"const": 1}, "b": {"const": 1}}, "minProperties": 1}, [{"a": 1}, {"b": 1}], [{}], set(), set()),
        ({**OBJECT, "properties": {"a": {"const": 1}, "b": {"const": 1}}, "maxProperties": 1}, [{}, {"a": 1}, {"b": 1}], [{"a": 1, "b": 1}], set(), set()),
        ({**OBJECT, "properties": LETTERS, "minProperties": 4}, [dict.fromkeys("abcd", 1)], [{}, {"a": 1}], set(), set()),
        ({**OBJECT, "properties": LETTERS, "maxProperties": 4}, [{}, {"h": 1}], [dict.fromkeys("abcde", 1)], {"maxProperties"}, set()),
        ({**OBJECT, "properties": LETTERS, "minProperties": 4, "maxProperties": 4}, [dict.fromkeys("abcd", 1)], [{}, {"h": 1}], set(), set()),
        ({"properties": {"a": {"const": 1}}, "unevaluatedProperties": False}, [{}, {"a": 1}], [{"b": 1}], set(), set()),
        ({"type": "object", "required": ["b"], "unevaluatedProperties": {"const": 1}}, [{"b": 1}], [{"b": 2}], set(), set()),
        ({"type": "object", "required": ["b"], "additionalProperties": {"const": 1}}, [{"b": 1}], [{"b": 2}, {}], set(), set()),
        ({**OBJECT, "allOf": [{"properties": {"a": {"const": 1}}}]}, [{}], [{"a": 1}], set(), set()),
        ({"allOf": [{"properties": {"a": {"const": 1}}}], "required": ["a"], "unevaluatedProperties": False}, [{"a": 1}], [{"a": 1, "b": 1}, {"a": 2}], set(), set()),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"unevaluatedProperties": False}]}, [{}], [{"a": 1}], {"unevaluatedProperties"}, {"unevaluatedProperties"}),
        ({**OBJECT, "properties": {"a": {"const": 1}, "b": {"const": 1}}, "dependentRequired": {"a": ["b"]}}, [{}, {"b": 1}, {"a": 1, "b": 1}], [{"a": 1}], set(), set()),
        ({**OBJECT, "properties": {"a": {"const": 1}, "b": {"const": 1}}, "dependentSchemas": {"a": {"required": ["b"]}}}, [{}, {"b": 1}, {"a": 1, "b": 1}], [{"a": 1}], set(), set()),
    ],
)  # fmt: skip
def test_objects(
    schema: dict[str, Any], good: list[Any], bad: list[Any], left: set[str], left_in_repair: set[str]
) -> None:
    judge(schema, good, bad, left, left_in_repair)


# -- alternatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "good", "bad", "left", "left_in_repair"),
    [
        ({"allOf": [{}]}, [1, "a", None], [], set(), set()),
        ({"not": False}, [1, "a", None], [], set(), set()),
        ({"type": "integer", "not": {"title": "small", "then": {}, "maximum": 3}}, [4], [3], set(), set()),
        ({"type": "string", "not": {"pattern": "^a"}}, ["b"], ["a"], {"not"}, {"not"}),
        ({"type": "string", "not": {"const": "ab"}}, ["abc", "b"], ["ab"], {"not"}, set()),
        ({"type": "string", "maxLength": 2, "not": {"const": "ab"}}, ["a"], ["ab"], {"not"}, set()),
        ({"type": "array", "items": {"type": "integer"}, "not": {"contains": {"const": 1}, "minContains": 2}}, [[1]], [[1, 1]], {"not"}, {"not"}),
        ({"type": "array", "items": {"const": 1}, "maxItems": 2, "not": {"prefixItems": [{}], "items": {"const": 1}}}, [], [[1, 1]], {"not"}, {"not"}),
        ({"type": "array", "items": {"type": "null"}, "not": {"const": []}}, [[None]], [[]], {"not"}, {"not"}),
        ({"type": "integer", "not": {"$ref": "#/$defs/small"}, "$defs": {"small": {"maximum": 3}}}, [4], [3], set(), set()),
        ({"type": ["string", "integer"], "not": {"type": "integer"}}, ["a"], [1], {"not"}, set()),
        ({"type": ["string", "number"], "not": {"type": "number"}}, ["a"], [1, 1.5], set(), set()),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ["a", 1], [None, 1.5], set(), set()),
        ({"oneOf": [{"enum": ["a", "b"]}, {"const": "c"}]}, ["a", "c"], ["d"], set(), set()),
        ({"oneOf": [{"enum": ["a", "b"]}, {"const": "b"}]}, ["a"], ["b"], set(), set()),
        ({"oneOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "maximum": 5}]}, [2, 6], [3, 4, 5], {"oneOf"}, set()),
        ({"oneOf": [{"type": "string", "pattern": "^a+$"}, {"type": "string", "maxLength": 2}]}, ["aaa", "b"], ["aa"], {"oneOf"}, set()),
        ({"oneOf": [{"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}, {"type": "object", "properties": {"a": False, "b": {"const": 1}}, "required": ["b"]}]}, [{"a": 1}, {"b": 1}], [{}, {"c": 1}], set(), set()),
        ({"type": "integer", "if": {"minimum": 3}, "then": {"maximum": 5}, "else": {"minimum": 1}}, [1, 5], [0, 6], set(), set()),
        ({"type": "integer", "if": {"minimum": 3}}, [1, 5], ["a"], set(), set()),
        ({"type": "string", "if": {"pattern": "^a"}, "then": {"maxLength": 2}, "else": {"maxLength": 3}}, ["b", "bcd"], ["abc"], {"if"}, {"if"}),
        ({"allOf": [{"anyOf": [{"maximum": n} for n in range(9)]}, {"anyOf": [{"minimum": n - 20} for n in range(9)]}], "type": "integer"}, [3], [-21], {"allOf"}, {"allOf"}),
        ({"properties": {name: {"$ref": "#/$defs/d", "maxProperties": 2} for name in "xy"}, "$defs": {"d": {**OBJECT, "properties": {"a": {"const": 1}, "b": {"const": 1}}, "dependentRequired": {"a": ["b"]}}}}, [{"x": {"b": 1}}, {"y": {"a": 1, "b": 1}}], [{"x": {"a": 1}}, {"y": {"a": 1}}], set(), set()),
        ({"type": "string", "allOf": [{"pattern": "^a+$"}, {"pattern": "^a+$"}]}, ["aa"], ["b", ""], set(), set()),
        ({"type": "string", "allOf": [{"pattern": "^a+$"}, {"pattern": "^..$"}]}, ["aa"], ["aaa"], {"pattern"}, {"pattern"}),
        ({"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^(a|bc)+$"}, ["abc"], ["xyz"], {"pattern"}, {"pattern"}),
    ],
)  # fmt: skip
def test_alternatives(
    schema: dict[str, Any], good: list[Any], bad: list[Any], left: set[str], left_in_repair: set[str]
) -> None:
    judge(schema, good, bad, left, left_in_repair)


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "good", "bad", "left", "left_in_repair"),
    [
        ({"type": "integer", "allOf": [{"minimum": 3}, {"minimum": 1}, {"maximum": 5}, {"maximum": 9}]}, [3, 5], [2, 6], set(), set()),
        ({"type": "integer", "minimum": 10**15 + 7, "maximum": 10**15 + 9}, [10**15 + 7], [10**15 + 6], set(), set()),
        ({"type": "integer", "maximum": -(10**15) - 7}, [-(10**15) - 7], [0], set(), set()),
        ({"type": "integer", "multipleOf": 7}, [14], [15], {"multipleOf"}, set()),
        ({"type": "number", "multipleOf": 2, "minimum": 3, "maximum": 9}, [4, 8], [2, 5, 10], set(), set()),
        ({"type": "number", "multipleOf": 0.25}, [0.25, 3], [0.3], {"multipleOf"}, set()),
        ({"type": "number", "multipleOf": 0.5, "maximum": -1}, [-1.5], [-0.5, -1.3], {"multipleOf", "maximum"}, set()),
        ({"type": "number", "exclusiveMinimum": 0}, [0.5, 3], [0, -1], {"exclusiveMinimum"}, set()),
        ({"type": "number", "maximum": 0.5}, [0.5, -3], [0.6], {"maximum"}, set()),
        ({"type": "number", "minimum": 0.5, "maximum": 0.5}, [0.5], [0.6], {"minimum", "maximum"}, set()),
        ({"type": "number", "minimum": 1e20}, [1e20], [3], {"minimum"}, set()),
        ({"type": "number", "minimum": 0, "maximum": 1, "not": {"const": 0.5}}, [0.25], [0.5, 2], {"minimum", "maximum", "not"}, set()),
        ({"anyOf": [{"type": "number", "multipleOf": 0.5, "minimum": 0.1, "maximum": 0.4}, {"const": 1}]}, [1], [0.2], {"multipleOf", "minimum", "maximum"}, set()),
        ({"type": "number", "exclusiveMinimum": 0.1, "maximum": 0.4}, [0.2], [0.1, 0.5], {"exclusiveMinimum", "maximum"}, set()),
        ({"type": "integer", "not": {"const": 5}, "minimum": 0, "maximum": 9}, [4], [5], set(), set()),
        ({"type": "boolean", "not": {"const": True}}, [False], [True], set(), set()),
    ],
)  # fmt: skip
def test_numbers(
    schema: dict[str, Any], good: list[Any], bad: list[Any], left: set[str], left_in_repair: set[str]
) -> None:
    judge(schema, good, bad, left, left_in_repair)


# -- references and older words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "good", "bad", "left", "left_in_repair"),
    [
        ({"prefixItems": [{"const": 1}, {"$ref": "#/prefixItems/0"}], "minItems": 2, "items": False}, [[1, 1]], [[1, 2]], set(), set()),
        ({"items": [{"const": 1}, {"$ref": "#/items/0"}], "minItems": 2, "additionalItems": False}, [[1, 1]], [[1, 2]], set(), set()),
        ({"items": [{"const": 1}], "minItems": 2}, [[1, "x"]], [["x", 1]], set(), set()),
        ({"$ref": "#/$defs/a/examples/0", "$defs": {"a": {"examples": [{"properties": {"x": {"const": 1}}, "required": ["x"]}]}}}, [{"x": 1}], [{"x": 2}], set(), set()),
        ({"$ref": "#mark", "$defs": {"a": {"$anchor": "mark", "const": 1}}}, [1], [2], set(), set()),
        ({"$ref": "other", "$id": "https://example.com/this", "$defs": {"a": {"$id": "other", "const": 1}}}, [1], [2], set(), set()),
        ({"$dynamicRef": "#n", "$defs": {"a": {"$dynamicAnchor": "n", "const": 1}}}, [1], [2], set(), set()),
        ({"$id": "https://example.com/tree", "$dynamicAnchor": "n", **OBJECT, "properties": {"k": {"type": "array", "items": {"$dynamicRef": "#n"}}}, "$defs": {"a": {"$id": "leaf", "$dynamicAnchor": "n", "const": 1}}}, [{"k": [{"k": []}, {}]}], [{"k": [1]}], {"$dynamicRef"}, {"$dynamicRef"}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/a", "maximum": 0, "definitions": {"a": {"enum": [1, 2]}}}, [1, 2], [3], set(), set()),
        ({"type": "object", "properties": {"k": {"type": "array", "items": {"$recursiveRef": "#"}}}, "additionalProperties": False}, [{"k": [{"k": []}]}], [{"k": [1]}], set(), set()),
        ({"nullable": True, "$defs": {"a": {"const": 1}}, "$ref": "#/$defs/a"}, [1, None], [2], set(), set()),
        ({"nullable": True, "enum": ["a"]}, ["a", None], ["b"], set(), set()),
        ({"nullable": True, "type": "string", "enum": ["a"]}, ["a", None], ["b", 1], set(), set()),
        ({"nullable": True, "type": "string", "const": "a"}, ["a", None], ["b"], set(), set()),
        ({"nullable": True, "type": "integer", "not": {"const": 3}, "minimum": 2, "maximum": 4}, [2, None], [3, 1], set(), set()),
        ({"nullable": True, "type": "null"}, [None], ["b"], set(), set()),
        ({"nullable": False, "type": "boolean"}, [True], [None], set(), set()),
        ({"type": "integer", "maximum": 5, "exclusiveMaximum": True, "minimum": 3, "exclusiveMinimum": False}, [3, 4], [2, 5], set(), set()),
    ],
)  # fmt: skip
def test_references_and_older_words(
    schema: dict[str, Any], good: list[Any], bad: list[Any], left: set[str], left_in_repair: set[str]
) -> None:
    judge(schema, good, bad, left, left_in_repair)


def test_what_only_a_closer_look_finds_impossible_is_left_to_the_check_in_both_forms() -> None:
    prepared = prepare_schema({"type": "number", "multipleOf": 0.5, "minimum": 0.1, "maximum": 0.4})
    assert prepared.for_repair == prepared.for_server == {"type": "number"}
    assert {keyword for _, keyword in prepared.unenforced_in_repair} == {"multipleOf", "minimum", "maximum"}


def test_a_reference_that_means_another_thing_on_another_way_is_left_to_the_check() -> None:
    schema = {
        "$ref": "#/$defs/a",
        "$defs": {
            "a": {"items": {"$dynamicRef": "#n"}, "$defs": {"b": {"$dynamicAnchor": "n", "type": "integer"}}},
            "c": {"$dynamicAnchor": "n", "type": "string"},
        },
    }
    assert ("/$defs/a/items", "$dynamicRef") in prepare_schema(schema).unenforced


def deep(levels: int) -> dict[str, Any]:
    return {"items": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (deep(210), "nested more than 200 levels"),
        ({7: {}}, "the keyword 7 is not a string"),
        ({"anyOf": []}, "'anyOf'"),
        ({"anyOf": {"type": "null"}}, "must be a list of schemas"),
        ({"minimum": True}, "True is not a number"),
        ({"properties": {"a": {"$ref": "#/$defs/a/0"}}, "$defs": {"a": [1]}}, "must map|points to nothing|not"),
        ({"properties": {"a": {"$ref": "#/type"}}, "type": "object"}, "points to nothing"),
        ({"$ref": "#/prefixItems/3", "prefixItems": [{}]}, "points to nothing"),
        ({"$ref": "#/items/3", "items": [{}]}, "points to nothing"),
    ],
)
def test_what_is_no_schema_is_refused(schema: dict[Any, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        prepare_schema(schema)
    assert caught.value.hint
