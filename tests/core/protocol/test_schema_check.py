"""What is found in an answer, and in which words."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from localllama import ConfigurationError
from localllama._protocol.schemas import ENDLESS_NUMBER, check_instance, parse_json, repair_message, strip_code_fence

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mail": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def faults(schema: dict[str, Any], value: Any) -> list[tuple[str, str]]:
    return [(each.path, each.keyword) for each in check_instance(schema, json.dumps(value)).violations]


def test_a_valid_answer_comes_back_parsed() -> None:
    check = check_instance(PERSON, '{"name": "Ann", "age": 30, "mail": "a@example.com"}')
    assert check.is_valid
    assert check.value == {"name": "Ann", "age": 30, "mail": "a@example.com"}


def test_every_fault_is_named_with_its_place() -> None:
    value = {"name": "A", "age": 200, "mail": "nobody", "tags": ["a", "c", "a"], "extra": 1}
    assert sorted(faults(PERSON, value)) == [
        ("", "additionalProperties"),
        ("/age", "maximum"),
        ("/mail", "format"),
        ("/name", "minLength"),
        ("/tags", "uniqueItems"),
        ("/tags/1", "enum"),
    ]


def test_the_words_say_what_is_wrong_and_what_is_wanted() -> None:
    check = check_instance(PERSON, '{"age": -1}')
    assert set(map(str, check.violations)) == {
        'the whole answer: required members are missing: "name"',
        "/age: -1 is too small; it must be at least 0",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ('{"a": 1', "line 1, column 8"),
        ('{"a": 1} and more', "Extra data"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ("{'a': 1}", "column 2"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_json_is_said_to_be_none(text: str, words: str) -> None:
    (violation,) = check_instance({}, text).violations
    assert violation.keyword == "json"
    assert words in violation.message


def test_values_are_checked_as_they_are() -> None:
    assert check_instance({"type": "string"}, "no JSON", is_text=False).is_valid
    assert check_instance({"type": "object"}, {"a": 1}).is_valid


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ("  ```\n[1,\n2]\n```  \n", "[1,\n2]"),
        ('{"a": "```"}', '{"a": "```"}'),
        ("before ```json\n1\n```", "before ```json\n1\n```"),
    ],
)
def test_a_fence_around_everything_is_taken_off(text: str, inside: str) -> None:
    assert strip_code_fence(text) == inside


def test_multiples_are_decimal() -> None:
    assert check_instance({"multipleOf": 0.01}, "0.07").is_valid
    assert check_instance({"multipleOf": 0.1}, "1.1").is_valid
    assert not check_instance({"multipleOf": 0.01}, "0.071").is_valid


def test_in_a_union_the_fault_of_the_nearest_member_is_told() -> None:
    schema = {
        "anyOf": [
            {"properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind", "lives"]},
            {"properties": {"kind": {"const": "dog"}, "name": {"type": "string"}}, "required": ["kind", "name"]},
        ]
    }
    assert faults(schema, {"kind": "dog", "name": 3}) == [("/name", "type")]
    assert faults({"anyOf": [{"type": "integer", "minimum": 3}, {"type": "null"}]}, 1) == [("", "minimum")]


def test_names_of_members_are_named() -> None:
    (violation,) = check_instance({"propertyNames": {"maxLength": 2}}, '{"long": 1}').violations
    assert violation.keyword == "propertyNames"
    assert '"long"' in violation.message


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", "2024-02-29", "2023-02-29"),
        ("time", "23:59:60Z", "24:00:00Z"),
        ("date-time", "2024-02-29T12:00:00.5+01:00", "2024-02-30T12:00:00Z"),
        ("date-time", "2024-02-29t12:00:00z", "2024-02-29 12:00:00"),
        ("duration", "P1DT12H", "P"),
        ("email", "joe.bloggs@example.com", ".joe@example.com"),
        ("hostname", "www.example.com", "-bad.example"),
        ("ipv4", "127.0.0.1", "256.0.0.1"),
        ("ipv6", "::ffff:1", "12345::"),
        ("uri", "https://example.com/a?b#c", "//example.com"),
        ("uri-reference", "/a/b", "a b"),
        ("uuid", "2EB8AA08-AA98-11EA-B4AA-73B441D16380", "2eb8aa08-aa98-11ea-b4aa73b441d16380"),
        ("json-pointer", "/a~0b/0", "a"),
        ("regex", "^a+$", "(a"),
    ],
)
def test_formats_are_checked(name: str, good: str, bad: str) -> None:
    assert check_instance({"format": name}, json.dumps(good)).is_valid
    assert not check_instance({"format": name}, json.dumps(bad)).is_valid


def test_a_schema_that_is_none_is_refused_and_a_foreign_reference_is_not_fetched() -> None:
    with pytest.raises(ConfigurationError):
        check_instance({"type": "strnig"}, "1")


@pytest.mark.parametrize("text", ["1e400", "-1E+999", "9" * 309, "9" * 5_000, "0." + "1" * 400 + "e999"])
def test_numbers_beyond_a_double_are_no_answer(text: str) -> None:
    with pytest.raises(ValueError, match="is too large"):
        parse_json(text)
    (violation,) = check_instance({}, f'{{"n": [{text}]}}').violations
    assert violation.keyword == ENDLESS_NUMBER
    assert text[:20] in violation.message
    assert len(violation.message) < 120


@pytest.mark.parametrize("value", [1.7976931348623157e308, -5e-324, 2**64, 10**30, 10**308, 0.1])
def test_other_numbers_are_what_they_are(value: float) -> None:
    assert parse_json(json.dumps(value)) == value
    assert check_instance({"type": "number"}, value).is_valid


@pytest.mark.parametrize("value", [float("inf"), [{"a": float("nan")}]])
def test_a_value_without_an_end_is_no_answer_either(value: Any) -> None:
    (violation,) = check_instance({}, value).violations
    assert violation.keyword == ENDLESS_NUMBER


def test_the_repair_message_has_the_answer_the_faults_and_the_task() -> None:
    text = '{"name": "A", "age": 30}'
    message = repair_message(check_instance(PERSON, text), text)
    assert text in message
    assert "- /name: it is too short; at least 2 characters are needed" in message
    assert message.rstrip().endswith("Change what is wrong and keep the rest.")
    assert len(repair_message(check_instance(PERSON, "x" * 50_000), "x" * 50_000)) < 6_000
    with pytest.raises(ValueError, match="nothing to repair"):
        repair_message(check_instance({}, "1"), "1")


def test_schemas_that_are_no_json_are_told_apart_too() -> None:
    for kind, right, wrong in (("integer", 1, "a"), ("string", "a", 1)):
        schema = {"type": kind, "examples": [Decimal("1.5")]}
        assert check_instance(schema, right, is_text=False).is_valid
        assert not check_instance(schema, wrong, is_text=False).is_valid


def test_a_check_that_goes_round_for_ever_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="round for ever") as caught:
        check_instance({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#"}}}, "1")
    assert caught.value.hint


def test_of_many_faults_the_first_are_told_and_none_twice() -> None:
    assert len(faults({"items": {"type": "null"}}, list(range(30)))) == 20
    assert faults({"allOf": [{"minimum": 3}, {"minimum": 3}]}, 1) == [("", "minimum")]


def test_a_union_of_which_nothing_fits_is_told_whole() -> None:
    assert faults({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "a") == [("", "anyOf")]
    assert faults({"oneOf": [{"type": "integer"}, {"minimum": 1}]}, 3) == [("", "oneOf")]
