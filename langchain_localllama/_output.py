"""The core's results and chunks as LangChain's messages, and those messages as standard content blocks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    InvalidToolCall,
    ToolCall,
    ToolCallChunk,
)
from langchain_core.messages import content as blocks
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from localllama import ChatChunk, TokenLogprob, Usage
from localllama import ChatResult as CoreResult
from localllama import ToolCall as CoreToolCall

MODEL_PROVIDER = "localllama"


def to_chat_result(result: CoreResult, model_name: str | None) -> ChatResult:
    """A whole answer.

    Args:
        result: The core's answer.
        model_name: The reference that the user gave; None where the server alone knows the model.
    """
    calls, invalid = _tool_calls(result.tool_calls)
    message = AIMessage(
        content=result.text,
        additional_kwargs=_reasoning(result.reasoning),
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=_usage(result.usage),
        response_metadata={
            "model_provider": MODEL_PROVIDER,
            **_final_metadata(result, model_name),
            **_measurements(result),
        },
    )
    return ChatResult(generations=[ChatGeneration(message=message, generation_info=_generation_info(result))])


def to_generation_chunk(chunk: ChatChunk, model_name: str | None) -> ChatGenerationChunk | None:
    """One step of a stream, or None for a step that shows nothing (prompt progress, the role alone).

    Merging adds strings and numbers up, so what describes the whole answer is put on one chunk alone: the names on
    the one with the finish reason, the counts on the last.
    """
    is_shown = chunk.text or chunk.reasoning or chunk.tool_calls or chunk.logprobs
    if not (is_shown or chunk.finish_reason or chunk.usage):
        return None
    message = AIMessageChunk(
        content=chunk.text,
        additional_kwargs=_reasoning(chunk.reasoning),
        tool_call_chunks=_tool_call_chunks(chunk),
        usage_metadata=_usage(chunk.usage),
        response_metadata={
            "model_provider": MODEL_PROVIDER,
            **(_final_metadata(chunk, model_name) if chunk.finish_reason else {}),
            **_measurements(chunk),
        },
        chunk_position="last" if chunk.usage else None,
    )
    return ChatGenerationChunk(message=message, generation_info=_generation_info(chunk))


def _reasoning(text: str) -> dict[str, Any]:
    return {"reasoning_content": text} if text else {}


def _final_metadata(answer: CoreResult | ChatChunk, model_name: str | None) -> dict[str, Any]:
    known = {
        "model_name": model_name or answer.model,
        "finish_reason": answer.finish_reason,
        "system_fingerprint": answer.system_fingerprint,
        "id": answer.id,
    }
    return {name: value for name, value in known.items() if value is not None}


def _measurements(answer: CoreResult | ChatChunk) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if answer.usage and answer.usage.is_estimated:
        # `usage_metadata` is LangChain's own form, which has no place for it.
        metadata["is_usage_estimated"] = True
    # With `timings_per_token` each chunk has timings; the last ones count for the whole answer.
    if answer.timings and answer.usage:
        metadata["timings"] = {name: value for name, value in asdict(answer.timings).items() if value is not None}
    if answer.logprobs:
        metadata["logprobs"] = {"content": [_logprob(entry) for entry in answer.logprobs]}
    return metadata


def _generation_info(answer: CoreResult | ChatChunk) -> dict[str, Any] | None:
    return {"finish_reason": answer.finish_reason} if answer.finish_reason else None


def _logprob(entry: TokenLogprob) -> dict[str, Any]:
    return {
        "token": entry.token,
        "bytes": list(entry.token_bytes) if entry.token_bytes is not None else None,
        "logprob": entry.logprob,
        "top_logprobs": [_logprob(other) for other in entry.top],
    }


def _usage(usage: Usage | None) -> UsageMetadata | None:
    if usage is None:
        return None
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )


def _tool_calls(calls: tuple[CoreToolCall, ...]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    valid: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in calls:
        raw = {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
        try:
            parsed = parse_tool_call(raw)
        except OutputParserException as error:
            invalid.append(make_invalid_tool_call(raw, str(error)))
            continue
        if parsed is not None and isinstance(parsed["args"], dict):
            valid.append(ToolCall(type="tool_call", id=call.id, name=call.name, args=parsed["args"]))
        else:
            invalid.append(make_invalid_tool_call(raw, "the arguments are not a JSON object"))
    return valid, invalid


def _tool_call_chunks(chunk: ChatChunk) -> list[ToolCallChunk]:
    return [
        tool_call_chunk(name=delta.name, args=delta.arguments, id=delta.id, index=delta.index)
        for delta in chunk.tool_calls
    ]


def _translate_message(message: AIMessage) -> list[blocks.ContentBlock]:
    if not isinstance(message.content, str):
        raise NotImplementedError  # how a translator hands over to core, whose own reading of blocks is right
    made: list[blocks.ContentBlock] = []
    if reasoning := message.additional_kwargs.get("reasoning_content"):
        made.append(blocks.ReasoningContentBlock(type="reasoning", reasoning=reasoning))
    if message.content:
        made.append(blocks.TextContentBlock(type="text", text=message.content))
    made += [
        blocks.ToolCall(type="tool_call", id=call["id"], name=call["name"], args=call["args"])
        for call in message.tool_calls
    ]
    return made


def _translate_chunk(message: AIMessageChunk) -> list[blocks.ContentBlock]:
    if message.chunk_position == "last" and message.tool_call_chunks:
        return _translate_message(message)  # a whole answer, added up
    if not isinstance(message.content, str):
        raise NotImplementedError  # as above
    # Core numbers blocks by type and place in each chunk, so a call (index 0) would be merged into the text before it.
    # A string that begins with "lc_" names the block for the whole stream.
    made: list[blocks.ContentBlock] = []
    if reasoning := message.additional_kwargs.get("reasoning_content"):
        made.append(blocks.ReasoningContentBlock(type="reasoning", reasoning=reasoning, index="lc_rs_0"))
    if message.content:
        made.append(blocks.TextContentBlock(type="text", text=message.content, index="lc_txt_0"))
    made += [
        blocks.ToolCallChunk(
            type="tool_call_chunk",
            id=call["id"],
            name=call["name"],
            args=call["args"],
            index=f"lc_tc_{call['index'] or 0}",
        )
        for call in message.tool_call_chunks
    ]
    return made


register_translator(MODEL_PROVIDER, _translate_message, _translate_chunk)
