"""Removing models: what localllama itself has fetched; files of other programs only where the user insists."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localllama.errors import ModelError, ModelNotFoundError

from .catalog import catalog_entry
from .own_models import own_model
from .reference import ModelReference, parse_reference
from .store import store_directory

__all__ = ["Removal", "plan_removal"]

_LOCK = ".lock"


@dataclass(frozen=True)
class Removal:
    """What would be removed.

    Attributes:
        files: The files, for people.
        size_bytes: What this frees.
        remove: Does it. A server that runs the model is not disturbed on POSIX.
    """

    files: tuple[Path, ...]
    size_bytes: int
    remove: Callable[[], None]


def plan_removal(reference: str, *, is_forced: bool = False) -> Removal:
    """Find out what removing a model would remove, and whether it may be removed.

    Args:
        reference: The model.
        is_forced: Also what another program has fetched into the cache of Hugging Face.

    Raises:
        ModelNotFoundError: It is not on this machine.
        ModelError: It is a file of somebody else.
    """
    parsed = parse_reference(reference)
    if parsed.kind == "hub":
        return _plan_of_hub(parsed, is_forced=is_forced)
    if parsed.kind in ("path", "package"):
        owner = "a file of yours" if parsed.kind == "path" else "part of an installed package"
        is_name = own_model(reference) is not None
        way = f"localllama models add {reference} --remove" if is_name else "Remove it with what brought it."
        raise ModelError(f"{reference} is {owner}, so localllama does not remove it.", hint=way)
    directory = _store_directory_of(parsed)
    files = tuple(sorted(path for path in directory.rglob("*") if path.is_file() and path.name != _LOCK))
    if not files:
        raise ModelNotFoundError(
            f"{reference} is not in the store {store_directory()}.",
            hint="If an installed package brings it, uninstall that: localllama models where says where it is.",
        )
    return Removal(files, sum(path.stat().st_size for path in files), lambda: _empty(directory))


def _store_directory_of(parsed: ModelReference) -> Path:
    if parsed.kind == "catalog":
        assert parsed.name is not None
        return store_directory() / catalog_entry(parsed.name).name
    from .url import url_directory

    return url_directory(parsed)


def _empty(directory: Path) -> None:
    from filelock import FileLock

    # Whoever fetches it at this moment is waited for.
    with FileLock(directory / _LOCK, mode=0o600):
        try:
            for path in directory.iterdir():
                if path.name != _LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise ModelError(f"{directory} cannot be emptied: {error.strerror or error}.") from error


def _plan_of_hub(parsed: ModelReference, *, is_forced: bool) -> Removal:
    from .hub_removal import hub_files, remove_hub_files

    files = hub_files(parsed, is_forced=is_forced)
    if not (files.is_ours or is_forced):
        raise ModelError(
            f"{parsed.text} is in the cache of Hugging Face, and another program may have fetched it: localllama did not.",
            hint=f"Remove it all the same: localllama models rm --force {parsed.text}",
        )
    return Removal(files.paths, files.size_bytes, lambda: remove_hub_files(files))
