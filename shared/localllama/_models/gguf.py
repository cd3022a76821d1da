"""What a GGUF file says of itself, read without llama.cpp and without the `gguf` package.

`read_gguf_header` reads a header with a vocabulary of 150k tokens in some 30 ms, since it skips the strings of arrays
instead of decoding them, and refuses what llama.cpp would refuse before any server is started: foreign, damaged,
truncated and too new files, each with what to do about it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from localllama.errors import ConfigurationError, ModelCorruptError, ModelError, ModelNotFoundError
from localllama.settings import DEFAULT_N_CTX
from localllama.types import ModelInfo

from .files import file_key, open_model_file
from .foreign_files import PROBE_BYTES, describe_foreign_file
from .gguf_reading import MAGIC, GGUFArray, GGUFDamage, RawHeader, read_raw_header
from .gguf_tables import FILE_TYPES, TENSOR_TYPES
from .memo import FileMemo
from .splits import split_parts, split_position

__all__ = ["GGUFHeader", "check_part", "model_fingerprint", "model_info", "read_gguf_header"]

PathText = str | os.PathLike[str]

_SPLIT_SUFFIX = re.compile(r"-\d{5}-of-\d{5}$")
FALLBACK_N_CTX = 4096
"""The context window where neither the caller nor the header names one, in tokens."""

_CHAT_TEMPLATE = "tokenizer.chat_template"
_GUESSED_FILE_TYPE = 1024
_SAMPLE_BYTES = 1 << 16
_NOT_MODELS = {
    "mmproj": "a multimodal projector: give it as `mmproj` beside its language model",
    "adapter": "a LoRA or control-vector adapter: give it as `lora` beside its base model",
    "imatrix": "an importance matrix for quantization, not a model",
}
_DAMAGED_HINT = "Download or convert the file again; a partial download is the usual cause."
_OTHER_VERSION_HINT = "Get the model in GGUF version 3, little endian, or convert it again."


@dataclass(frozen=True)
class GGUFHeader:
    """The header of a model, all its split parts together.

    Numbers are None where the header does not have them. Names are those of llama.cpp's `llama_hparams`.

    Attributes:
        path: The file as it was given; the first part of a split model.
        parts: Every file of the model, in order; one unless it is split.
        version: GGUF version.
        kind: `general.type`: "model", "mmproj", "adapter", ...
        architecture: Such as "llama".
        name: `general.name`.
        quantization: Such as "Q4_K_M".
        size_bytes: Size of all parts together.
        n_tensors: Tensors in all parts.
        n_params: Elements of all tensors.
        n_ctx_train: The length that the model was trained for, in tokens.
        n_vocab: Tokens in the vocabulary.
        n_layer: Blocks.
        n_embd: Embedding length.
        n_head: Attention heads; the largest number where layers differ.
        n_head_kv: Key/value heads, likewise; `n_head` where the header has no number of its own.
        n_embd_head_k: Length of one key head, for the size of the KV cache.
        n_embd_head_v: Length of one value head.
        pooling_type: llama.cpp's pooling of an embedding model: 1 mean, 2 CLS, 3 last token, 4 rank.
        chat_template: The default Jinja template.
        chat_template_names: Further templates by name, such as "tool_use".
        header_bytes: Length of the (first) header; the tensor data follows.
    """

    path: str
    parts: tuple[str, ...]
    version: int
    kind: str
    architecture: str
    name: str | None = None
    quantization: str | None = None
    size_bytes: int = 0
    n_tensors: int = 0
    n_params: int = 0
    n_ctx_train: int | None = None
    n_vocab: int | None = None
    n_layer: int | None = None
    n_embd: int | None = None
    n_head: int | None = None
    n_head_kv: int | None = None
    n_embd_head_k: int | None = None
    n_embd_head_v: int | None = None
    pooling_type: int | None = None
    chat_template: str | None = field(default=None, repr=False)
    chat_template_names: tuple[str, ...] = ()
    header_bytes: int = 0

    @property
    def is_embedding_model(self) -> bool:
        """Whether the model was made to embed or rank texts and not to write any."""
        return bool(self.pooling_type)


_raw_headers: FileMemo[RawHeader] = FileMemo(capacity=64)
_fingerprints: FileMemo[str] = FileMemo()


def read_gguf_header(path: PathText) -> GGUFHeader:
    """Read and check the header of a model; of a split one, given by its first part, the headers of all parts.

    The result is kept for as long as the file has the same real path, size and modification time.

    Raises:
        ModelNotFoundError: No such file, or a part of a split model is missing.
        ModelCorruptError: Not a GGUF file that llama.cpp could load.
        ConfigurationError: The file is a part of a split model, but not the first.
        ModelError: The file cannot be read.
    """
    first = os.fspath(path)
    parts = _part_paths(first)
    headers = [_raw_header(part) for part in parts]
    _check_split(first, parts, headers[0])
    return _joined(first, parts, headers)


def check_part(path: PathText, number: int, count: int) -> None:
    """Check one part of a split model by itself: its header, its size against its tensors, and its place.

    Raises:
        ModelCorruptError: llama.cpp could not load it, or it is another part than its name says.
        ModelError: The file cannot be read.
    """
    shown = os.fspath(path)
    header = _read_one(shown)
    said = (_integer(header, "split.no") or 0) + 1, _integer(header, "split.count") or 1
    if said != (number, count):
        raise ModelCorruptError(
            f"{shown!r} is named as part {number} of {count}, but its header says part {said[0]} of {said[1]}.",
            hint="Get the parts of one model, under the names that they were published under.",
        )
    if number == 1 and not _text(header, "general.architecture"):
        raise _no_architecture(shown)


def model_fingerprint(path: PathText) -> str:
    """A digest of the header, the size, and 64 kB from the start, the middle and the end of the tensor data.

    Equal for equal files wherever they are; it takes milliseconds for a file of any size. It tells models apart, as a
    cache key must; it does not prove that a file is undamaged.

    Returns:
        64 hexadecimal digits of SHA-256.

    Raises:
        ModelError: As for `read_gguf_header`.
    """
    header = read_gguf_header(path)
    key = tuple(file_key(part) for part in header.parts)
    return _fingerprints.get(key, lambda: _fingerprint(header.parts))


def model_info(path: PathText, n_ctx: int | None = None, *, allow_longer: bool = False) -> ModelInfo:
    """What is known of the model at `path` before a server runs.

    Args:
        path: The GGUF file; the first part of a split model.
        n_ctx: The context window that the user asked for, in tokens. Default: the length that the model was trained
            for, at most `DEFAULT_N_CTX`; `FALLBACK_N_CTX` where the header does not say.
        allow_longer: Accept an `n_ctx` beyond the trained length (with rope scaling, say).

    Raises:
        ConfigurationError: `n_ctx` is beyond the trained length, or the file is no language model.
        ModelError: As for `read_gguf_header`.
    """
    header = read_gguf_header(path)
    if header.kind in _NOT_MODELS:
        raise ConfigurationError(
            f"{header.path!r} is not a language model but {_NOT_MODELS[header.kind]}.",
            hint="Give the GGUF file of the language model as `model`.",
        )
    trained = header.n_ctx_train
    if n_ctx is not None and trained is not None and n_ctx > trained and not allow_longer:
        raise ConfigurationError(
            f"n_ctx={n_ctx} is longer than the {trained} tokens that {header.path!r} was trained for.",
            hint=f"Set n_ctx to {trained} or less, or set rope scaling in extra_args.",
        )
    default = min(trained, DEFAULT_N_CTX) if trained is not None else FALLBACK_N_CTX
    return ModelInfo(
        # Not `general.name`: it is often a leftover of training, such as "Smollm2 135M 8k Lc100K Mix1 Ep2".
        name=_SPLIT_SUFFIX.sub("", Path(header.path).stem),
        path=str(Path(header.path).absolute()),
        n_ctx=n_ctx if n_ctx is not None else default,
        n_ctx_train=trained,
        architecture=header.architecture,
        quantization=header.quantization,
        size_bytes=header.size_bytes,
        chat_template=header.chat_template,
        fingerprint=model_fingerprint(path),
    )


def _raw_header(path: str) -> RawHeader:
    return _raw_headers.get(file_key(path), lambda: _read_one(path))


def _read_one(path: str) -> RawHeader:
    file, size_bytes = open_model_file(path)
    try:
        with file:
            head = file.read(PROBE_BYTES)
            if not head:
                raise ModelCorruptError(f"The model file {path!r} is empty (0 bytes).", hint=_DAMAGED_HINT)
            if not head.startswith(MAGIC[: len(head)]):
                phrase, remedy = describe_foreign_file(head)
                raise ModelCorruptError(f"A GGUF file is wanted, but {path!r} {phrase}.", hint=f"{remedy}.")
            return read_raw_header(file, size_bytes)
    except GGUFDamage as damage:
        hint = _OTHER_VERSION_HINT if damage.is_foreign_version else _DAMAGED_HINT
        raise ModelCorruptError(f"The GGUF file {path!r} cannot be loaded: {damage}.", hint=hint) from damage
    except OSError as error:
        raise _read_error(path, error) from error


def _read_error(path: str, error: OSError) -> ModelError:
    reason = error.strerror or error
    return ModelError(f"The model file {path!r} cannot be read: {reason}.", hint="Check the disk that it is on.")


def _part_paths(path: str) -> tuple[str, ...]:
    number, count = split_position(path)
    names = split_parts(path)
    if number != 1:
        raise ConfigurationError(
            f"{path!r} is part {number} of {count} of a split model.", hint=f"Give the first: {names[0]!r}."
        )
    if count > 1:
        file_key(path)  # where the first part itself is missing, that is the better message
    missing = [Path(name).name for name in names[1:] if not Path(name).exists()]
    if missing:
        raise ModelNotFoundError(
            f"{path!r} is the first of {count} parts; {len(missing)} of them are missing: {', '.join(missing[:5])}.",
            hint="Download every part into the same directory.",
        )
    return names


def _check_split(path: str, parts: tuple[str, ...], first: RawHeader) -> None:
    count = _integer(first, "split.count") or 1
    number = _integer(first, "split.no") or 0
    if count > 1 and len(parts) == 1:
        raise ModelCorruptError(
            f"{path!r} is part {number + 1} of {count} of a split model, but its name does not say so.",
            hint=f"Give the parts their names back: NAME-00001-of-{count:05d}.gguf and so on.",
        )
    if len(parts) > 1 and (number, count) != (0, len(parts)):
        raise ModelCorruptError(
            f"{path!r} is named as part 1 of {len(parts)}, but its header says part {number + 1} of {count}.",
            hint="Give the parts the names back that they were published under.",
        )


def _joined(path: str, parts: tuple[str, ...], headers: list[RawHeader]) -> GGUFHeader:
    first = headers[0]
    architecture = _text(first, "general.architecture")
    if not architecture:
        raise _no_architecture(path)

    def number(key: str) -> int | None:
        return _integer(first, f"{architecture}.{key}")

    tokens = first.entries.get("tokenizer.ggml.tokens")
    n_head = number("attention.head_count")
    n_embd = number("embedding_length")
    head_length = n_embd // n_head if n_embd and n_head else None
    return GGUFHeader(
        path=path,
        parts=parts,
        version=first.version,
        kind=_text(first, "general.type") or ("mmproj" if architecture == "clip" else "model"),
        architecture=architecture,
        name=_text(first, "general.name"),
        quantization=_quantization(headers),
        size_bytes=sum(file_key(part)[1] for part in parts),
        n_tensors=sum(len(header.tensors) for header in headers),
        n_params=sum(tensor.n_elements for header in headers for tensor in header.tensors),
        n_ctx_train=number("context_length") or None,
        n_vocab=tokens.length if isinstance(tokens, GGUFArray) else number("vocab_size"),
        n_layer=number("block_count"),
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=number("attention.head_count_kv") or n_head,
        n_embd_head_k=number("attention.key_length") or head_length,
        n_embd_head_v=number("attention.value_length") or head_length,
        pooling_type=number("pooling_type"),
        chat_template=_text(first, _CHAT_TEMPLATE),
        chat_template_names=tuple(
            key.removeprefix(f"{_CHAT_TEMPLATE}.") for key in first.entries if key.startswith(f"{_CHAT_TEMPLATE}.")
        ),
        header_bytes=first.size_bytes,
    )


def _no_architecture(path: str) -> ModelCorruptError:
    return ModelCorruptError(
        f"The GGUF file {path!r} cannot be loaded: its header names no architecture.", hint=_DAMAGED_HINT
    )


def _integer(header: RawHeader, key: str) -> int | None:
    """A number that is not negative; of an array with a number for each layer the largest."""
    value = header.entries.get(key)
    if isinstance(value, GGUFArray):
        value = max((n for n in value.numbers if isinstance(n, int)), default=None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(header: RawHeader, key: str) -> str | None:
    value = header.entries.get(key)
    return value if isinstance(value, str) and value else None


def _quantization(headers: list[RawHeader]) -> str | None:
    file_type = _integer(headers[0], "general.file_type")
    if file_type is not None and file_type & ~_GUESSED_FILE_TYPE in FILE_TYPES:
        return FILE_TYPES[file_type & ~_GUESSED_FILE_TYPE]
    # By elements and not by tensors: norms and biases are many but small, and F32 in every model.
    elements: Counter[int] = Counter()
    for header in headers:
        for tensor in header.tensors:
            elements[tensor.type] += tensor.n_elements
    if not elements:
        return None
    dominant = elements.most_common(1)[0][0]
    return TENSOR_TYPES[dominant][0] if dominant in TENSOR_TYPES else None


def _fingerprint(parts: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        header_bytes = _raw_header(part).size_bytes
        file, size_bytes = open_model_file(part)
        try:
            with file:
                digest.update(size_bytes.to_bytes(8, "little"))
                digest.update(file.read(header_bytes))
                middle = header_bytes + (size_bytes - header_bytes) // 2
                for offset in (header_bytes, middle, max(header_bytes, size_bytes - _SAMPLE_BYTES)):
                    file.seek(offset)
                    digest.update(file.read(_SAMPLE_BYTES))
        except OSError as error:
            raise _read_error(part, error) from error
    return digest.hexdigest()
