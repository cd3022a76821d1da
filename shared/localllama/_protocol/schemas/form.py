"""Reads a schema as its author meant it: checks its form, and writes older dialects and OpenAPI in the words of draft 2020-12.

Everything behind this module sees draft 2020-12 only. What is refused here could not be prepared and would be an error 400
of llama-server in the middle of a run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from localllama.errors import ConfigurationError

__all__ = ["MAP_KEYWORDS", "TYPE_NAMES", "Schema", "child_pointer", "modernized", "refusal"]

Schema = dict[str, Any] | bool

TYPE_NAMES = ("null", "boolean", "integer", "number", "string", "array", "object")

_SCHEMA_KEYWORDS = frozenset(
    [
        "additionalProperties",
        "additionalItems",
        "contains",
        "contentSchema",
        "else",
        "if",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
_SCHEMA_LIST_KEYWORDS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
MAP_KEYWORDS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_COUNT_KEYWORDS = frozenset(
    ["maxContains", "maxItems", "maxLength", "maxProperties", "minContains", "minItems", "minLength", "minProperties"]
)
_BOUND_KEYWORDS = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"})
_NO_BOUNDS = {  # what pydantic writes for `Field(le=float("inf"))`
    "exclusiveMaximum": math.inf,
    "exclusiveMinimum": -math.inf,
    "maximum": math.inf,
    "minimum": -math.inf,
}
_STRING_KEYWORDS = frozenset({"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$ref", "format", "pattern"})
_STAYS_OUTSIDE = frozenset({"$anchor", "$defs", "$dynamicAnchor", "$id", "$schema", "definitions"})
_OLD_DIALECT = re.compile(r"https?://json-schema\.org/draft-0[3-7]/")
_OLD_ITEM = re.compile(r"/items/(\d+)(?=/|$)")  # what a reference calls a place of an older dialect's tuple
_DEEPEST = 200  # levels; Python's own recursion limit must not be what a schema meets first


def child_pointer(pointer: str, *tokens: object) -> str:
    """A JSON pointer (RFC 6901) some steps further down."""
    escaped = (str(token).replace("~", "~0").replace("/", "~1") for token in tokens)
    return "/".join((pointer, *escaped))


def refusal(pointer: str, keyword: str, fault: str, remedy: str) -> ConfigurationError:
    """The error for a schema that cannot be prepared, with the place, the keyword and the remedy in it."""
    place = f"#{pointer}" + (f", keyword {keyword!r}" if keyword else "")
    return ConfigurationError(f"the JSON schema cannot be used: {fault} (at {place})", hint=remedy)


def modernized(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same schema in the words of draft 2020-12; a new object, the values in it shared.

    Rewritten are `nullable` (OpenAPI), lists in `items` with `additionalItems`, `dependencies`, boolean `exclusiveMinimum`
    and `exclusiveMaximum` (draft 4), `$recursiveRef`, and siblings of `$ref` where `$schema` names a draft in which they
    have no effect. `$schema` itself is left out.

    Raises:
        ConfigurationError: It is not a schema: the message has the JSON pointer and the keyword.
    """
    if not isinstance(schema, Mapping):
        raise refusal("", "", f"it is a {type(schema).__name__}, not an object", "Give the schema as a dict.")
    is_old = bool(_OLD_DIALECT.match(str(schema.get("$schema", ""))))
    result = _walk(schema, "", is_old=is_old, depth=0)
    if isinstance(result, bool):
        raise AssertionError("a mapping became a boolean schema")  # pragma: no cover
    return result


def _walk(node: Any, pointer: str, *, is_old: bool, depth: int) -> Schema:
    if isinstance(node, bool):
        return node
    if not isinstance(node, Mapping):
        raise refusal(
            pointer, "", f"a schema is an object or a boolean, not {node!r:.60}", "Correct it or leave it out."
        )
    if depth > _DEEPEST:
        raise refusal(
            pointer, "", f"it is nested more than {_DEEPEST} levels deep", "Use $defs and $ref for recursion."
        )
    if is_old and "$ref" in node:
        node = {key: value for key, value in node.items() if key == "$ref" or key in _STAYS_OUTSIDE}
    result: dict[str, Any] = {}
    for key, value in node.items():
        if not isinstance(key, str):
            raise refusal(pointer, "", f"the keyword {key!r} is not a string", "Write keywords as strings.")
        if key in _BOUND_KEYWORDS and isinstance(value, float) and not math.isfinite(value):
            if value != _NO_BOUNDS.get(key):
                raise refusal(pointer, key, f"{value!r} is no bound", "Use a finite number, or leave it out.")
            continue
        result[key] = _walked_keyword(key, value, pointer, is_old=is_old, depth=depth + 1)
    return _without_old_words(result)


