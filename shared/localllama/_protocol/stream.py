"""Turns the bytes of an event stream into `ChatChunk`s and adds them up: no I/O, any cut of the bytes, any odd JSON.

A parser is fed until `is_complete` or the end of the bytes, and then closed:

    parser = ChatStreamParser()
    for data in network:
        yield from parser.feed(data)
        if parser.is_complete:
            break
    yield from parser.close()

An error that is found behind good events is raised by the next `feed` or by `close`, so that the chunks before it are never
lost. `result()` holds what came so far, at any time.
"""

from __future__ import annotations

import json
import random
import string
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from localllama.errors import LocalLlamaError, LocalLlamaWarning, MalformedResponseError, StreamInterruptedError
from localllama.types import ChatChunk, ChatResult, FinishReason, Timings, ToolCallDelta, Usage

from .accumulate import ChoiceAccumulator
from .failures import error_from_object
from .sse import DEFAULT_EVENT_LIMIT_BYTES, ServerSentEvent, SSEDecoder
from .wire import (
    as_list,
    as_object,
    as_text,
    parse_logprobs,
    parse_native_probabilities,
    parse_progress,
    parse_timings,
    parse_usage,
    usage_from_timings,
)

__all__ = ["ChatStreamParser", "CompletionStreamParser", "StreamParser", "TextReader", "make_tool_call_id"]

_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
_ID_LENGTH = 9
_ID_ALPHABET = string.ascii_letters + string.digits
_random = random.SystemRandom()


def make_tool_call_id() -> str:
    """A new id for a tool call that came without one.

    Nine letters and digits, because the templates of the Mistral family refuse a history with any other form.
    """
    return "".join(_random.choices(_ID_ALPHABET, k=_ID_LENGTH))


class StreamParser(ABC):
    """What both stream formats share: events, the end, errors, sums.

    Args:
        new_reader: Makes what reads the text of each choice, where it holds more than the answer itself.
        limit_bytes: Most bytes of one event.
    """

    def __init__(
        self, *, new_reader: Callable[[], TextReader] | None = None, limit_bytes: int = DEFAULT_EVENT_LIMIT_BYTES
    ) -> None:
        self._new_reader = new_reader
        self._readers: dict[int, TextReader] = {}
        self._decoder = SSEDecoder(limit_bytes=limit_bytes)
        self._choices: dict[int, ChoiceAccumulator] = {}
        self._usage: Usage | None = None
        self._timings: Timings | None = None
        self._model: str | None = None
        self._id: str | None = None
        self._fingerprint: str | None = None
        self._is_done = False  # the server's own end mark came
        self._is_closed = False
        self._failure: LocalLlamaError | None = None

    @property
    def has_begun(self) -> bool:
        """Whether text, thinking or a tool call has been given out: from here on the call must not be repeated."""
        return any(choice.has_begun for choice in self._choices.values())

    @property
    def is_complete(self) -> bool:
        """Whether no further byte is of interest: the end mark or an error came."""
        return self._is_done or self._failure is not None

    def feed(self, data: bytes) -> list[ChatChunk]:
        """Take the next bytes; return the chunks that they complete.

        Raises:
            APIStatusError: An error event, found by an earlier call or as the first thing in these bytes.
            MalformedResponseError: What came is not what llama-server sends.
        """
        self._raise_failure()
        chunks: list[ChatChunk] = []
        try:
            for event in self._decoder.feed(data):
                if self._is_done:
                    break
                chunks += self._take_event(event)
        except LocalLlamaError as error:
            self._failure = error
        if not chunks:
            self._raise_failure()
        return chunks

    def close(self) -> list[ChatChunk]:
        """Say that the bytes have ended; return the last chunk, the one with the usage, where it has not come yet.

        An end behind the finish reason but before the end mark is a complete answer.

        Raises:
            StreamInterruptedError: The end came too early.
            APIStatusError: An error event that came behind chunks.
            MalformedResponseError: The same for bytes that make no sense.
        """
        self._raise_failure()
        self._decoder.close()
        if self._is_closed:
            return []
        if not self._is_done and not self._is_finished():
            raise self.interrupted()
        self._is_closed = True
        return self._last_chunks()

    def interrupted(self, reason: str = "the stream ended before its end mark") -> StreamInterruptedError:
        """The error for a stream that broke off here, with what came so far."""
        result = self.result()
        return StreamInterruptedError(
            f"{reason}, after {len(result.text)} characters of text",
            hint="Use error.partial, or ask again.",
            partial=result,
        )

    def result(self) -> ChatResult:
        """All that came so far, of the first choice; `finish_reason` is None as long as it is unfinished."""
        return self.results()[0]

    def results(self) -> tuple[ChatResult, ...]:
        """All that came so far, for each choice (`n` > 1); at least one. The usage is that of all together."""
        choices = [self._choices[index] for index in sorted(self._choices)] or [ChoiceAccumulator()]
        return tuple(
            choice.result(self._usage, self._timings, self._model, self._id, self._fingerprint) for choice in choices
        )

    def go_on_from(self, text: str) -> None:
        """Put text before all that will come: the answer began in another stream, and its reader has given this out."""
        self._choice(0).add_text(text)

    def give_up(self) -> ChatResult:
        """All that came so far, with what the reader of the first choice held back until more would decide on it."""
        if self._readers.get(0) is not None:
            text, calls = self._read(0, "", is_last=True)
            self._choice(0).add_text(text)
            self._choice(0).add_deltas(calls)
        return self.result()

    @abstractmethod
    def _take_event(self, event: ServerSentEvent) -> list[ChatChunk]: ...

    @abstractmethod
    def _is_finished(self) -> bool: ...

    def _last_chunks(self) -> list[ChatChunk]:
        if self._usage is None:
            self._usage = usage_from_timings(self._timings)
        if self._usage is None and self._timings is None:
            return []
        return [self._chunk(usage=self._usage, timings=self._timings)]

    @property
    def readers(self) -> tuple[TextReader, ...]:
        """What has read the texts so far."""
        return tuple(self._readers.values())

    def _read(self, index: int, text: str, *, is_last: bool) -> tuple[str, tuple[ToolCallDelta, ...]]:
        if self._new_reader is None:
            return text, ()
        reader = self._readers.get(index)
        if reader is None:
            reader = self._readers[index] = self._new_reader()
        return reader.feed(text, is_last=is_last)

    def _choice(self, index: int) -> ChoiceAccumulator:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = ChoiceAccumulator()
        return choice

    def _chunk(self, **fields: Any) -> ChatChunk:
        return ChatChunk(model=self._model, id=self._id, system_fingerprint=self._fingerprint, **fields)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _note_names(self, obj: dict[str, Any]) -> None:
        self._model = as_text(obj.get("model"), "model") or self._model
        self._id = as_text(obj.get("id"), "id") or self._id
        self._fingerprint = as_text(obj.get("system_fingerprint"), "system_fingerprint") or self._fingerprint
        if "localllama_warning" in obj:  # our own stand-in for a server has no other way to say it
            warnings.warn(as_text(obj["localllama_warning"], "warning"), LocalLlamaWarning, stacklevel=2)


