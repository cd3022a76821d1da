"""The core's answers to LlamaIndex responses, whole and streamed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from localllama import ChatChunk, ChatResult, TokenLogprob, ToolCall, Usage

__all__ = ["StreamedAnswer", "is_shown", "to_chat_response", "to_completion_response"]


def to_chat_response(result: ChatResult) -> ChatResponse:
    """A whole answer as a `ChatResponse`."""
    return ChatResponse(
        message=_message(result), raw=_raw(result), logprobs=[_alternatives(token) for token in result.logprobs] or None
    )


def to_completion_response(result: ChatResult) -> CompletionResponse:
    """A whole answer as a `CompletionResponse`; its thinking is in `additional_kwargs["thinking"]`."""
    return CompletionResponse(
        text=result.text,
        additional_kwargs={"thinking": result.reasoning} if result.reasoning else {},
        raw=_raw(result),
        logprobs=[_alternatives(token) for token in result.logprobs] or None,
    )


def is_shown(chunk: ChatChunk) -> bool:
    """Whether the chunk says anything that a response can hold; a prompt's progress, for one, does not."""
    return bool(
        chunk.text or chunk.reasoning or chunk.tool_calls or chunk.logprobs or chunk.finish_reason or chunk.usage
    )


class StreamedAnswer:
    """Turns the chunks of one stream into responses that each hold all that has come, as LlamaIndex streams do.

    It adds up by itself: the stream's own `result()` is ahead of its chunks, since one read from the network can bring
    several of them.
    """

    def __init__(self) -> None:
        self._result = ChatResult()
        self._calls: dict[int, ToolCall] = {}
        self._logprobs: list[list[LogProb]] = []

    def chat_response(self, chunk: ChatChunk) -> ChatResponse:
        """The response after `chunk`."""
        self._add(chunk)
        return ChatResponse(
            message=_message(self._result),
            delta=chunk.text,
            raw=_raw(self._result),
            logprobs=list(self._logprobs) or None,
            additional_kwargs={"thinking_delta": chunk.reasoning} if chunk.reasoning else {},
        )

    def completion_response(self, chunk: ChatChunk) -> CompletionResponse:
        """The same for a completion."""
        self._add(chunk)
        response = to_completion_response(self._result)
        response.delta = chunk.text
        response.logprobs = list(self._logprobs) or None
        if chunk.reasoning:
            response.additional_kwargs["thinking_delta"] = chunk.reasoning
        return response

    def _add(self, chunk: ChatChunk) -> None:
        result = self._result
        for delta in chunk.tool_calls:
            call = self._calls.get(delta.index, ToolCall("", "", ""))
            self._calls[delta.index] = ToolCall(
                call.id or delta.id or "", call.name or delta.name or "", call.arguments + delta.arguments
            )
        self._logprobs.extend(_alternatives(token) for token in chunk.logprobs)
        self._result = ChatResult(
            text=result.text + chunk.text,
            reasoning=result.reasoning + chunk.reasoning,
            tool_calls=tuple(call for _, call in sorted(self._calls.items())),
            finish_reason=chunk.finish_reason or result.finish_reason,
            usage=chunk.usage or result.usage,
            timings=chunk.timings or result.timings,
            model=chunk.model or result.model,
            id=chunk.id or result.id,
            system_fingerprint=chunk.system_fingerprint or result.system_fingerprint,
        )


def _message(result: ChatResult) -> ChatMessage:
    blocks: list[Any] = [ThinkingBlock(content=result.reasoning)] if result.reasoning else []
    # Always one text block: without any, `message.content` is None, which agents and memories do not expect.
    blocks.append(TextBlock(text=result.text))
    blocks.extend(
        ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=call.arguments)
        for call in result.tool_calls
    )
    message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
    if result.tool_calls:
        # LlamaIndex's streamed programs and its memory look at this older place only.
        message.additional_kwargs["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in result.tool_calls
        ]
    return message


def _raw(result: ChatResult) -> dict[str, Any]:
    # A plain dict with "usage" in it: TokenCountingHandler does dict(raw), and counts for itself without that key.
    return {
        "id": result.id,
        "model": result.model,
        "finish_reason": result.finish_reason,
        "system_fingerprint": result.system_fingerprint,
        "usage": _usage(result.usage),
        "timings": asdict(result.timings) if result.timings else None,
    }


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        **({"is_estimated": True} if usage.is_estimated else {}),
    }


def _alternatives(token: TokenLogprob) -> list[LogProb]:
    """What was chosen at this place, first, and then what else was likely."""
    others = [other for other in token.top if (other.token, other.token_bytes) != (token.token, token.token_bytes)]
    return [
        LogProb(token=one.token, logprob=one.logprob, bytes=list(one.token_bytes or ())) for one in (token, *others)
    ]
