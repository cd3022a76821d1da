"""What `prepare_schema` refuses, keeps, rewrites and leaves to the check."""

from __future__ import annotations

import copy
import datetime as dt
import enum
import ipaddress
import json
import time
import uuid
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from pydantic import BaseModel, Field, HttpUrl

from localllama import ConfigurationError
from localllama._protocol.schemas import GenerationBounds, check_instance, prepare_schema
from support.schema_cases import SCHEMA_CASES

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: Annotated[int, Field(ge=1, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str] = []


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Box(BaseModel, Generic[T]):
    item: T


class Everything(BaseModel):
    optional: int | None = None
    color: Color
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    tree: Node
    pair: tuple[int, str]
    price: Decimal
    amount: Annotated[Decimal, Field(max_digits=6, decimal_places=2)]
    raw: bytes
    wait: dt.timedelta
    counts: dict[str, int]
    by_color: dict[Literal["red", "blue"], float]
    moment: dt.datetime
    day: dt.date
    clock: dt.time
    identifier: uuid.UUID
    address: ipaddress.IPv4Address
    home: HttpUrl
    box: Box[int]
    other_box: Box[str]
    choice: Literal["x", 1] | None
    colors: frozenset[Color]
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}\d{3}$")]
    anything: Any
    step: Annotated[int, Field(multiple_of=5, ge=0, le=100)]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema behind the root's reference."""
    if "$ref" in schema:
        target: dict[str, Any] = schema["$defs"][schema["$ref"].rpartition("/")[2]]
        return target
    return schema


