"""Writes the smallest model that llama.cpp loads, to find out whether a runtime works where there is no model yet.

`--version` proves nothing: servers that were compiled for another processor print it and then die while they load. This is
a llama with one layer, 261 tokens and weights of zero, 100 kB in all; what it writes is of no use.
"""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["write_tiny_model"]

_N_VOCAB, _N_EMBD, _N_FF, _N_HEAD = 261, 32, 32, 2
_ALIGNMENT = 32
_U32, _I32, _F32, _STRING, _ARRAY = 4, 5, 6, 8, 9


def write_tiny_model(path: Path) -> Path:
    """Write the model to `path`, whose directory must exist; returns it."""
    tensors = _tensors()
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(_values()))]
    head += [_text(key) + value for key, value in _values().items()]
    offset = 0
    for name, shape in tensors.items():
        head.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset))
        offset += _padded(_size_bytes(shape))
    header = b"".join(head)
    one = struct.pack("<f", 1.0)
    with path.open("wb") as file:
        file.write(header + bytes(_padded(len(header)) - len(header)))
        for name, shape in tensors.items():
            size_bytes = _size_bytes(shape)
            data = one * (size_bytes // 4) if name.endswith("norm.weight") else bytes(size_bytes)
            file.write(data + bytes(_padded(size_bytes) - size_bytes))
    return path


def _values() -> dict[str, bytes]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "<|im_start|>", "<|im_end|>"]
    unknown, control, of_byte = 2, 3, 6
    kinds = [unknown, control, control, *[of_byte] * 256, control, control]
    return {
        "general.architecture": _string("llama"),
        "general.name": _string("tiny"),
        "llama.block_count": _number(1),
        "llama.context_length": _number(512),
        "llama.embedding_length": _number(_N_EMBD),
        "llama.feed_forward_length": _number(_N_FF),
        "llama.attention.head_count": _number(_N_HEAD),
        "llama.attention.head_count_kv": _number(_N_HEAD),
        "llama.attention.layer_norm_rms_epsilon": struct.pack("<If", _F32, 1e-5),
        "llama.rope.dimension_count": _number(_N_EMBD // _N_HEAD),
        "tokenizer.ggml.model": _string("llama"),
        "tokenizer.ggml.tokens": _array(_STRING, [_text(token) for token in tokens]),
        "tokenizer.ggml.scores": _array(_F32, [struct.pack("<f", 0.0)] * len(tokens)),
        "tokenizer.ggml.token_type": _array(_I32, [struct.pack("<i", kind) for kind in kinds]),
        "tokenizer.ggml.bos_token_id": _number(1),
        "tokenizer.ggml.eos_token_id": _number(2),
        "tokenizer.ggml.unknown_token_id": _number(0),
    }


def _tensors() -> dict[str, tuple[int, ...]]:
    square, tall = (_N_EMBD, _N_EMBD), (_N_EMBD, _N_FF)
    return {
        "token_embd.weight": (_N_EMBD, _N_VOCAB),
        "output_norm.weight": (_N_EMBD,),
        "output.weight": (_N_EMBD, _N_VOCAB),
        "blk.0.attn_norm.weight": (_N_EMBD,),
        **{f"blk.0.{name}.weight": square for name in ("attn_q", "attn_k", "attn_v", "attn_output")},
        "blk.0.ffn_norm.weight": (_N_EMBD,),
        "blk.0.ffn_gate.weight": tall,
        "blk.0.ffn_up.weight": tall,
        "blk.0.ffn_down.weight": (_N_FF, _N_EMBD),
    }


def _size_bytes(shape: tuple[int, ...]) -> int:
    size_bytes = 4
    for length in shape:
        size_bytes *= length
    return size_bytes


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _string(value: str) -> bytes:
    return struct.pack("<I", _STRING) + _text(value)


def _number(value: int) -> bytes:
    return struct.pack("<II", _U32, value)


def _array(kind: int, values: list[bytes]) -> bytes:
    return struct.pack("<IIQ", _ARRAY, kind, len(values)) + b"".join(values)
