"""Builds the micro GGUF: a real model of a few hundred kB that llama.cpp loads in about 0.1 s.

Its words make no sense (random weights, fixed seed), but the server, the HTTP and the streams around it are real. The
file is a function of its arguments alone, so every process that builds it gets the same bytes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import gguf
import numpy as np

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
N_VOCAB = 261
N_EMBD = 64
N_FF = 128
N_HEAD = 4


def build_micro_model(
    path: Path, *, n_ctx_train: int = 4096, chat_template: str | None = CHATML, seed: int = 7
) -> Path:
    """Write the micro model to `path`, atomically, and return the path.

    Args:
        path: Where the file goes; its directory must exist.
        n_ctx_train: The trained context length that the header claims, in tokens.
        chat_template: The Jinja template in the header; None leaves it out.
        seed: Seeds the random weights.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    writer = gguf.GGUFWriter(str(unfinished), "llama")
    writer.add_name("micro")
    writer.add_block_count(1)
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(N_EMBD // N_HEAD)
    writer.add_vocab_size(N_VOCAB)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_byte_vocabulary(writer)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    _add_weights(writer, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(unfinished, path)
    return path


def _add_byte_vocabulary(writer: gguf.GGUFWriter) -> None:
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + ["<|im_start|>", "<|im_end|>"]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.BYTE] * 256 + [kinds.CONTROL] * 2
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def _add_weights(writer: gguf.GGUFWriter, random: np.random.Generator) -> None:
    def matrix(name: str, rows: int, columns: int, scale: float = 0.05) -> None:
        writer.add_tensor(name, random.normal(0.0, scale, (rows, columns)).astype(np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(N_EMBD, dtype=np.float32))

    matrix("token_embd.weight", N_VOCAB, N_EMBD, scale=1.0)
    ones("output_norm.weight")
    # The rows of printable ASCII are larger, so that what is generated is mostly text, and the end token (2) and the
    # other special tokens are small, so that an answer runs until max_tokens.
    output = random.normal(0.0, 0.4, (N_VOCAB, N_EMBD)).astype(np.float32)
    printable = [3 + byte for byte in range(32, 127)]
    mask = np.full((N_VOCAB, 1), 0.01, dtype=np.float32)
    mask[printable] = 1.0
    writer.add_tensor("output.weight", output * mask)
    ones("blk.0.attn_norm.weight")
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        matrix(f"blk.0.{name}.weight", N_EMBD, N_EMBD)
    ones("blk.0.ffn_norm.weight")
    matrix("blk.0.ffn_gate.weight", N_FF, N_EMBD)
    matrix("blk.0.ffn_up.weight", N_FF, N_EMBD)
    matrix("blk.0.ffn_down.weight", N_EMBD, N_FF)


if __name__ == "__main__":
    sys.stdout.write(f"{build_micro_model(Path(sys.argv[1]))}\n")
