"""LlamaIndex messages to the core's: every content block is sent as it is meant, or refused by its name.

Pure in this sense: nothing is kept, and what the caller passes in is never changed. A block that names a file or a URL
is read here, by LlamaIndex's own code.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import IOBase
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from localllama import AudioPart, ImagePart, Message, TextPart, ToolCall, UnsupportedFeatureError
from localllama.types import ContentPart, Role

__all__ = ["needs_reading", "to_messages"]

_ROLES: Mapping[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}
_TEXT_TYPES = ("application/json", "application/xml", "application/yaml", "application/x-yaml", "application/toml")
_UNTITLED = "input_document"  # what DocumentBlock calls a document without a title
_CONTENT_BLOCKS = (TextBlock, ImageBlock, AudioBlock, DocumentBlock, CitableBlock, CitationBlock)


def needs_reading(messages: Iterable[ChatMessage]) -> bool:
    """Whether converting these messages may read files or URLs, so that async code does it in a thread."""
    return any(not isinstance(block, TextBlock | ThinkingBlock | ToolCallBlock) for m in messages for block in m.blocks)


def to_messages(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """The conversation in the core's types.

    A call in the history that has no id gets one, and so does the tool message that answers it.

    Raises:
        UnsupportedFeatureError: A block that llama.cpp cannot take, or that does not belong into a turn of this role.
        ValueError: LlamaIndex could not read what an image, audio or document block names.
    """
    converted: list[Message] = []
    unanswered: list[str] = []
    for position, message in enumerate(messages):
        role = _ROLES[message.role]
        calls = _tool_calls(message, role, position)
        if calls:
            unanswered = [call.id for call in calls]
        converted.append(
            Message(
                role=role,
                content=_content(message),
                name=message.additional_kwargs.get("name"),
                tool_calls=calls,
                tool_call_id=_answered_call(message, unanswered) if role == "tool" else None,
                reasoning=_reasoning(message, role),
            )
        )
    return tuple(converted)


def _answered_call(message: ChatMessage, unanswered: list[str]) -> str | None:
    tool_call_id: str | None = message.additional_kwargs.get("tool_call_id")
    if tool_call_id in unanswered:
        unanswered.remove(tool_call_id)
    elif tool_call_id is None and unanswered:
        tool_call_id = unanswered.pop(0)
    return tool_call_id


def _tool_calls(message: ChatMessage, role: Role, position: int) -> tuple[ToolCall, ...]:
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks and role != "assistant":
        raise _misplaced("ToolCallBlock", message)
    found = [(block.tool_call_id, block.tool_name, block.tool_kwargs) for block in blocks]
    if not found and role == "assistant":
        found = [_legacy_call(call) for call in message.additional_kwargs.get("tool_calls") or ()]
    return tuple(
        ToolCall(
            # Nine letters and digits, because the templates of the Mistral family take no other form; and the same in
            # each turn, so that the prompt's beginning stays the same.
            id=call_id or f"call{position:03}{number:02}",
            name=name,
            arguments=arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
        )
        for number, (call_id, name, arguments) in enumerate(found)
    )


def _legacy_call(call: Any) -> tuple[str | None, str, Any]:
    # Before ToolCallBlock, integrations kept the calls of their SDK here: objects, or dicts of the same shape.
    try:
        call = call.model_dump() if hasattr(call, "model_dump") else call
        function = call["function"]
        return call.get("id"), function["name"], function.get("arguments") or "{}"
    except (KeyError, TypeError, AttributeError) as error:
        raise UnsupportedFeatureError(
            f'additional_kwargs["tool_calls"] of a message holds a {type(call).__name__} in no known form',
            hint="Use a ToolCallBlock, or the form of the OpenAI API.",
        ) from error


def _reasoning(message: ChatMessage, role: Role) -> str | None:
    blocks = [block for block in message.blocks if isinstance(block, ThinkingBlock)]
    if blocks and role != "assistant":
        raise _misplaced("ThinkingBlock", message)
    return "\n".join(block.content for block in blocks if block.content) or None


def _content(message: ChatMessage) -> str | tuple[ContentPart, ...]:
    parts = [
        part
        for block in message.blocks
        if not isinstance(block, ThinkingBlock | ToolCallBlock | CachePoint)  # a cache point: llama.cpp caches anyway
        for part in _parts(block)
    ]
    if all(isinstance(part, TextPart) for part in parts):
        # "\n" is what ChatMessage.content joins with.
        return "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return tuple(parts)


def _parts(block: Any) -> list[ContentPart]:
    if isinstance(block, TextBlock):
        return [TextPart(block.text)]
    if isinstance(block, ImageBlock):
        # `detail` is dropped: llama.cpp has one resolution for an image, the projector's.
        return [ImagePart(_base64_of(block.resolve_image), block.image_mimetype or "image/png")]
    if isinstance(block, AudioBlock):
        return [AudioPart(_base64_of(block.resolve_audio), _audio_format(block))]
    if isinstance(block, DocumentBlock):
        return [TextPart(_document_text(block))]
    if isinstance(block, CitableBlock):
        return [TextPart(_source_line(block)), *(part for nested in block.content for part in _parts(nested))]
    if isinstance(block, CitationBlock):
        return [TextPart(_source_line(block)), *_parts(block.cited_content)]
    names = ", ".join(kind.__name__ for kind in _CONTENT_BLOCKS)
    raise UnsupportedFeatureError(
        f"llama.cpp cannot be sent a {type(block).__name__}",
        hint=f"Send what it shows as one of {names}.",
    )


def _source_line(block: CitableBlock | CitationBlock) -> str:
    return f"{block.title} ({block.source}):"


def _base64_of(resolve: Callable[..., IOBase]) -> str:
    # LlamaIndex returns a caller's file object as it is, and then `as_base64` has no effect: so it is not asked for.
    return base64.b64encode(_read(resolve)).decode("ascii")


def _read(resolve: Callable[..., IOBase]) -> bytes:
    stream = resolve()
    data: bytes = stream.read()
    stream.seek(0)  # a file object of the caller's is left as LlamaIndex leaves it: at its start
    return data


def _audio_format(block: AudioBlock) -> str:
    if block.format in {"wav", "mp3"}:
        return block.format
    raise UnsupportedFeatureError(
        f"an AudioBlock has format={block.format!r}; llama.cpp takes 'wav' and 'mp3'",
        hint="Convert the sound, or set AudioBlock(format=...) if it is one of them.",
    )


def _document_text(block: DocumentBlock) -> str:
    mime_type = block.document_mimetype
    refused = UnsupportedFeatureError(
        f"a DocumentBlock ({block.title}) is {mime_type or 'not text'}; llama.cpp reads no documents but text",
        hint="Extract its text first, with a LlamaIndex reader, and send that as a TextBlock.",
    )
    if mime_type and not mime_type.startswith("text/") and mime_type not in _TEXT_TYPES:
        raise refused
    try:
        text = _read(block.resolve_document).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refused from error
    if "\0" in text:
        raise refused
    return text if block.title in {None, _UNTITLED} else f"{block.title}:\n{text}"


def _misplaced(block: str, message: ChatMessage) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"a message with role {message.role.value!r} holds a {block}",
        hint="Put it into a message of role 'assistant': it is something that the model said.",
    )
