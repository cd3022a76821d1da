"""Checks an answer against the schema that the user gave, and says in words what is wrong with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .acceptance import is_multiple
from .form import child_pointer, modernized, refusal
from .formats import CHECKED_FORMATS, is_format

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

__all__ = [
    "ENDLESS_NUMBER",
    "CheckResult",
    "Violation",
    "check_instance",
    "parse_json",
    "repair_message",
    "strip_code_fence",
]

ENDLESS_NUMBER = "number"
"""The keyword of a violation by a number that no double holds; no keyword of JSON Schema has this name."""

_MOST_VIOLATIONS = 20
_LONGEST_QUOTE = 200  # characters of a value or a rule that are quoted
_LONGEST_NUMBER = 30
_LONGEST_ANSWER = 4_000  # characters of the answer that the repair message repeats


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong.

    Attributes:
        path: JSON pointer into the answer; "" is the whole.
        keyword: The keyword of the schema that it breaks, "json" for text that is not JSON, or `ENDLESS_NUMBER`.
        message: What is wrong and what is wanted, in a sentence that a model can be told.
    """

    path: str
    keyword: str
    message: str

    def __str__(self) -> str:
        return f"{self.path or 'the whole answer'}: {self.message}"


@dataclass(frozen=True)
class CheckResult:
    """What came out of a check.

    Attributes:
        value: The parsed answer; None also where the text could not be parsed.
        violations: All that is wrong, at most 20; empty for a valid answer.
    """

    value: Any
    violations: tuple[Violation, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violations


def strip_code_fence(text: str) -> str:
    """The text inside of one Markdown code fence around everything; any other text as it is, without blanks around it."""
    found = re.fullmatch(r"\s*```[\w+-]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```\s*", text, re.DOTALL)
    return (found[1] if found else text).strip()


def parse_json(text: str) -> Any:
    """Parse strictly: one JSON value and nothing after it, no `NaN` or `Infinity`, and no number that would be read as one.

    Of two members with one name the last one counts, as with every reader that will see the answer later.

    Raises:
        ValueError: It is not JSON; the message says where.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite_float, parse_int=_finite_int)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class _EndlessNumberError(ValueError):
    """`1e4807` and an integer of 400 digits are JSON, but most readers make an infinity of them, or an error."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _finite_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _EndlessNumberError(f"the number {_shortened(text)} is too large; write one below 1e300")
    return value


def _finite_int(text: str) -> int:
    _finite_float(text)
    return int(text)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_NUMBER else f"{text[:_LONGEST_NUMBER]}... ({len(text)} characters)"


def check_instance(schema: Mapping[str, Any], text_or_value: Any, *, is_text: bool | None = None) -> CheckResult:
    """Check an answer against a schema.

    Args:
        schema: The user's own, any draft (see `prepare_schema`).
        text_or_value: JSON text, or a parsed value.
        is_text: Whether it is text; by default every `str` is. Say False for a string that is the value itself.

    Raises:
        ConfigurationError: The schema is not one.
    """
    validator = _validator(_key_of(schema), _Uncompared(schema))
    value = text_or_value
    if isinstance(text_or_value, str) and is_text is not False:
        try:
            value = parse_json(text_or_value)
        except _EndlessNumberError as error:
            return CheckResult(None, (Violation("", ENDLESS_NUMBER, str(error)),))
        except ValueError as error:
            return CheckResult(None, (_not_json(text_or_value, error),))
    elif not _is_finite(value):
        return CheckResult(
            value, (Violation("", ENDLESS_NUMBER, "it holds a number that is infinite or not a number"),)
        )
    violations: list[Violation] = []
    try:
        errors = sorted(_leaves(validator.iter_errors(value)), key=lambda each: list(map(str, each.absolute_path)))
    except RecursionError:
        fault = "checking an answer goes round for ever, or the answer is nested too deeply"
        raise refusal("", "$ref", fault, "Let recursion pass through a property or item.") from None
    for found in errors:
        violation = _violation(found)
        if violation not in violations:
            violations.append(violation)
        if len(violations) == _MOST_VIOLATIONS:
            break
    return CheckResult(value, tuple(violations))


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _not_json(text: str, error: ValueError) -> Violation:
    if not text.strip():
        return Violation("", "json", "it is empty; a JSON value is wanted")
    place = ""
    if isinstance(error, json.JSONDecodeError):
        nearby = text[max(0, error.pos - 20) : error.pos + 20]
        place = f" at line {error.lineno}, column {error.colno}, near {nearby!r}"
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return Violation("", "json", f"it is not valid JSON: {reason}{place}")


# -- jsonschema -------------------------------------------------------------------------------------------------------


class _Uncompared:
    """Carries a schema past the memo, whose key is its text."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Uncompared)

    def __hash__(self) -> int:
        return 0


def _key_of(schema: Mapping[str, Any]) -> str:
    try:
        return json.dumps(schema)
    except (TypeError, ValueError):
        return f"{id(schema)} {schema!r}"


@lru_cache(maxsize=64)
def _validator(_key: str, carrier: _Uncompared) -> Validator:
    import jsonschema

    formats = jsonschema.FormatChecker(formats=())
    for name in CHECKED_FORMATS:
        formats.checks(name)(_format_check(name))
    kind = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
        jsonschema.Draft202012Validator, {"multipleOf": _multiple_of}
    )
    validator: Validator = kind(modernized(carrier.schema), format_checker=formats)
    return validator


def _format_check(name: str) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or is_format(value, name)


def _multiple_of(validator: Validator, step: float, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    import jsonschema

    # Their own test divides in binary and finds that 0.07 is no multiple of 0.01.
    if validator.is_type(instance, "number") and not is_multiple(instance, step):
        yield jsonschema.ValidationError(f"{instance!r} is not a multiple of {step!r}")


def _leaves(errors: Iterator[ValidationError]) -> Iterator[ValidationError]:
    """Errors of the member of a union that fits best, rather than "is not valid under any of the given schemas"."""
    for error in errors:
        if error.validator in {"anyOf", "oneOf"} and error.context:
            members: dict[Any, list[ValidationError]] = {}
            for each in error.context:
                members.setdefault(each.schema_path[0], []).append(each)
            best = min(members.values(), key=_distance)
            if len(members) == 1 or not _is_type_error(best):
                yield from _leaves(iter(best))
                continue
        yield error


def _distance(errors: list[ValidationError]) -> tuple[bool, int, int]:
    is_tagged_apart = any(each.validator in {"const", "enum"} and len(each.relative_path) == 1 for each in errors)
    deepest = max(len(each.relative_path) for each in errors)
    return (_is_type_error(errors) or is_tagged_apart, len(errors), -deepest)


def _is_type_error(errors: list[ValidationError]) -> bool:
    return any(each.validator == "type" and not each.relative_path for each in errors)


def _quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."


_SENTENCES: dict[str, str] = {
    "additionalProperties": "{message}; leave out the names that are not wanted",
    "anyOf": "{instance} fits none of the allowed forms: {rule}",
    "const": "it is {instance}, but it must be exactly {rule}",
    "contains": "no item, or not the right number of items, is of the wanted kind: {rule}",
    "enum": "it is {instance}, but it must be one of {rule}",
    "exclusiveMaximum": "{instance} is too large; it must be less than {rule}",
    "exclusiveMinimum": "{instance} is too small; it must be greater than {rule}",
    "format": "{instance} is not a valid {rule}",
    "maxItems": "it has too many items; at most {rule} are allowed",
    "maxLength": "it is too long; at most {rule} characters are allowed",
    "maxProperties": "it has too many members; at most {rule} are allowed",
    "maximum": "{instance} is too large; it must be at most {rule}",
    "minItems": "it has too few items; at least {rule} are needed",
    "minLength": "it is too short; at least {rule} characters are needed",
    "minProperties": "it has too few members; at least {rule} are needed",
    "minimum": "{instance} is too small; it must be at least {rule}",
    "multipleOf": "{instance} is not a multiple of {rule}",
    "not": "{instance} must not satisfy {rule}",
    "oneOf": "{instance} must fit exactly one of the allowed forms: {rule}",
    "pattern": "{instance} does not match the regular expression {rule}",
    "type": "it is {instance}, but it must be of type {rule}",
    "uniqueItems": "two of its items are equal; each item may occur only once",
}


def _violation(error: ValidationError) -> Violation:
    path = child_pointer("", *error.absolute_path)
    keyword = str(error.validator)
    if keyword == "required":
        names: Any = error.validator_value
        present: Any = error.instance
        missing = [name for name in names if name not in present]
        return Violation(path, keyword, f"required members are missing: {', '.join(map(_quoted, missing))}")
    if "propertyNames" in error.relative_schema_path:
        message = f"the name {_quoted(error.instance)} is not allowed; names must satisfy {_quoted(_names_rule(error))}"
        return Violation(path, "propertyNames", message)
    sentence = _SENTENCES.get(keyword, "{message}")
    message = error.message if len(error.message) <= _LONGEST_QUOTE else f"{error.message[:_LONGEST_QUOTE]}..."
    return Violation(
        path,
        keyword,
        sentence.format(instance=_quoted(error.instance), rule=_quoted(error.validator_value), message=message),
    )


def _names_rule(error: ValidationError) -> Any:
    return {str(error.validator): error.validator_value}


# -- repair -----------------------------------------------------------------------------------------------------------


def repair_message(check: CheckResult, raw_text: str) -> str:
    """What a model is told for its one attempt to repair an answer: the answer, what is wrong with it, what to do.

    Args:
        check: The check that failed.
        raw_text: The answer as it came.

    Raises:
        ValueError: Nothing is wrong.
    """
    if check.is_valid:
        raise ValueError("the answer is valid; there is nothing to repair")
    answer = raw_text if len(raw_text) <= _LONGEST_ANSWER else f"{raw_text[:_LONGEST_ANSWER]}..."
    faults = "\n".join(f"- {violation}" for violation in check.violations)
    return (
        f"Your answer was:\n{answer}\n\n"
        f"It does not have the required form:\n{faults}\n\n"
        "Answer again with the corrected JSON only. Change what is wrong and keep the rest."
    )
