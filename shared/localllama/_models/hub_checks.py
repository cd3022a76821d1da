"""Compares files in the cache of huggingface_hub with their checksums: the library compares sizes and no more.

From before a file is fetched until it has been compared, a note lies beside the library's own lock:

    CACHE/.locks/models--OWNER--REPO/FILE.unchecked     the SHA-256 that the file must have

So what a killed process left is not taken for a model; whoever finds the file and its note compares them first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from localllama.errors import ModelCorruptError

from .files import sha256_of

__all__ = ["HubFile"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubFile:
    """One file of a repository, in one cache."""

    def __init__(self, cache: Path, repo: str, name: str) -> None:
        self._repo = repo
        self._name = name
        self._folder = f"models--{repo.replace('/', '--')}"
        self._cache = cache
        self._note = cache / ".locks" / self._folder / f"{quote(name, safe='')}.unchecked"

    @property
    def folder(self) -> Path:
        """Where the cache keeps the repository."""
        return self._cache / self._folder

    def expect(self, sha256: str) -> None:
        """Note that the file is to be compared; a checksum of another kind, that of a small file, is not noted."""
        if _SHA256.fullmatch(sha256):
            self._note.parent.mkdir(parents=True, exist_ok=True)
            self._note.write_text(sha256, encoding="ascii")

    def is_good(self, path: Path) -> bool:
        """Whether the file may be used, where nobody asks the hub; a false one is removed."""
        try:
            self.check(path)
        except ModelCorruptError:
            return False
        return True

    def check(self, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        """Compare the file with its checksum, if a note says that it is to be done; `on_bytes` hears how far it is.

        Raises:
            ModelCorruptError: It is another file, and is removed.
        """
        try:
            noted = self._note.read_text(encoding="ascii")
        except FileNotFoundError:
            return
        # A link is named after what it points to, which is right even if the repository has changed since it was asked.
        blob = path.parent / path.readlink() if path.is_symlink() else path
        expected = blob.name if path.is_symlink() else noted
        actual = sha256_of(path, on_bytes)
        if actual != expected:
            stored = blob.resolve()  # beyond the blob, if repositories share it
            for wrong in dict.fromkeys((path, blob, stored)):
                wrong.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        if actual != expected:
            raise ModelCorruptError(
                f"{self._name} of {self._repo} came with the SHA-256 {actual}, not {expected} as the repository says.",
                hint="It was removed; fetch it again. If it comes wrong again, look at HF_ENDPOINT or a proxy between.",
            )
