"""One file of a repository on Hugging Face: looked at first, then fetched by huggingface_hub, then checked.

The library compares sizes and no more, so a file with other bytes in it would stay in the cache for good: the checksum is
ours to compare.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from localllama.errors import ModelCorruptError, ModelNotFoundError

from .files import sha256_of
from .hub_errors import CACHE_REMEDY, TIMEOUT_SECONDS, ask
from .progress import FetchProgress, ProgressCallback
from .reference import ModelReference
from .store import require_space

__all__ = ["download_file", "list_repository"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN_NAME = re.compile(r"[\w-][\w.-]*")


def list_repository(hub: Any, reference: ModelReference, on_progress: ProgressCallback | None) -> list[str]:
    """The names of all files of the repository; one that leads out of it, by the rules of any system, is left out.

    Not `list_repo_files`: a hub that says "busy" keeps it waiting for as long as the hub likes.

    Raises:
        ModelNotFoundError: No such repository, no access, or no network.
    """
    listing = ask(reference, lambda: hub.model_info(reference.repo, timeout=TIMEOUT_SECONDS), on_progress)
    return [file.rfilename for file in listing.siblings or () if _is_inside(file.rfilename)]


def _is_inside(name: str) -> bool:
    return not (name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"))


def download_file(hub: Any, reference: ModelReference, name: str, on_progress: ProgressCallback | None) -> Path | None:
    """Fetch one file into the cache of huggingface_hub, where it keeps its checksum's name; None if there is no such file.

    Raises:
        ModelNotFoundError: No such repository, no access, or no network.
        ModelCorruptError: What came has another checksum than the repository gives; it is removed.
        ModelError: The disk has no room, or cannot be written.
    """
    from huggingface_hub.errors import EntryNotFoundError

    address = hub.hf_hub_url(reference.repo, name)
    try:
        facts = ask(
            reference,
            lambda: hub.get_hf_file_metadata(address, timeout=hub.constants.HF_HUB_ETAG_TIMEOUT),
            on_progress,
            passing=(EntryNotFoundError,),
        )
    except EntryNotFoundError:
        return None
    _require_plain_names(reference, facts)
    folder = Path(hub.constants.HF_HUB_CACHE) / hub.file_download.repo_folder_name(
        repo_id=reference.repo, repo_type="model"
    )
    if facts.size is not None and not (folder / "blobs" / facts.etag).exists():
        _require_room(folder, facts.size)

    options: dict[str, Any] = {}
    # Older releases of the library cannot be given a progress bar; they show their own.
    if on_progress is not None and "tqdm_class" in inspect.signature(hub.hf_hub_download).parameters:
        options["tqdm_class"] = _progress_bar_class(reference.text, name, on_progress)
    path = Path(ask(reference, lambda: hub.hf_hub_download(reference.repo, name, **options), on_progress))
    _require_checksum(reference, name, path, facts.etag)
    return path


def _require_plain_names(reference: ModelReference, facts: Any) -> None:
    """The library makes file names of these two, and HF_ENDPOINT may be anybody's."""
    for value in (facts.etag, facts.commit_hash):
        if value is not None and not _PLAIN_NAME.fullmatch(value):
            raise ModelNotFoundError(
                f"{reference.text!r} could not be fetched from Hugging Face: it answered with {value!r}, which is no "
                "checksum.",
                hint="Check HF_ENDPOINT.",
            )


def _require_room(folder: Path, size_bytes: int) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    require_space(existing, size_bytes, remedy=CACHE_REMEDY)


def _require_checksum(reference: ModelReference, name: str, path: Path, etag: str) -> None:
    # A link is named after what it points to, which is right even if the repository has changed since we asked.
    blob = path.parent / path.readlink() if path.is_symlink() else path
    expected = blob.name if path.is_symlink() else etag
    if not _SHA256.fullmatch(expected):
        return  # a small file that lies in Git itself
    actual = sha256_of(path)
    if actual == expected:
        return
    stored = blob.resolve()  # beyond the blob, if repositories share it
    for wrong in dict.fromkeys((path, blob, stored)):
        wrong.unlink(missing_ok=True)
    raise ModelCorruptError(
        f"{name} of {reference.repo} came with the SHA-256 {actual}, not {expected} as the repository says.",
        hint="It was removed; fetch it again. If it comes wrong again, look at HF_ENDPOINT or a proxy between.",
    )


def _progress_bar_class(reference: str, name: str, on_progress: ProgressCallback) -> type:
    tqdm: Any = importlib.import_module("huggingface_hub.utils").tqdm

    class ReportingBar(tqdm):  # type: ignore[misc]
        """Draws nothing and reports instead."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})
            self.update(0)

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            total = int(self.total) if self.total else None
            on_progress(FetchProgress(reference, f"Hugging Face ({name})", int(self.n), total))

    return ReportingBar
