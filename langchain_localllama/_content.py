"""Content blocks of LangChain's messages as parts of the core's messages; what llama-server cannot take is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from localllama import AudioPart, ContentPart, ImagePart, TextPart, UnsupportedFeatureError

_AUDIO_FORMATS = {
    "wav": "wav",
    "x-wav": "wav",
    "wave": "wav",
    "vnd.wave": "wav",
    "mp3": "mp3",
    "mpeg": "mp3",
}


def block_type(block: Mapping[str, Any]) -> str:
    """The type of a block; a block of a single key and no type, such as `{"text": "..."}`, has that key as its type."""
    return str(block.get("type") or (next(iter(block)) if len(block) == 1 else "untyped"))


def to_part(block: str | Mapping[str, Any]) -> ContentPart:
    """One content block (LangChain v0 or v1, OpenAI or Anthropic shape) as a part.

    Raises:
        UnsupportedFeatureError: llama-server cannot take such a block.
    """
    if isinstance(block, str):
        return TextPart(block)
    kind = block_type(block)
    convert = _PARTS.get(kind)
    if convert is None:
        raise refusal(kind)
    return convert(block)


def refusal(kind: str) -> UnsupportedFeatureError:
    """The error for a block that has no place in the request."""
    return UnsupportedFeatureError(
        f"content block of type {kind!r} cannot be sent to llama-server", hint=_REMEDIES.get(kind, _REMEDY)
    )


def _text(block: Mapping[str, Any]) -> TextPart:
    text = block.get("text", block.get("refusal"))
    if not isinstance(text, str):
        raise refusal(f"{block_type(block)} without text")
    return TextPart(text)


def _image(block: Mapping[str, Any]) -> ImagePart:
    source = block.get("source")
    if isinstance(source, Mapping):  # Anthropic
        block = {"mime_type": source.get("media_type"), **source}
    data = block.get("base64") or block.get("data")
    if isinstance(data, str):
        return ImagePart(data, block.get("mime_type") or "image/png")
    url = block.get("image_url") or block.get("url")
    if isinstance(url, Mapping):
        url = url.get("url")
    if not isinstance(url, str):
        raise refusal("image without data")
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise refusal("remote image")
    return ImagePart(data, head.removeprefix("data:").split(";", 1)[0] or "image/png")


def _audio(block: Mapping[str, Any]) -> AudioPart:
    inner = block.get("input_audio")
    if isinstance(inner, Mapping):  # OpenAI
        block = inner
    data = block.get("base64") or block.get("data")
    if not isinstance(data, str):
        raise refusal("audio without data")
    name = str(block.get("format") or block.get("mime_type") or "wav").rpartition("/")[2]
    if name not in _AUDIO_FORMATS:
        raise refusal(f"audio as {name}")
    return AudioPart(data, _AUDIO_FORMATS[name])


_PARTS: dict[str, Callable[[Mapping[str, Any]], ContentPart]] = {
    "text": _text,
    "text-plain": _text,
    "input_text": _text,
    "output_text": _text,
    "refusal": _text,
    "image": _image,
    "image_url": _image,
    "input_image": _image,
    "audio": _audio,
    "input_audio": _audio,
}

_REMEDY = "Send text, images (base64) or audio (base64, wav or mp3), and leave this block out."
_REMEDIES = {
    "remote image": "Download the image and send it as base64: llama-server would fetch the address itself.",
    "image without data": "Send it as base64: {'type': 'image', 'base64': ..., 'mime_type': 'image/png'}.",
    "file": "Extract its text and send that as a text block.",
    "document": "Extract its text and send that as a text block.",
    "video": "Send single frames of it as images.",
    "tool_result": "Send the result as a ToolMessage, or in a HumanMessage as Anthropic has it.",
}
