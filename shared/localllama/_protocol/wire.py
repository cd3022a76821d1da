"""Reads the pieces of llama-server's JSON. Every odd shape is a `MalformedResponseError` that names the field.

Values are not quoted in errors: they may hold text of the user's.
"""

from __future__ import annotations

import math
from typing import Any

from localllama.errors import MalformedResponseError
from localllama.types import PromptProgress, Timings, TokenLogprob, Usage

__all__ = [
    "as_list",
    "as_object",
    "as_text",
    "parse_logprobs",
    "parse_native_probabilities",
    "parse_progress",
    "parse_timings",
    "parse_usage",
    "usage_from_timings",
]


def as_object(value: Any, field: str) -> dict[str, Any]:
    """`value` as an object; null is an empty one."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise _wrong_type(field, value, "an object")


def as_list(value: Any, field: str) -> list[Any]:
    """`value` as a list; null is an empty one."""
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise _wrong_type(field, value, "a list")


def as_text(value: Any, field: str) -> str:
    """`value` as text; null is ""."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise _wrong_type(field, value, "a string")


def parse_usage(value: Any) -> Usage:
    """Read `usage` of the OpenAI API."""
    obj = as_object(value, "usage")
    prompt = _count(obj.get("prompt_tokens"), "usage.prompt_tokens")
    completion = _count(obj.get("completion_tokens"), "usage.completion_tokens")
    details = as_object(obj.get("prompt_tokens_details"), "usage.prompt_tokens_details")
    total = obj.get("total_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion if total is None else _count(total, "usage.total_tokens"),
        cached_tokens=_count(details.get("cached_tokens"), "usage.prompt_tokens_details.cached_tokens"),
        is_estimated=obj.get("is_estimated") is True,
    )


def usage_from_timings(timings: Timings | None) -> Usage | None:
    """The usage that llama.cpp's own measurement shows, or None without one."""
    if timings is None:
        return None
    prompt = timings.cache_n + timings.prompt_n
    return Usage(prompt, timings.predicted_n, prompt + timings.predicted_n, cached_tokens=timings.cache_n)


def parse_timings(value: Any) -> Timings:
    """Read `timings`."""
    obj = as_object(value, "timings")

    def count(name: str) -> int:
        return _count(obj.get(name), f"timings.{name}")

    def number(name: str) -> float:
        return _number(obj.get(name), f"timings.{name}")

    return Timings(
        cache_n=count("cache_n"),
        prompt_n=count("prompt_n"),
        prompt_ms=number("prompt_ms"),
        prompt_per_second=number("prompt_per_second"),
        predicted_n=count("predicted_n"),
        predicted_ms=number("predicted_ms"),
        predicted_per_second=number("predicted_per_second"),
        draft_n=count("draft_n") if "draft_n" in obj else None,
        draft_n_accepted=count("draft_n_accepted") if "draft_n_accepted" in obj else None,
    )


def parse_progress(value: Any) -> PromptProgress:
    """Read `prompt_progress`."""
    obj = as_object(value, "prompt_progress")
    return PromptProgress(
        total=_count(obj.get("total"), "prompt_progress.total"),
        cache=_count(obj.get("cache"), "prompt_progress.cache"),
        processed=_count(obj.get("processed"), "prompt_progress.processed"),
        time_ms=_number(obj.get("time_ms"), "prompt_progress.time_ms"),
    )


def parse_logprobs(value: Any) -> tuple[TokenLogprob, ...]:
    """Read `logprobs` of a choice."""
    return _token_logprobs(as_object(value, "logprobs").get("content"), "logprobs.content")


def parse_native_probabilities(value: Any) -> tuple[TokenLogprob, ...]:
    """Read `completion_probabilities` of the native endpoint; its entries are those of `logprobs.content`."""
    return _token_logprobs(value, "completion_probabilities")


def _token_logprobs(value: Any, field: str) -> tuple[TokenLogprob, ...]:
    return tuple(_token_logprob(item, field) for item in as_list(value, field)) if value else ()


def _token_logprob(value: Any, field: str) -> TokenLogprob:
    obj = as_object(value, field)
    token_bytes = obj.get("bytes")
    return TokenLogprob(
        token=as_text(obj.get("token"), f"{field}.token"),
        # A probability of 0 has no finite logarithm, and JSON has no infinity: it comes as null.
        logprob=-math.inf if obj.get("logprob") is None else _number(obj["logprob"], f"{field}.logprob"),
        token_bytes=None
        if token_bytes is None
        else tuple(_count(b, f"{field}.bytes") for b in as_list(token_bytes, field)),
        top=_token_logprobs(obj.get("top_logprobs"), f"{field}.top_logprobs"),
    )


def _count(value: Any, field: str) -> int:
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise _wrong_type(field, value, "a whole number")


def _number(value: Any, field: str) -> float:
    if value is None:
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise _wrong_type(field, value, "a number")


def _wrong_type(field: str, value: Any, wanted: str) -> MalformedResponseError:
    return MalformedResponseError(f"{field} in the server's answer is of type {type(value).__name__}, not {wanted}")
