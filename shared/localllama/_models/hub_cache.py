"""What lies in the cache of huggingface_hub, read without the library, whose import takes longer than the look."""

from __future__ import annotations

import os
from pathlib import Path

from .reference import ModelReference

__all__ = ["cached_files", "cached_repositories", "hub_cache"]


def hub_cache() -> Path:
    """The cache's directory, by the rules of huggingface_hub's constants.py."""
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if cache is None:
        general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        cache = os.path.join(os.environ.get("HF_HOME") or os.path.join(general, "huggingface"), "hub")
    return Path(os.path.expandvars(os.path.expanduser(cache))).absolute()  # noqa: PTH111


def cached_files(reference: ModelReference) -> tuple[Path | None, list[str]]:
    """The directory with the cached files of the repository's main branch, None if there is none, and their names."""
    assert reference.repo is not None
    snapshot = _cached_snapshot(reference.repo)
    if snapshot is None:
        return None, []
    return snapshot, sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())


def cached_repositories() -> set[str]:
    """The names of the repositories of models."""
    return {path.name.removeprefix("models--").replace("--", "/", 1) for path in hub_cache().glob("models--*--*")}


def _cached_snapshot(repo: str) -> Path | None:
    folder = hub_cache() / f"models--{repo.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if revision and snapshot.is_dir() else None