class TextReader(Protocol):
    """Reads the text of a choice that holds more than the answer: an envelope, or calls that leaked into it."""

    def feed(self, text: str, *, is_last: bool) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Take the next piece; returns the next piece of the answer and the next fragments of calls."""
        ...


class ChatStreamParser(StreamParser):
    """Parses the stream of `/v1/chat/completions`.

    Usage and timings are held back until the end, so that they come on exactly one chunk, the last, whichever chunk the
    server put them on. Where a build sends no usage, it is made from `timings`, which are llama.cpp's own counts.

    Args:
        make_id: Makes the id of a tool call that came without one.
        new_reader: Makes what reads the text of each choice, where it is an envelope and not the answer itself.
        limit_bytes: Most bytes of one event.
    """

    def __init__(
        self,
        *,
        make_id: Callable[[], str] = make_tool_call_id,
        new_reader: Callable[[], TextReader] | None = None,
        limit_bytes: int = DEFAULT_EVENT_LIMIT_BYTES,
    ) -> None:
        super().__init__(new_reader=new_reader, limit_bytes=limit_bytes)
        self._make_id = make_id

    def _take_event(self, event: ServerSentEvent) -> list[ChatChunk]:
        if event.data.strip() == "[DONE]":
            self._is_done = True
            return []
        obj = _event_object(event)
        self._note_names(obj)
        if obj.get("usage") is not None:
            self._usage = parse_usage(obj["usage"])
        if obj.get("timings") is not None:
            self._timings = parse_timings(obj["timings"])
        chunks: list[ChatChunk] = []
        if obj.get("prompt_progress") is not None:
            chunks.append(self._chunk(progress=parse_progress(obj["prompt_progress"])))
        for choice in as_list(obj.get("choices"), "choices"):
            chunk = self._take_choice(as_object(choice, "choices[]"))
            if chunk is not None:
                chunks.append(chunk)
        return chunks

    def _take_choice(self, obj: dict[str, Any]) -> ChatChunk | None:
        index = obj.get("index", 0)
        if not isinstance(index, int) or index < 0:
            raise MalformedResponseError("choices[].index of an event is not a number")
        choice = self._choice(index)
        delta = as_object(obj.get("delta"), "delta")
        reasoning = choice.add_reasoning(as_text(delta.get("reasoning_content"), "delta.reasoning_content"))
        calls = choice.add_tool_calls(as_list(delta.get("tool_calls"), "delta.tool_calls"), self._make_id)
        logprobs = choice.add_logprobs(parse_logprobs(obj.get("logprobs")))
        finish = _finish_reason(obj.get("finish_reason"))
        text, read_calls = self._read(index, as_text(delta.get("content"), "delta.content"), is_last=finish is not None)
        choice.add_text(text)
        calls += choice.add_deltas(read_calls)
        if finish == "stop" and choice.has_calls:
            finish = "tool_calls"
        if finish is not None:
            choice.finish_reason = finish
        if not (text or reasoning or calls or logprobs or finish):
            return None  # the role, or an empty delta
        return self._chunk(
            text=text, reasoning=reasoning, tool_calls=calls, index=index, finish_reason=finish, logprobs=logprobs
        )

    def _is_finished(self) -> bool:
        return bool(self._choices) and all(choice.finish_reason for choice in self._choices.values())

    def _last_chunks(self) -> list[ChatChunk]:
        unfinished = [index for index, choice in self._choices.items() if choice.finish_reason is None]
        chunks = []
        for index in unfinished:
            # Only another server behind base_url ends with [DONE] and gives no reason.
            choice = self._choices[index]
            text, calls = self._read(index, "", is_last=True)
            choice.add_text(text)
            calls = choice.add_deltas(calls)
            choice.finish_reason = "tool_calls" if self._new_reader is not None and choice.has_calls else "stop"
            chunks.append(self._chunk(index=index, text=text, tool_calls=calls, finish_reason=choice.finish_reason))
        return chunks + super()._last_chunks()


class CompletionStreamParser(StreamParser):
    """Parses the stream of the native `/completion`. It has no end mark: the event with `"stop": true` is the last."""

    def _take_event(self, event: ServerSentEvent) -> list[ChatChunk]:
        if event.data.strip() == "[DONE]":
            self._is_done = True
            return []
        obj = _event_object(event)
        self._note_names(obj)
        if obj.get("timings") is not None:
            self._timings = parse_timings(obj["timings"])
        if obj.get("prompt_progress") is not None:
            return [self._chunk(progress=parse_progress(obj["prompt_progress"]))]
        choice = self._choice(0)
        is_last = obj.get("stop") is True
        text, read_calls = self._read(0, as_text(obj.get("content"), "content"), is_last=is_last)
        choice.add_text(text)
        calls = choice.add_deltas(read_calls)
        logprobs = choice.add_logprobs(parse_native_probabilities(obj.get("completion_probabilities")))
        finish: FinishReason | None = None
        if is_last:
            finish = _native_finish_reason(obj)
            finish = choice.finish_reason = "tool_calls" if finish == "stop" and choice.has_calls else finish
            self._usage = parse_usage(obj["usage"]) if "usage" in obj else _native_usage(obj, self._timings)
            self._is_done = True
        if not (text or calls or logprobs or finish):
            return []
        return [self._chunk(text=text, tool_calls=calls, logprobs=logprobs, finish_reason=finish)]

    def _is_finished(self) -> bool:
        return 0 in self._choices and self._choices[0].finish_reason is not None


def _event_object(event: ServerSentEvent) -> dict[str, Any]:
    try:
        obj = json.loads(event.data)
    except (ValueError, RecursionError) as error:
        raise _not_json(event.data) from error
    obj = as_object(obj, "an event")
    if obj.get("error") is not None:
        raise error_from_object(obj["error"], body=obj)
    if event.event == "error":
        raise error_from_object(obj)
    return obj


def _not_json(data: str) -> MalformedResponseError:
    # Broken JSON may hold the prompt (`__verbose`), so only what was never JSON is quoted.
    start = data.lstrip()[:100]
    shown = f"{len(data)} characters of broken JSON" if start.startswith(("{", "[", '"')) else repr(start)
    return MalformedResponseError(
        f"an event of the stream is not JSON: {shown}", hint="Check base_url: is a llama-server behind it?"
    )


def _finish_reason(value: Any) -> FinishReason | None:
    if value is None:
        return None
    return _FINISH_REASONS.get(value, "stop") if isinstance(value, str) else "stop"


def _native_finish_reason(obj: dict[str, Any]) -> FinishReason:
    if "stop_type" in obj:
        return "length" if obj["stop_type"] == "limit" else "stop"
    return "length" if obj.get("stopped_limit") is True else "stop"  # builds before December 2024


def _native_usage(obj: dict[str, Any], timings: Timings | None) -> Usage | None:
    prompt, completion = obj.get("tokens_evaluated"), obj.get("tokens_predicted")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return usage_from_timings(timings)
    # `tokens_cached` of the event is what is in the cache now; `timings.cache_n` is what this prompt found there.
    return Usage(prompt, completion, prompt + completion, cached_tokens=timings.cache_n if timings else 0)
