"""A file of Hugging Face as far as it has come, kept where the library would throw it away.

    CACHE/models--OWNER--REPO/blobs/SHA256.localllama.incomplete    what has come so far

huggingface_hub goes on within one call; what an error, Ctrl-C or a kill leaves it fetches anew (since 2.x). With its own
function for bytes, under its own lock, the file comes to where the library looks for it: it is found there, and linked.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

__all__ = ["HubPart"]

_LARGEST_BYTES = 50_000_000_000  # above it the hub gives files by Xet only
_XET_WANTED = "HF_XET_HIGH_PERFORMANCE"


class HubPart:
    """One file on its way into the cache; `folder` is the repository's directory there."""

    def __init__(self, folder: Path, facts: Any) -> None:
        self._facts = facts
        self._blob = folder / "blobs" / facts.etag
        self._part = folder / "blobs" / f"{facts.etag}.localllama.incomplete"
        self._lock = folder.parent / ".locks" / folder.name / f"{facts.etag}.lock"

    @property
    def size_bytes(self) -> int:
        """How much has come."""
        return self._part.stat().st_size if self._part.is_file() else 0

    def is_left_to_library(self) -> bool:
        """Whether the library has a better way: a copy of its own, Xet where it was asked for or is the only one."""
        xet = getattr(self._facts, "xet_file_data", None)
        shared = xet is not None and (self._blob.parents[2] / "blobs" / xet.file_hash[:2] / xet.file_hash).exists()
        size_bytes = self._facts.size
        return shared or size_bytes is None or size_bytes > _LARGEST_BYTES or bool(os.environ.get(_XET_WANTED))

    def complete(self, address: str, **options: Any) -> None:
        """Fetch what is missing; raises what huggingface_hub raises, and what has come stays."""
        library = importlib.import_module("huggingface_hub.utils")
        http_get = importlib.import_module("huggingface_hub.file_download").http_get
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with library.WeakFileLock(self._lock):
            if self._blob.exists():
                return
            self._blob.parent.mkdir(parents=True, exist_ok=True)
            if self.size_bytes > self._facts.size:
                self._part.unlink()
            with self._part.open("ab") as file:
                options |= {"resume_size": self.size_bytes, "expected_size": self._facts.size}
                http_get(address, file, headers=library.build_hf_headers(), **options)
            os.replace(self._part, self._blob)
