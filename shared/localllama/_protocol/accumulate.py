"""Adds up the deltas of one choice, and makes tool-call fragments regular on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from localllama.errors import MalformedResponseError
from localllama.types import ChatResult, FinishReason, Timings, TokenLogprob, ToolCall, ToolCallDelta, Usage

from .wire import as_object, as_text

__all__ = ["ChoiceAccumulator"]


@dataclass
class _GrowingCall:
    id: str
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ChoiceAccumulator:
    """What one choice of an answer consists of so far.

    Attributes:
        finish_reason: None as long as it is unfinished.
    """

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._calls: dict[int, _GrowingCall] = {}
        self._places: dict[tuple[str, int], int] = {}

    @property
    def has_begun(self) -> bool:
        """Whether text, thinking or a tool call came."""
        return bool(self._text or self._reasoning or self._calls)

    @property
    def has_calls(self) -> bool:
        """Whether a tool call came."""
        return bool(self._calls)

    def add_text(self, text: str) -> str:
        """Add a piece of the answer; returns it."""
        if text:
            self._text.append(text)
        return text

    def add_reasoning(self, text: str) -> str:
        """Add a piece of the thinking; returns it."""
        if text:
            self._reasoning.append(text)
        return text

    def add_logprobs(self, logprobs: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
        """Add the probabilities of tokens; returns them."""
        self._logprobs += logprobs
        return logprobs

    def add_tool_calls(self, fragments: list[Any], make_id: Callable[[], str]) -> tuple[ToolCallDelta, ...]:
        """Add fragments as they came over the wire; returns them as regular deltas.

        The first delta of a call has an id, made once where the server sent none or an empty one. Later ones repeat
        neither id nor name. There is one delta for each call: who adds up chunks goes by the index, and may not look for a
        second one of the same index within a chunk.
        """
        deltas = [self._add_fragment(as_object(item, "delta.tool_calls[]"), make_id) for item in fragments]
        return _one_for_each_call(deltas)

    def add_deltas(self, deltas: tuple[ToolCallDelta, ...]) -> tuple[ToolCallDelta, ...]:
        """Add regular deltas that were read from the text; returns them, one for each call, with indexes of their own."""
        placed = tuple(replace(delta, index=self._place("text", delta.index)) for delta in deltas)
        for delta in placed:
            call = self._calls.get(delta.index)
            if call is None:
                call = self._calls[delta.index] = _GrowingCall(delta.id or "")
            call.name = call.name or delta.name or ""
            if delta.arguments:
                call.arguments.append(delta.arguments)
        return _one_for_each_call(placed)

    def _place(self, origin: str, index: int) -> int:
        """The index of a call in the answer: its own, or the next free one where a call of other origin has it."""
        place = self._places.get((origin, index))
        if place is None:
            place = index if index not in self._calls else max(self._calls) + 1
            self._places[origin, index] = place
        return place

    def _add_fragment(self, obj: dict[str, Any], make_id: Callable[[], str]) -> ToolCallDelta:
        function = as_object(obj.get("function"), "delta.tool_calls[].function")
        sent_id = as_text(obj.get("id"), "delta.tool_calls[].id")
        name = as_text(function.get("name"), "delta.tool_calls[].function.name")
        arguments = _arguments_text(function.get("arguments"))
        index = self._place("wire", self._call_index(obj.get("index"), has_new_id=bool(sent_id)))
        call = self._calls.get(index)
        is_new = call is None
        if call is None:
            call = self._calls[index] = _GrowingCall(sent_id or make_id())
        new_name = name if name and not call.name else None
        call.name = call.name or name
        if arguments:
            call.arguments.append(arguments)
        return ToolCallDelta(index=index, id=call.id if is_new else None, name=new_name, arguments=arguments)

    def _call_index(self, value: Any, *, has_new_id: bool) -> int:
        if value is None:
            # Left out by some servers behind base_url: an id opens a call, anything else continues the last one.
            return len(self._calls) if has_new_id or not self._calls else max(self._calls)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise MalformedResponseError("delta.tool_calls[].index in the server's answer is not a number")
        return value

    def result(
        self,
        usage: Usage | None,
        timings: Timings | None,
        model: str | None,
        completion_id: str | None,
        system_fingerprint: str | None,
    ) -> ChatResult:
        """All of it as one value."""
        return ChatResult(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            tool_calls=tuple(
                ToolCall(call.id, call.name, "".join(call.arguments)) for _, call in sorted(self._calls.items())
            ),
            finish_reason=self.finish_reason,
            usage=usage,
            timings=timings,
            logprobs=tuple(self._logprobs),
            model=model,
            id=completion_id,
            system_fingerprint=system_fingerprint,
        )


def _one_for_each_call(deltas: Iterable[ToolCallDelta]) -> tuple[ToolCallDelta, ...]:
    found: dict[int, ToolCallDelta] = {}
    for delta in deltas:
        known = found.get(delta.index)
        found[delta.index] = (
            delta
            if known is None
            else replace(
                known,
                id=known.id or delta.id,
                name=known.name or delta.name,
                arguments=known.arguments + delta.arguments,
            )
        )
    return tuple(found.values())


def _arguments_text(value: Any) -> str:
    # The API says text; some servers send the object itself.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else as_text(value, "function.arguments")
