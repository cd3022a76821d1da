"""Removing what localllama itself has fetched; files of other programs are never touched."""

from __future__ import annotations

import shutil
from pathlib import Path

from localllama.errors import ModelError, ModelNotFoundError

from .catalog import catalog_entry
from .reference import parse_reference
from .store import store_directory

__all__ = ["remove_model", "stored_bytes"]


def stored_bytes(reference: str) -> int:
    """How much disk the model takes in our store.

    Raises:
        ModelNotFoundError: It is not in our store.
        ModelError: It is a file of somebody else.
    """
    return sum(path.stat().st_size for path in _stored_directory(reference).rglob("*") if path.is_file())


def remove_model(reference: str) -> int:
    """Remove the model from our store; returns the bytes that this frees. A server that runs it is not disturbed on POSIX.

    Raises:
        ModelNotFoundError: It is not in our store.
        ModelError: It is a file of somebody else, or it cannot be removed.
    """
    directory = _stored_directory(reference)
    size_bytes = stored_bytes(reference)
    from filelock import FileLock

    # Whoever fetches it at this moment is waited for.
    with FileLock(directory / ".lock", mode=0o600):
        try:
            for path in directory.iterdir():
                if path.name != ".lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise ModelError(f"{directory} cannot be emptied: {error.strerror or error}.") from error
    return size_bytes


def _stored_directory(reference: str) -> Path:
    parsed = parse_reference(reference)
    if parsed.kind == "catalog":
        assert parsed.name is not None
        directory = store_directory() / catalog_entry(parsed.name).name
        if directory.is_dir() and any(path.name != ".lock" for path in directory.iterdir()):
            return directory
        raise ModelNotFoundError(
            f"{reference} is not in the store {store_directory()}.",
            hint="If an installed package brings it, uninstall that: localllama models where says where it is.",
        )
    owner = {
        "path": "a file of yours",
        "package": "part of an installed package",
        "hub": "in the cache of Hugging Face, which other programs share",
    }.get(parsed.kind, "not in the store")
    remedy = "Remove it there: hf cache rm" if parsed.kind == "hub" else "Remove it with what brought it."
    raise ModelError(f"{reference} is {owner}, so localllama does not remove it.", hint=remedy)
