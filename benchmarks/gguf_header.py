"""Time to read a GGUF header with 150k tokens and 300k merges: ours, and the `gguf` package's reader.

    python benchmarks/gguf_header.py [MODEL.gguf]

Without an argument the file is made up in a temporary directory. Each reader runs in this one process, ours three
times with its cache emptied in between, the package once (it takes seconds). Prints both times and their ratio.
"""

from __future__ import annotations

import random
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gguf

from localllama._models.files import open_model_file
from localllama._models.gguf_reading import RawHeader, read_raw_header

N_TOKENS = 150_000
N_MERGES = 300_000
LETTERS = b"abcdefghijklmnopqrstuvwxyz"


def main() -> None:
    """Run both readers on one file and print the comparison."""
    if len(sys.argv) > 1:
        compare(sys.argv[1])
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "vocabulary.gguf"
        path.write_bytes(header_with_vocabulary())
        compare(str(path))


def compare(path: str) -> None:
    """Print the times for `path`."""
    ours = min(timed(lambda: read_ours(path)) for _ in range(3))
    theirs = timed(lambda: gguf.GGUFReader(path))
    print(f"localllama  {ours:8.4f} s")
    print(f"gguf        {theirs:8.4f} s")
    print(f"ratio       {theirs / ours:8.0f}")


def read_ours(path: str) -> RawHeader:
    """Read without the cache that `read_gguf_header` has."""
    file, size_bytes = open_model_file(path)
    with file:
        return read_raw_header(file, size_bytes)


def timed(call: Callable[[], object]) -> float:
    """Seconds that `call` takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def header_with_vocabulary() -> bytes:
    """A GGUF file with a vocabulary of real size and no tensors."""
    chance = random.Random(1)

    def words(count: int, longest: int) -> list[bytes]:
        return [bytes(chance.choices(LETTERS, k=chance.randint(1, longest))) for _ in range(count)]

    entries = [
        text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"),
        array(b"tokenizer.ggml.tokens", 8, N_TOKENS, b"".join(map(text, words(N_TOKENS, 12)))),
        array(b"tokenizer.ggml.token_type", 5, N_TOKENS, struct.pack("<i", 1) * N_TOKENS),
        array(b"tokenizer.ggml.merges", 8, N_MERGES, b"".join(map(text, words(N_MERGES, 16)))),
    ]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries)


def text(value: bytes) -> bytes:
    """A GGUF string."""
    return struct.pack("<Q", len(value)) + value


def array(key: bytes, element_type: int, length: int, elements: bytes) -> bytes:
    """A metadata entry whose value is an array."""
    return text(key) + struct.pack("<IIQ", 9, element_type, length) + elements


if __name__ == "__main__":
    main()
