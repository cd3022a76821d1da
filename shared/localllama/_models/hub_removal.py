"""Removing a model from the cache of huggingface_hub, which other programs share.

STORE/hub/OWNER--REPO.json says which of a repository's files localllama has fetched; the others are somebody else's.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllama._whole_file import write_json
from localllama.errors import MissingDependencyError, ModelError, ModelNotFoundError

from .hub import is_model_name, locate_hub_model
from .hub_cache import cached_files, hub_cache
from .projectors import is_projector_name
from .reference import ModelReference
from .splits import split_parts
from .store import store_directory

__all__ = ["HubFiles", "hub_files", "note_fetched", "remove_hub_files"]


@dataclass(frozen=True)
class HubFiles:
    """What belongs to a model in the cache.

    Attributes:
        repo: The repository.
        names: The files in it.
        paths: The links, in every cached revision.
        blobs: What they point to, and nothing else does.
        revisions: The commits of the repository, if nothing is left of it afterwards; else empty.
        size_bytes: What removing them frees.
        is_ours: Whether localllama fetched all of it.
    """

    repo: str
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    blobs: tuple[Path, ...]
    revisions: tuple[str, ...]
    size_bytes: int
    is_ours: bool


def note_fetched(repo: str, names: Iterable[str]) -> None:
    """Remember that localllama fetched these files."""
    # Where the store cannot be written, the files count as somebody else's, which is the safe side.
    with contextlib.suppress(OSError):
        _write_noted(repo, _noted(repo) | set(names))


def hub_files(reference: ModelReference, *, is_forced: bool) -> HubFiles:
    """What `models rm` would remove: the model, and its projector if no other model of the repository is here.

    Raises:
        ModelNotFoundError: The model is not in the cache.
        ModelError: The cache cannot be read.
    """
    assert reference.repo is not None
    model = locate_hub_model(reference)
    snapshot, names = cached_files(reference)
    if model is None or snapshot is None:
        raise ModelNotFoundError(f"{reference.text} is not in the cache of Hugging Face, {hub_cache()}.")
    noted = _noted(reference.repo)
    wanted = set(split_parts(model.relative_to(snapshot).as_posix()))
    if not any(is_model_name(name) and name not in wanted for name in names):
        wanted |= {name for name in names if is_projector_name(name) and (is_forced or name in noted)}
    links: list[tuple[Path, Path]] = []
    kept_blobs: set[Path] = set()
    repository = _scanned(reference.repo)
    for revision in repository.revisions:
        for file in revision.files:
            if file.file_path.relative_to(revision.snapshot_path).as_posix() in wanted:
                links.append((file.file_path, file.blob_path))
            else:
                kept_blobs.add(file.blob_path)
    blobs = tuple(sorted({blob for _, blob in links} - kept_blobs))
    return HubFiles(
        repo=reference.repo,
        names=tuple(sorted(wanted)),
        paths=tuple(link for link, _ in links),
        blobs=blobs,
        revisions=() if kept_blobs else tuple(revision.commit_hash for revision in repository.revisions),
        size_bytes=sum(blob.stat().st_size for blob in blobs if blob.exists()),
        is_ours=wanted <= noted,
    )


def remove_hub_files(files: HubFiles) -> None:
    """Remove them.

    Raises:
        ModelError: One cannot be removed.
    """
    try:
        if files.revisions:
            _scan().delete_revisions(*files.revisions).execute()
        for path in (*files.paths, *files.blobs):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(f"{error.filename} cannot be removed: {error.strerror or error}.") from error
    with contextlib.suppress(OSError):  # a note too many says no more than that localllama fetched it once
        _write_noted(files.repo, _noted(files.repo) - set(files.names))


def _scan() -> Any:
    try:
        from huggingface_hub import scan_cache_dir
    except ImportError as error:
        raise MissingDependencyError(
            "Removing from the cache of Hugging Face needs the package huggingface_hub.",
            hint="pip install huggingface_hub",
        ) from error
    return scan_cache_dir(hub_cache())


def _scanned(repo: str) -> Any:
    scan = _scan()
    for found in scan.repos:
        if found.repo_type == "model" and found.repo_id == repo:
            return found
    reasons = "; ".join(str(warning) for warning in scan.warnings)
    raise ModelError(
        f"The cache of {repo} in {hub_cache()} is damaged: {reasons or 'it is not listed'}.",
        hint="Remove its directory there by hand.",
    )


def _record_path(repo: str) -> Path:
    return store_directory() / "hub" / f"{repo.replace('/', '--')}.json"


def _noted(repo: str) -> set[str]:
    try:
        value = json.loads(_record_path(repo).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {name for name in value if isinstance(name, str)} if isinstance(value, list) else set()


def _write_noted(repo: str, names: set[str]) -> None:
    path = _record_path(repo)
    if not names:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_json(path, sorted(names))
