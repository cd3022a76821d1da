"""One file of a repository on Hugging Face: looked at first, then fetched by huggingface_hub, then checked."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localllama.errors import ModelNotFoundError

from .hub_checks import HubFile
from .hub_errors import CACHE_REMEDY, TIMEOUT_SECONDS, ask
from .hub_part import HubPart
from .names import is_safe_name
from .progress import FetchProgress, ProgressCallback
from .reference import ModelReference
from .store import require_space

__all__ = ["download_file", "list_repository"]

_PLAIN_NAME = re.compile(r"[\w-][\w.-]*")


def list_repository(hub: Any, reference: ModelReference, on_progress: ProgressCallback | None) -> list[str]:
    """The names of all files of the repository; one that leads out of it, by the rules of any system, is left out.

    Not `list_repo_files`: a hub that says "busy" keeps it waiting for as long as the hub likes.

    Raises:
        ModelNotFoundError: No such repository, no access, or no network.
    """
    listing = ask(reference, lambda: hub.model_info(reference.repo, timeout=TIMEOUT_SECONDS), on_progress)
    return [file.rfilename for file in listing.siblings or () if is_safe_name(file.rfilename)]


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
    assert reference.repo is not None
    file = HubFile(Path(hub.constants.HF_HUB_CACHE), reference.repo, name)
    part = HubPart(file.folder, facts)
    is_here = (file.folder / "snapshots" / facts.commit_hash / name).exists()
    if facts.size is not None and not is_here and not (file.folder / "blobs" / facts.etag).exists():
        _require_room(file.folder, facts.size - part.size_bytes)

    options: dict[str, Any] = {}
    # Older releases of the library cannot be given a progress bar; they show their own.
    if on_progress is not None and "tqdm_class" in inspect.signature(hub.hf_hub_download).parameters:
        options["tqdm_class"] = _progress_bar_class(reference.text, name, on_progress)
    if not is_here:
        ask(reference, lambda: file.expect(facts.etag))
        if not part.is_left_to_library():
            # Of this commit, so that a file that changes meanwhile is not mixed with what has come.
            bytes_address = hub.hf_hub_url(reference.repo, name, revision=facts.commit_hash)
            ask(reference, lambda: part.complete(bytes_address, **options), on_progress)
    path = Path(ask(reference, lambda: hub.hf_hub_download(reference.repo, name, **options), on_progress))
    file.check(path, _reporting(reference.text, name, path.stat().st_size, on_progress))
    return path


def _require_plain_names(reference: ModelReference, facts: Any) -> None:
    """The library makes file names of these two, and HF_ENDPOINT may be anybody's."""
    for value in (facts.etag, facts.commit_hash):
        if value is None or not _PLAIN_NAME.fullmatch(value):
            raise ModelNotFoundError(
                f"{reference.text!r} could not be fetched from Hugging Face: it answered with {value!r}, which is no "
                "checksum.",
                hint="Check HF_ENDPOINT; a proxy between may have answered in its place.",
            )


def _require_room(folder: Path, size_bytes: int) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    require_space(existing, size_bytes, remedy=CACHE_REMEDY)


def _reporting(
    reference: str, name: str, total_bytes: int, on_progress: ProgressCallback | None
) -> Callable[[int], None] | None:
    if on_progress is None:
        return None
    done_bytes = 0

    def report(n_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += n_bytes
        on_progress(FetchProgress(reference, f"Hugging Face ({name}, checksum)", done_bytes, total_bytes))

    return report


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
