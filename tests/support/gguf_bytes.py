"""Writes GGUF files byte by byte, so that tests can make the ones that no real writer would."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

U32, I32, BOOL, STRING, ARRAY, U64 = 4, 5, 7, 8, 9, 10
F32_TENSOR = 0


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def u32(value: int) -> bytes:
    return struct.pack("<II", U32, value)


def string(value: str) -> bytes:
    return struct.pack("<I", STRING) + text(value)


def strings(values: list[str] | list[bytes]) -> bytes:
    return struct.pack("<IIQ", ARRAY, STRING, len(values)) + b"".join(map(text, values))


def numbers(values: list[int]) -> bytes:
    return struct.pack("<IIQ", ARRAY, U32, len(values)) + struct.pack(f"<{len(values)}I", *values)


def tensor(name: str, dims: tuple[int, ...], *, kind: int = F32_TENSOR, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


@dataclass
class GGUFBytes:
    """A GGUF file in the making: `entries` are encoded values by key, `tensors` encoded descriptions."""

    entries: dict[str, bytes] = field(default_factory=dict)
    tensors: list[bytes] = field(default_factory=list)
    data: bytes = b""
    version: int = 3
    n_entries: int | None = None
    n_tensors: int | None = None
    alignment: int = 32

    def header(self) -> bytes:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_entries = len(self.entries) if self.n_entries is None else self.n_entries
        parts = [b"GGUF", struct.pack("<IQQ", self.version, n_tensors, n_entries)]
        parts += [text(key) + value for key, value in self.entries.items()]
        return b"".join(parts + self.tensors)

    def build(self) -> bytes:
        header = self.header()
        return header + bytes(-len(header) % self.alignment if self.data else 0) + self.data


def small_model(**entries: bytes) -> GGUFBytes:
    """A header as a real one in miniature: a vocabulary, a template, two tensors with their data."""
    return GGUFBytes(
        entries={
            "general.architecture": string("llama"),
            "general.name": string("Small"),
            "llama.context_length": u32(16384),
            "llama.block_count": u32(2),
            "llama.embedding_length": u32(8),
            "llama.attention.head_count": u32(4),
            "llama.attention.head_count_kv": numbers([1, 2]),
            "tokenizer.ggml.tokens": strings(["<s>", "</s>", "a", "ä"]),
            "tokenizer.chat_template": string("{{ messages }}"),
            "tokenizer.chat_template.tool_use": string("{{ tools }}"),
            **{key.replace("__", "."): value for key, value in entries.items()},
        },
        tensors=[tensor("a.weight", (8, 2)), tensor("b.weight", (8,), offset=64)],
        data=bytes(range(96)),
    )
