"""The grammar of a prepared schema: what it lets through, what it does not, and that llama.cpp's limits hold."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localllama import ToolSpec
from localllama._protocol.envelope import Envelope
from localllama._protocol.gbnf import grammar_of
from localllama._protocol.schemas import GenerationBounds, check_instance, prepare_schema
from support.gbnf_reading import Grammar
from support.schema_cases import AWKWARD_NAMES, SCHEMA_CASES


def grammar(schema: dict[str, Any], **bounds: int) -> Grammar:
    return Grammar(grammar_of(prepare_schema(schema, bounds=GenerationBounds(**bounds)).for_server))


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize(
    "schema",
    [pytest.param(case, id=f"{group}-{n}") for group, cases in SCHEMA_CASES.items() for n, case in enumerate(cases)],
)
def test_every_prepared_schema_has_a_grammar(schema: dict[str, Any]) -> None:
    prepared = prepare_schema(schema)
    for form in (prepared.for_server, prepared.for_repair):
        assert Grammar(grammar_of(form)).rules["root"]


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"enum": ["a b", 'say "x"', "\\", "é\n", None, [1, {"k": 2.5}]]}, ["a b", 'say "x"', "\\", "é\n", None, [1, {"k": 2.5}]], ["ab", "a  b", {}]),
        ({"type": "boolean"}, [True, False], [None, 1]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "é日c", '"\\'], ["a", "abcd", 1]),
        ({"type": "string", "pattern": r"^[A-Z]{2}-\d+\.?$"}, ["AB-1", "AB-123."], ["AB-", "ab-1", "AB-1x"]),
        ({"type": "string", "format": "date"}, ["2026-11-27"], ["2026-13-01", "today"]),
        ({"type": "string", "pattern": "^$"}, [""], ["a"]),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3}, [[None] * 2, [None] * 3], [[], [None], [None] * 4]),
        ({"type": "array", "items": {"type": "null"}, "maxItems": 1}, [[], [None]], [[None] * 2]),
        ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, [[]], [[None]]),
        ({"prefixItems": [{"type": "null"}, {"type": "integer"}], "items": False, "minItems": 2}, [[None, 1]], [[1, None], [None]]),
        ({"properties": {"a": {"const": 1}, "b": {"const": 2}}, "required": ["b"]}, [{"b": 2}, {"b": 2, "a": 1}], [{}, {"a": 1}, {"a": 1, "b": 2}, {"b": 1}]),
        ({"properties": {name: {"const": 0} for name in "abc"}}, [{}, {"a": 0}, {"b": 0}, {"c": 0}, {"a": 0, "b": 0, "c": 0}, {"a": 0, "c": 0}, {"b": 0, "c": 0}], [{"b": 0, "a": 0}, {"d": 0}]),
        ({"type": "object", "additionalProperties": {"type": "null"}}, [{}, {"x y": None}, {"a": None, "b": None}], [{"a": 1}]),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"], "minProperties": 2}, [{"a": None, "b": 1}, {"a": None, "b": [], "c": {}}], [{"b": 1}, {"a": None, "a2": 1}]),
        ({}, [None, 1, "x", [1, ["y"]], {"a": {"b": False}}], []),
        ({"$ref": "#/$defs/t", "$defs": {"t": {"properties": {"v": {"const": 1}, "k": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "required": ["v"]}}}, [{"v": 1}, {"v": 1, "k": [{"v": 1, "k": []}]}], [{"v": 1, "k": [1]}]),
    ],
)  # fmt: skip
def test_what_is_in_the_grammar(schema: dict[str, Any], valid: list[Any], invalid: list[Any]) -> None:
    made = grammar(schema)
    for value in valid:
        assert made.accepts(compact(value)), value
    for value in invalid:
        assert not made.accepts(compact(value)), value


def test_blanks_between_the_parts_are_the_models_business() -> None:
    made = grammar({"properties": {"a": {"type": "array", "items": {"type": "null"}}}, "required": ["a"]})
    for text in ('{"a":[null,null]}', '{"a": [null, null]}', '{\n  "a": [\n    null\n  ]\n}', '{"a": []}'):
        assert made.accepts(text)
    assert not made.accepts('{"a":   [null]}')


@given(low=st.integers(-(10**15), 10**15), high=st.integers(-(10**15), 10**15), data=st.data())
def test_whole_numbers_between_bounds(low: int, high: int, data: st.DataObject) -> None:
    low, high = sorted((low, high))
    made = Grammar(grammar_of({"type": "integer", "minimum": low, "maximum": high}))
    near = st.one_of(
        st.integers(low, high), st.integers(low - 20, low + 20), st.integers(high - 20, high + 20), st.integers()
    )
    value = data.draw(near)
    assert made.accepts(str(value)) == (low <= value <= high)
    assert not made.accepts(f"0{abs(value)}")
    assert not made.accepts("-0")


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**64 - 1, 10**20 - 1, 0, -7])
def test_large_integers_pass(value: int) -> None:
    assert grammar({"type": "integer"}).accepts(str(value))
    assert grammar({"type": "number"}).accepts(str(value))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_ordinary_floats_pass(value: float) -> None:
    made = grammar({"type": "number"})
    assert made.accepts(repr(value)) or not 1e-99 < abs(value) < 1e280 or value == 0


@given(st.from_regex(r"\A-?[0-9]{1,25}(\.[0-9]{1,25})?([eE][-+]?[0-9]{1,4})?\Z"))
def test_no_number_is_beyond_a_double(text: str) -> None:
    if grammar({"type": "number"}).accepts(text):
        assert math.isfinite(float(text))


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    )
)
def test_a_constant_is_itself(value: Any) -> None:
    made = Grammar(grammar_of({"const": value}))
    assert made.accepts(compact(value))
    assert not made.accepts(compact([value]))


def test_the_names_of_tools_are_written_as_they_are() -> None:
    tools = tuple(ToolSpec(name, "", prepare_schema({"const": {}}).for_server) for name in AWKWARD_NAMES)
    for is_parallel in (False, True):
        made = Grammar(grammar_of(Envelope(tools, is_parallel=is_parallel, has_answer=True).schema()))
        for name in AWKWARD_NAMES:
            assert made.accepts(compact({"name": name, "arguments": {}}))
            assert not made.accepts(compact({"name": f"{name}x", "arguments": {}}))
            assert made.accepts(compact([{"name": name, "arguments": {}}] * 8)) == is_parallel
        assert made.accepts(compact({"answer": 'In "words".\n'}))


def test_a_long_string_has_its_bound() -> None:
    made = grammar({"type": "string"}, max_string_length=3000)
    assert made.accepts(compact("x" * 3000))
    assert not made.accepts(compact("x" * 3001))


def test_what_is_not_prepared_is_refused() -> None:
    for schema in (
        {"type": "string", "pattern": "x$"},
        {"$ref": "#/$defs/a"},
        {"allOf": []},
        {"type": "string", "pattern": r"^\d$"},
    ):
        with pytest.raises(ValueError, match=r"prepared|leads nowhere"):
            grammar_of(schema)


def test_the_grammar_is_no_wider_than_the_schema() -> None:
    schema = {"properties": {"n": {"type": "integer", "minimum": -3, "maximum": 12}}, "required": ["n"]}
    made = grammar(schema)
    for n in range(-30, 130):
        text = compact({"n": n})
        assert made.accepts(text) == check_instance(schema, text).is_valid


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "string"}, ["", "a b"], [1]),
        ({"type": "string", "minLength": 2}, ["ab", "abc"], ["a"]),
        ({"type": "array"}, [[], [1, ["a"]]], [{}]),
        ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, [[]], [[None]]),
        ({"type": "object"}, [{}, {"a": [1]}], [[]]),
        ({"type": "integer"}, [0, -3], [0.5, "a"]),
        ({}, [None, "a", {"a": []}], []),
    ],
)
def test_types_alone(schema: dict[str, Any], valid: list[Any], invalid: list[Any]) -> None:
    made = Grammar(grammar_of(schema))
    assert all(made.accepts(compact(value)) for value in valid)
    assert not any(made.accepts(compact(value)) for value in invalid)