def prepared(schema: dict[str, Any]) -> dict[str, Any]:
    return resolved(prepare_schema(schema, bounds=None).for_server)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strnig"}, ["'strnig'", "#", "'type'"]),
        ({"properties": {"a/b": {"type": "text"}}}, ["#/properties/a~1b", "'type'"]),
        ({"type": "integer", "minimum": 3, "maximum": 2}, ["no value", "minimum", "maximum"]),
        ({"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 3}, ["no value"]),
        ({"type": "string", "minLength": 3, "maxLength": 2}, ["no value"]),
        ({"type": "string", "enum": [1, 2]}, ["no value", "enum"]),
        ({"properties": {"a": False}, "required": ["a"]}, ["no value"]),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, ["no value"]),
        ({"properties": {"me": {"$ref": "#"}}, "required": ["me"]}, ["no value"]),
        ({"not": {}}, ["no value", "not"]),
        ({"$ref": "https://example.com/other.json"}, ["outside", "$ref", "https://example.com/other.json"]),
        ({"items": {"$ref": "#/$defs/missing"}}, ["points to nothing", "#/items"]),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}}, ["back to itself"]),
        ({"pattern": "("}, ["regular expression", "pattern"]),
        ({"properties": []}, ["properties"]),
        ({"properties": {"a": 7}}, ["#/properties/a", "7"]),
        ({"required": "a"}, ["required"]),
        ({"enum": []}, ["enum"]),
        ({"minLength": -1}, ["minLength", "-1"]),
        ({"multipleOf": 0}, ["multipleOf"]),
        ({"maximum": "9"}, ["maximum", "'9'"]),
        ({"minimum": float("inf")}, ["minimum", "inf", "no bound"]),
        ({"multipleOf": float("nan")}, ["multipleOf", "nan", "no bound"]),
    ],
)
def test_what_nobody_can_satisfy_or_read_is_refused_with_its_place(schema: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        prepare_schema(schema)
    assert caught.value.hint
    for word in words:
        assert word in caught.value.message


def test_a_bound_at_infinity_is_none() -> None:
    open_ = {"type": "number", "exclusiveMinimum": float("-inf"), "maximum": float("inf")}  # pydantic's le=float("inf")
    assert prepared(open_) == {"type": "number"}
    assert check_instance(open_, "1e300").is_valid


def test_something_that_is_no_schema_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not an object"):
        prepare_schema(["string"])  # type: ignore[arg-type]


def test_the_schema_of_the_user_is_not_changed() -> None:
    for schemas in SCHEMA_CASES.values():
        for schema in schemas:
            before = copy.deepcopy(schema)
            prepare_schema(schema)
            assert schema == before


def test_properties_keep_their_order_and_objects_are_closed() -> None:
    schema = prepared({"properties": {name: {"type": "null"} for name in "zebra"}, "required": ["a"]})
    assert list(schema["properties"]) == list("zebra")
    assert schema["required"] == ["a"]
    assert schema["additionalProperties"] is False


def test_siblings_of_references_and_unions_are_kept() -> None:
    schema = prepared(
        {
            "properties": {"n": {"$ref": "#/$defs/small", "minimum": 3}, "x": {"type": "null"}},
            "anyOf": [{"required": ["n"]}, {"required": ["x"]}],
            "$defs": {"small": {"type": "integer", "maximum": 9}},
        }
    )
    assert [option["required"] for option in schema["anyOf"]] == [["n"], ["x"]]
    number = schema["anyOf"][0]["properties"]["n"]
    assert (number["minimum"], number["maximum"]) == (3, 9)


def test_listed_values_that_break_their_siblings_are_left_out() -> None:
    assert prepared({"type": "integer", "enum": [1, "a", 7], "maximum": 5}) == {"enum": [1]}
    assert prepared({"enum": ["a", "b"], "not": {"const": "a"}}) == {"enum": ["b"]}


def test_openapi_and_older_drafts_are_understood() -> None:
    assert prepared({"type": "string", "nullable": True}) == {"anyOf": [{"type": "null"}, {"type": "string"}]}
    assert prepared({"type": "integer", "minimum": 2, "exclusiveMinimum": True, "maximum": 5}) == {
        "type": "integer",
        "minimum": 3,
        "maximum": 5,
    }
    pair = {"type": "array", "items": [{"type": "null"}, {"type": "boolean"}], "additionalItems": False, "minItems": 2}
    # The length is said beside the places: newer builds of llama.cpp take the places alone for the beginning of a list.
    places = [{"type": "null"}, {"type": "boolean"}]
    assert prepared(pair) == {"type": "array", "prefixItems": places, "minItems": 2, "maxItems": 2}
    assert not check_instance(pair, "[null, true, 1]").is_valid
    assert check_instance({"type": "string", "nullable": True}, "null").is_valid


def test_bounds_of_numbers_are_left_to_the_check_and_narrowed_for_the_repair() -> None:
    schema = prepare_schema({"properties": {"x": {"type": "number", "minimum": 0, "maximum": 1}}})
    assert schema.unenforced == (("/properties/x", "minimum"), ("/properties/x", "maximum"))
    assert resolved(schema.for_server)["properties"]["x"] == {"type": "number"}
    whole, steps = resolved(schema.for_repair)["properties"]["x"]["anyOf"]
    assert (whole["minimum"], whole["maximum"]) == (0, 1)
    assert {0.01, 0.5, 0.99} <= set(steps["enum"])
    assert schema.unenforced_in_repair == ()


def test_endless_places_get_an_end_that_the_caller_sets() -> None:
    schema = {"type": "array", "items": {"type": "string"}}
    bounded = resolved(prepare_schema(schema, bounds=GenerationBounds(max_string_length=50, max_items=7)).for_server)
    assert bounded["maxItems"] == 7
    assert bounded["items"]["maxLength"] == 50
    assert prepared(schema) == schema
    own = resolved(
        prepare_schema({"type": "string", "maxLength": 900}, bounds=GenerationBounds(max_string_length=5)).for_server
    )
    assert own["maxLength"] == 900


def test_definitions_have_names_that_cannot_clash_in_the_grammar() -> None:
    pair = {"type": "object", "properties": {"b": {"enum": [1, 2]}}}
    schema = {
        "properties": {"x": {"$ref": "#/$defs/A"}, "y": {"$ref": "#/$defs/A-b"}, "z": {"$ref": "#/$defs/A"}},
        "$defs": {"A": pair, "A-b": {**pair, "required": ["b"]}},
    }
    names = prepare_schema(schema).for_server["$defs"]
    assert all(name.isalnum() for name in names)


def test_a_model_of_pydantic_prepares_whole() -> None:
    schema = Everything.model_json_schema()
    result = prepare_schema(schema)
    assert {keyword for _, keyword in result.unenforced} == set()
    assert result.for_repair == result.for_server
    properties = resolved(result.for_server)["properties"]
    assert list(properties) == list(schema["properties"])
    assert set(resolved({**properties["by_color"], "$defs": result.for_server["$defs"]})["properties"]) == {
        "red",
        "blue",
    }
    pets = resolved({**properties["pet"], "$defs": result.for_server["$defs"]})["anyOf"]
    assert all("kind" in json.dumps(pet) for pet in pets)


def test_preparing_a_large_model_takes_some_milliseconds() -> None:
    schema = Everything.model_json_schema()
    prepare_schema(schema)
    started = time.process_time()
    for _ in range(5):
        prepare_schema(schema)
    assert (time.process_time() - started) / 5 < 0.05  # 4 ms where it was measured


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_class_without_fields_is_an_empty_object_and_no_map(is_nested: bool) -> None:
    class Stop(BaseModel):
        """No fields."""

    class Step(BaseModel):
        stop: Stop

    prepared = prepare_schema((Step if is_nested else Stop).model_json_schema()).for_server
    assert "additionalProperties" not in json.dumps(prepared).replace('"additionalProperties": false', "")
    assert "[{}]" in json.dumps(prepared)


@pytest.mark.parametrize(
    "keywords",
    [{}, {"properties": {}, "additionalProperties": True}, {"properties": {}, "minProperties": 1}],
    ids=["bare", "open", "some"],
)
def test_an_object_that_may_have_any_names_stays_a_map(keywords: dict[str, Any]) -> None:
    prepared = prepare_schema({"type": "object", **keywords}).for_server
    assert "additionalProperties" in json.dumps(prepared)