def _walked_keyword(key: str, value: Any, pointer: str, *, is_old: bool, depth: int) -> Any:
    here = child_pointer(pointer, key)
    if key in _SCHEMA_KEYWORDS or (key == "items" and not isinstance(value, list | tuple)):
        return _walk(value, here, is_old=is_old, depth=depth)
    if key in _SCHEMA_LIST_KEYWORDS or key == "items":
        if not isinstance(value, list | tuple) or (not value and key not in {"items", "prefixItems"}):
            raise refusal(pointer, key, "it must be a list of schemas, not empty", f"Correct {key!r}.")
        return [_walk(each, child_pointer(here, n), is_old=is_old, depth=depth) for n, each in enumerate(value)]
    if key in MAP_KEYWORDS:
        if not isinstance(value, Mapping):
            raise refusal(pointer, key, "it must map names to schemas", f"Correct {key!r}.")
        return {
            name: _walk(each, child_pointer(here, name), is_old=is_old, depth=depth) for name, each in value.items()
        }
    if key == "dependencies" and isinstance(value, Mapping):
        return {
            name: each if isinstance(each, list) else _walk(each, child_pointer(here, name), is_old=is_old, depth=depth)
            for name, each in value.items()
        }
    _check_value(key, value, pointer)
    if key == "$ref":
        return _OLD_ITEM.sub(r"/prefixItems/\1", value)
    return list(value) if isinstance(value, tuple) else value


def _check_value(key: str, value: Any, pointer: str) -> None:
    for keywords, is_right, fault, remedy in _FORMS:
        if key in keywords and not is_right(value):
            raise refusal(pointer, key, f"{value!r:.60} {fault}", remedy)
    if isinstance(value, bool) and key in _BOUND_KEYWORDS and not key.startswith("exclusive"):
        raise refusal(pointer, key, f"{value!r} is not a number", "Use a number.")
    if key == "multipleOf" and value <= 0:
        raise refusal(pointer, key, f"{value!r} is not above 0", "Use a number above 0.")
    if key == "pattern":
        _check_pattern(value, pointer)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and value == int(value)


def _are_types(value: Any) -> bool:
    names = value if isinstance(value, list | tuple) else [value]
    return bool(names) and all(isinstance(name, str) and name in TYPE_NAMES for name in names)


_FORMS: tuple[tuple[frozenset[str], Callable[[Any], bool], str, str], ...] = (
    (frozenset({"type"}), _are_types, "is not a type", f"Use one or more of {', '.join(TYPE_NAMES)}."),
    (_COUNT_KEYWORDS, _is_count, "is not a count", "Use a whole number, 0 or more."),
    (_BOUND_KEYWORDS, lambda value: isinstance(value, int | float), "is not a number", "Use a number."),
    (
        frozenset({"enum"}),
        lambda value: isinstance(value, list | tuple) and len(value) > 0,
        "is not a list of values with at least one in it",
        "Name at least one value.",
    ),
    (
        frozenset({"required"}),
        lambda value: isinstance(value, list | tuple) and all(isinstance(name, str) for name in value),
        "is not a list of names",
        "List the names of required properties; `required: true` of draft 3 goes to the object around it.",
    ),
    (_STRING_KEYWORDS, lambda value: isinstance(value, str), "is not a string", "Use a string."),
)


def _check_pattern(pattern: str, pointer: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise refusal(
            pointer, "pattern", f"{pattern!r:.80} is not a regular expression: {error}", "Correct the pattern."
        ) from error


def _without_old_words(schema: dict[str, Any]) -> Schema:
    schema.pop("$schema", None)
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if "additionalItems" in schema:
            schema["items"] = schema["additionalItems"]
    schema.pop("additionalItems", None)
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(exclusive), bool) and schema.pop(exclusive) and bound in schema:
            schema[exclusive] = schema.pop(bound)
    for name, each in dict(schema.pop("dependencies", None) or {}).items():
        keyword = "dependentRequired" if isinstance(each, list) else "dependentSchemas"
        schema.setdefault(keyword, {})[name] = each
    if "$recursiveRef" in schema:
        schema.setdefault("$ref", schema.pop("$recursiveRef"))
    return _with_null(schema) if schema.pop("nullable", None) is True else schema


def _with_null(schema: dict[str, Any]) -> dict[str, Any]:
    types = schema.get("type")
    if isinstance(types, str) and not {"enum", "const", "anyOf", "oneOf", "allOf", "$ref", "not"} & schema.keys():
        return schema if types == "null" else {**schema, "type": [types, "null"]}
    outside = {key: value for key, value in schema.items() if key in _STAYS_OUTSIDE}
    inside = {key: value for key, value in schema.items() if key not in _STAYS_OUTSIDE}
    return {**outside, "anyOf": [inside, {"type": "null"}]}
