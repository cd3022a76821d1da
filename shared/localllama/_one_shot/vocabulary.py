"""The few texts of a GGUF file that a prompt needs: the chat template, and the tokens for begin and end."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["Vocabulary", "read_vocabulary"]

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TOKENS = "tokenizer.ggml.tokens"
# llama.cpp's own defaults (src/llama-vocab.cpp), for files that do not say whether a prompt begins with a token.
_MODELS_WITH_BOS = frozenset({"llama", "bert"})
_PRETOKENIZERS_WITH_BOS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "tekken", "chameleon"})


@dataclass(frozen=True)
class Vocabulary:
    """What the header says.

    Attributes:
        chat_template: The Jinja source, or None.
        bos: Text of the token that begins a prompt, or "".
        eos: Text of the token that ends one, or "".
        adds_bos: llama.cpp puts the first of them before each prompt by itself.
    """

    chat_template: str | None = None
    bos: str = ""
    eos: str = ""
    adds_bos: bool = False


def read_vocabulary(path: str) -> Vocabulary:
    """Read them from a file that llama.cpp has loaded already, so its header is sound."""
    with Path(path).open("rb") as file:
        file.seek(16)
        entries: dict[str, Any] = {}
        (count,) = _numbers(file, "<Q")
        for _ in range(count):
            key = _string(file).decode()
            (kind,) = _numbers(file, "<I")
            entries[key] = _value(file, kind, is_kept=key == _TOKENS)
    tokens = entries.get(_TOKENS) or []

    def token(name: str) -> str:
        number = entries.get(f"tokenizer.ggml.{name}_token_id")
        if not isinstance(number, int) or not 0 <= number < len(tokens):
            return ""
        text: bytes = tokens[number]
        return text.decode(errors="replace")

    adds_bos = entries.get("tokenizer.ggml.add_bos_token")
    if adds_bos is None:
        adds_bos = (
            entries.get("tokenizer.ggml.model") in _MODELS_WITH_BOS
            or entries.get("tokenizer.ggml.pre") in _PRETOKENIZERS_WITH_BOS
        )
    return Vocabulary(entries.get("tokenizer.chat_template") or None, token("bos"), token("eos"), bool(adds_bos))


def _numbers(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _string(file: BinaryIO) -> bytes:
    (length,) = _numbers(file, "<Q")
    return file.read(length)


def _value(file: BinaryIO, kind: int, *, is_kept: bool) -> Any:
    if kind == _STRING:
        return _string(file).decode(errors="replace")
    if kind != _ARRAY:
        return _numbers(file, _SCALARS[kind])[0]
    element, length = _numbers(file, "<IQ")
    if element == _STRING:
        texts = [_string(file) for _ in range(length)]
        return texts if is_kept else None
    file.seek(length * struct.calcsize(_SCALARS[element]), 1)
    return None
