"""A small value that a JSON Schema allows, for the mock: no model is asked, and equal schemas give equal values. Pure.

It knows what schemas of tools and of structured output are made of. What it cannot satisfy (a pattern, a `not`) is found by
the check of the answer, as it would be found in the answer of a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["minimal_value"]

_DEEPEST = 24
_GIVEN = ("const", "default")
_FORMATS = {
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "date-time": "2000-01-01T00:00:00Z",
    "duration": "P1D",
    "email": "mock@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_KEYWORDS = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


def minimal_value(schema: Any) -> Any:
    """The value: required properties only, the least number of items, the first of each choice.

    Args:
        schema: A JSON Schema; `$ref` into its own `$defs` is followed.
    """
    return _Maker(schema).value(schema, _DEEPEST)


class _Maker:
    def __init__(self, root: Any) -> None:
        self._root = root

    def value(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, Mapping) or depth <= 0:
            return {} if schema is True else None
        schema = {**self._whole(schema, depth), **{name: schema[name] for name in _GIVEN if name in schema}}
        for name in _GIVEN:
            if name in schema:
                return schema[name]
        if schema.get("enum"):
            return schema["enum"][0]
        kind = _type_of(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind in ("integer", "number"):
            return _number(schema, is_integer=kind == "integer")
        return _string(schema) if kind == "string" else {"boolean": False}.get(kind)

    def _whole(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        """The schema with what it refers to, and with the first of its alternatives, put in."""
        merged = {key: value for key, value in schema.items() if key not in ("$ref", "allOf", "anyOf", "oneOf")}
        parts = [self._target(schema["$ref"])] if isinstance(schema.get("$ref"), str) else []
        parts += schema.get("allOf") or []
        for name in ("anyOf", "oneOf"):
            parts += self._shallowest(schema.get(name) or [])
        for part in parts:
            if isinstance(part, Mapping) and depth > 0:
                merged = _merged(merged, self._whole(part, depth - 1))
        return merged

    def _shallowest(self, choices: list[Any]) -> list[Any]:
        # null first: the least of all, and the end of a recursion.
        for choice in choices:
            if isinstance(choice, Mapping) and choice.get("type") == "null":
                return [choice]
        return choices[:1]

    def _target(self, reference: str) -> Any:
        found = self._root
        for part in reference.removeprefix("#").strip("/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if part and not (isinstance(found, Mapping) and name in found):
                return {}
            found = found[name] if part else found
        return found

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        others = schema.get("additionalProperties", {})
        names = list(dict.fromkeys(schema.get("required") or ()))
        for name in properties:
            if len(names) < (schema.get("minProperties") or 0) and name not in names:
                names.append(name)
        return {name: self.value(properties.get(name, others), depth - 1) for name in names}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        first = list(schema.get("prefixItems") or ())
        items = schema.get("items", {})
        length = schema.get("minItems") or 0
        values = [self.value(item, depth - 1) for item in first[: max(length, 0)]]
        while len(values) < length:
            values.append(
                _distinct(self.value(items, depth - 1), len(values), is_unique=bool(schema.get("uniqueItems")))
            )
        return values


def _merged(first: dict[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    result = {**second, **first}
    if "properties" in first and "properties" in second:
        result["properties"] = {**second["properties"], **first["properties"]}
    if "required" in first and "required" in second:
        result["required"] = [*first["required"], *second["required"]]
    return result


def _distinct(value: Any, index: int, *, is_unique: bool) -> Any:
    if not is_unique or index == 0 or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value + index
    return f"{value}{index}" if isinstance(value, str) else value


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = "null" if "null" in kind else (kind[0] if kind else None)
    if isinstance(kind, str):
        return kind
    for name, keywords in _KEYWORDS.items():
        if any(keyword in schema for keyword in keywords):
            return name
    return "object"


def _string(schema: Mapping[str, Any]) -> str:
    known = _FORMATS.get(str(schema.get("format")))
    text = known if known is not None else "mock"
    most = schema.get("maxLength")
    if isinstance(most, int) and len(text) > most:
        text = text[:most]
    return text + "k" * ((schema.get("minLength") or 0) - len(text))


def _number(schema: Mapping[str, Any], *, is_integer: bool) -> float:
    step = schema.get("multipleOf")
    least, most = schema.get("minimum"), schema.get("maximum")
    unit: float = step or (1 if is_integer else 0.5)
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    lowest: float | None = max((float(n) for n in (least, above) if n is not None and _is_number(n)), default=None)
    highest: float | None = min((float(n) for n in (most, below) if n is not None and _is_number(n)), default=None)
    value: float = 0
    if lowest is not None and lowest >= 0:
        value = math.ceil(lowest / unit) * unit
        value += unit if value <= lowest and lowest == above else 0
    elif highest is not None and highest <= 0:
        value = math.floor(highest / unit) * unit
        value -= unit if value >= highest and highest == below else 0
    if not is_integer and highest is not None and lowest is not None and not lowest <= value <= highest:
        return (lowest + highest) / 2
    return int(value) if float(value).is_integer() else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
