"""Builds a GGUF that says one thing, whatever it is asked: for what no small model would say by itself.

A call in the syntax of some template comes from a real llama-server then, token by token, through its own sampler, grammar
and parser; only the words were chosen. Each piece is one token of the vocabulary. The only layer is zero, so the next token
follows from the last one alone: from any token of a prompt the first piece, from a piece the next one, from the last the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

__all__ = ["build_parrot_model", "to_pieces"]

_N_BYTES = 256
_FIRST_BYTE = 3
_LOGIT = 4.0
_HEAD_SIZE = 16
_SHORTEST = 3


def to_pieces(text: str) -> tuple[str, ...]:
    """A few characters each, all different: a token that came twice would be a circle.

    None is so short that a prompt is likely to end with it, which would be no beginning.
    """
    pieces: list[str] = []
    for piece in re.findall(r".{1,5}", text, re.DOTALL):
        pieces.append(piece)
        while len(pieces) > 1 and (len(pieces[-1]) < _SHORTEST or pieces[-1] in pieces[:-1]):
            last = pieces.pop()
            pieces[-1] += last
    return tuple(pieces)


def build_parrot_model(path: Path, text: str, *, n_ctx_train: int = 32768) -> Path:
    """Write the model to `path`, and return the path.

    Args:
        path: Where the file goes.
        text: What it says.
        n_ctx_train: The trained context length, in tokens; a byte of a prompt is one.
    """
    pieces = to_pieces(text)
    n_vocab = _FIRST_BYTE + _N_BYTES + len(pieces)
    width = -(-n_vocab // _HEAD_SIZE) * _HEAD_SIZE
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("parrot")
    writer.add_block_count(1)
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(_HEAD_SIZE)
    writer.add_head_count(width // _HEAD_SIZE)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_HEAD_SIZE)
    writer.add_vocab_size(n_vocab)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_vocabulary(writer, pieces)
    _add_weights(writer, n_vocab, width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: gguf.GGUFWriter, pieces: Sequence[str]) -> None:
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(_N_BYTES)] + list(pieces)
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.BYTE] * _N_BYTES
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types + [kinds.USER_DEFINED] * len(pieces))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def _add_weights(writer: gguf.GGUFWriter, n_vocab: int, width: int) -> None:
    first = _FIRST_BYTE + _N_BYTES
    embeddings = np.eye(n_vocab, width, dtype=np.float32)
    following = np.zeros((n_vocab, width), dtype=np.float32)
    following[first, :first] = _LOGIT
    for token in range(first, n_vocab):
        following[token + 1 if token + 1 < n_vocab else 2, token] = _LOGIT
    writer.add_tensor("token_embd.weight", embeddings)
    writer.add_tensor("output.weight", following)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
    shapes = {
        "attn_q": (width, width),
        "attn_k": (_HEAD_SIZE, width),
        "attn_v": (_HEAD_SIZE, width),
        "attn_output": (width, width),
        "ffn_gate": (_HEAD_SIZE, width),
        "ffn_up": (_HEAD_SIZE, width),
        "ffn_down": (width, _HEAD_SIZE),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, dtype=np.float32))
