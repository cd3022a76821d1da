"""Checks a whole answer against what was asked for: the caller's own schemas, not those that the server was given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from localllama.errors import LengthLimitError, StructuredOutputError
from localllama.types import ChatResult, ToolCall, ToolSpec, Usage

from .decoding import DecodingPlan
from .rewrite import call_text
from .schemas import ENDLESS_NUMBER, CheckResult, Violation, check_instance, repair_message, strip_code_fence

__all__ = ["Fault", "find_fault", "sum_of_usages"]

_ENDLESS_DIGITS = re.compile(r"(?<![0-9.eE+\-\"])[0-9.eE+-]{40,}\Z")
_LONGEST_TAIL = 2_000  # characters


@dataclass(frozen=True)
class Fault:
    """What is wrong with an answer.

    Attributes:
        result: The answer.
        raw_text: What the model wrote, as one text.
        check: What the check found.
        subject: What was checked: "the answer", or the call of a tool.
        spent: The tokens of the attempts before this one.
    """

    result: ChatResult
    raw_text: str
    check: CheckResult
    subject: str
    spent: Usage | None = None

    @property
    def is_cut(self) -> bool:
        """Whether the answer only ended too soon."""
        return self.result.finish_reason == "length"

    @property
    def has_endless_number(self) -> bool:
        """Whether a number is what is wrong: larger than any double, or its digits went on until they were cut."""
        if self.is_cut:
            return bool(_ENDLESS_DIGITS.search(self.raw_text[-_LONGEST_TAIL:]))
        return any(violation.keyword == ENDLESS_NUMBER for violation in self.check.violations)

    def repair_request(self) -> str:
        """What the model is told for its next attempt."""
        return repair_message(self.check, self.raw_text)

    def error(self, *, max_tokens: int | None, n_ctx: int | None) -> StructuredOutputError:
        """The error for the caller.

        Args:
            max_tokens: The limit of the call.
            n_ctx: The context window; None if it is not known.
        """
        if self.is_cut:
            return self._length_error(max_tokens if max_tokens != -1 else None, n_ctx or None)
        violations = tuple(map(str, self.check.violations))
        shown = "; ".join(violations[:3]) + (f"; and {len(violations) - 3} more" if len(violations) > 3 else "")  # noqa: PLR2004
        return StructuredOutputError(
            f"{self.subject} does not fit the schema: {shown}",
            hint="error.raw_text is what the model wrote. A simpler schema, a description of its fields in the prompt or a "
            "larger model helps.",
            result=self._whole_result(),
            raw_text=self.raw_text,
            violations=violations,
        )

    def _length_error(self, max_tokens: int | None, n_ctx: int | None) -> LengthLimitError:
        # The limits are those of one attempt, so the tokens beside them are too; what all took is in the result.
        usage, result = self.result.usage, self.result
        is_spent = bool(result.reasoning) and not result.text and not result.tool_calls
        used = f"{usage.completion_tokens} tokens" if usage else "some tokens"
        limits = ", ".join(
            f"{name}={value}" for name, value in (("max_tokens", max_tokens), ("n_ctx", n_ctx)) if value is not None
        )
        prompt = f", {usage.prompt_tokens} of the window taken by the prompt" if usage else ""
        what = "the thinking took them all" if is_spent else "its JSON is not whole"
        error = LengthLimitError(
            f"{self.subject} was cut after {used} ({limits or 'no limit known'}{prompt}): {what}",
            hint="Set reasoning='off' or a smaller reasoning_budget, or raise max_tokens."
            if is_spent
            else "Raise max_tokens (and n_ctx, if the window is full), or bound the strings and lists of the schema.",
            result=self._whole_result(),
            raw_text=self.raw_text,
        )
        error.max_tokens, error.n_ctx, error.is_spent_on_thinking = max_tokens, n_ctx, is_spent
        return error

    def _whole_result(self) -> ChatResult:
        return replace(self.result, usage=sum_of_usages(self.spent, self.result.usage))


def find_fault(result: ChatResult, plan: DecodingPlan) -> Fault | None:
    """What is wrong with the whole answer, or None.

    A call is checked against its tool's schema, a text against the schema of the response format. An answer in words is
    right wherever words were allowed, cut or not.
    """
    envelope = plan.envelope
    if envelope is None:
        return None if plan.schema is None else _text_fault(result, plan.schema)
    if result.tool_calls:
        return _call_fault(result, plan.tools)
    if envelope.has_answer:
        return None
    if plan.schema is not None:
        return _text_fault(result, plan.schema)
    missing = CheckResult(None, (Violation("", "type", "it calls no tool, but a call is wanted"),))
    return Fault(result, result.text, missing, "the call of a tool")


def _text_fault(result: ChatResult, schema: Mapping[str, Any]) -> Fault | None:
    text = strip_code_fence(result.text)
    check = check_instance(schema, text, is_text=True)
    return None if check.is_valid else Fault(result, result.text, check, "the answer")


def _call_fault(result: ChatResult, tools: Sequence[ToolSpec]) -> Fault | None:
    parameters = {tool.name: tool.parameters for tool in tools}
    for call in result.tool_calls:
        check = check_instance(parameters.get(call.name, {"not": {}}), call.arguments or "", is_text=True)
        if not check.is_valid:
            raw_text = "\n".join(map(_raw_text, result.tool_calls))
            return Fault(result, raw_text, check, f"the call of {call.name!r}")
    return None


def _raw_text(call: ToolCall) -> str:
    try:
        json.loads(call.arguments)
    except (ValueError, RecursionError):
        return f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}'
    return call_text(call)


def sum_of_usages(first: Usage | None, second: Usage | None) -> Usage | None:
    """What two generations took together; cached tokens of both count as such."""
    if first is None or second is None:
        return first or second
    return Usage(
        first.prompt_tokens + second.prompt_tokens,
        first.completion_tokens + second.completion_tokens,
        first.total_tokens + second.total_tokens,
        first.cached_tokens + second.cached_tokens,
        is_estimated=first.is_estimated or second.is_estimated,
    )
