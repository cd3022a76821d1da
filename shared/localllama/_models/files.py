"""Opens model files, and says in a user's words why one cannot be opened."""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from localllama.errors import ModelError, ModelNotFoundError

from .memo import FileKey

__all__ = ["file_key", "list_model_files", "open_model_file", "sha256_of"]

_MOST_NAMES = 8
_BLOCK_BYTES = 4 << 20


def file_key(path: str) -> FileKey:
    """What tells whether the file at `path` is still the same.

    Raises:
        ModelNotFoundError: There is no regular file.
        ModelError: It cannot be reached.
    """
    status = _regular_status(path)
    return os.path.realpath(path), status.st_size, status.st_mtime_ns


def open_model_file(path: str) -> tuple[BinaryIO, int]:
    """Open a model file for reading, without ever blocking on a FIFO or waking a device.

    Returns:
        The unbuffered binary file and its size in bytes.

    Raises:
        ModelNotFoundError: There is no regular file.
        ModelError: It cannot be read.
    """
    _regular_status(path)
    # O_NONBLOCK: should the file be replaced by a FIFO just now, opening it must not wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise _open_error(path, error) from error
    file = os.fdopen(descriptor, "rb", buffering=0)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise _wrong_kind(path, status.st_mode)
    return file, status.st_size


def list_model_files(directory: str) -> list[str]:
    """Names of the GGUF files in a directory; empty if it cannot be read."""
    try:
        return sorted(name for name in os.listdir(directory) if name.lower().endswith(".gguf"))  # noqa: PTH208
    except OSError:
        return []


def sha256_of(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file, in hexadecimal digits; `on_bytes` is called with the size of each block that was read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return digest.hexdigest()


def _regular_status(path: str) -> os.stat_result:
    try:
        status = os.stat(path)  # noqa: PTH116
    except ValueError as error:
        raise ModelNotFoundError(
            f"The model path {path!r} cannot be a path: {error}.", hint="Give the path of a GGUF file."
        ) from error
    except OSError as error:
        raise _open_error(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise _wrong_kind(path, status.st_mode)
    return status


def _open_error(path: str, error: OSError) -> ModelError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ModelNotFoundError(f"There is no model file {path!r}.", hint=_near_names_hint(path))
    if isinstance(error, PermissionError):
        return ModelError(
            f"The model file {path!r} may not be read by this user.",
            hint=f"Allow it: chmod u+r {path!r}, and x on the directories above it.",
        )
    return ModelError(
        f"The model file {path!r} cannot be opened: {error.strerror or error}.", hint="Check the path and the disk."
    )


def _wrong_kind(path: str, mode: int) -> ModelNotFoundError:
    if stat.S_ISDIR(mode):
        names = list_model_files(path)
        hint = f"Give one of its GGUF files: {_listed(names)}." if names else "Give the path of a GGUF file."
        return ModelNotFoundError(f"{path!r} is a directory, not a model file.", hint=hint)
    return ModelNotFoundError(
        f"{path!r} is a FIFO, a socket or a device, not a model file.", hint="Give the path of a GGUF file."
    )


def _near_names_hint(path: str) -> str:
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):  # noqa: PTH112
        return f"The directory {directory!r} does not exist either: check the path."
    names = list_model_files(directory)
    near = difflib.get_close_matches(os.path.basename(path), names, n=3, cutoff=0.5)  # noqa: PTH119
    if near:
        return f"Did you mean {' or '.join(repr(name) for name in near)}, in the same directory?"
    if names:
        return f"GGUF files in that directory: {_listed(names)}."
    return "There is no GGUF file in that directory: check the path."


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")
