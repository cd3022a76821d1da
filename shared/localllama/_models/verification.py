"""Reads a model's files once more and compares them with the checksums that came with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from localllama.errors import ModelCorruptError, ModelNotFoundError

from .catalog import catalog_entry
from .files import sha256_of
from .gguf import read_gguf_header
from .projectors import locate_projector
from .reference import ModelReference, parse_reference
from .store import locate_model

__all__ = ["CheckedFile", "verify_model"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CheckedFile:
    """A file that is as it should be.

    Attributes:
        path: The file.
        sha256: The checksum that it has and should have; None where none is known, so that header and sizes alone were
            checked.
    """

    path: Path
    sha256: str | None


def verify_model(reference: str) -> list[CheckedFile]:
    """Check every file of a model that is on this machine, its projector too.

    The checksum is the one of the catalog, the one in the address or else of what came from there, or the one under which
    Hugging Face keeps the file; a file of the user's has none.

    Raises:
        ModelNotFoundError: The model is not on this machine.
        ModelCorruptError: A file is damaged; names it.
    """
    path = locate_model(reference)
    if path is None:
        raise ModelNotFoundError(
            f"{reference} is not on this machine.", hint=f"Fetch it: localllama models pull {reference}"
        )
    parsed = parse_reference(reference)
    parts = [Path(part) for part in read_gguf_header(path).parts]
    projector = locate_projector(reference, path)
    checked = []
    for file in [*parts, *([projector] if projector else [])]:
        expected = _expected(parsed, file)
        if expected is not None:
            actual = sha256_of(file)
            if actual != expected:
                raise ModelCorruptError(
                    f"{file} has the SHA-256 {actual}, expected {expected}.",
                    hint=f"Fetch it again: localllama models rm {reference}, then localllama models pull {reference}",
                )
        checked.append(CheckedFile(file, expected))
    return checked


def _expected(parsed: ModelReference, file: Path) -> str | None:
    if parsed.kind == "catalog":
        assert parsed.name is not None
        return catalog_entry(parsed.name).sha256
    if parsed.kind == "url":
        from .url import recorded_sha256

        return recorded_sha256(file)
    if parsed.kind == "hub" and file.is_symlink():
        # The cache's files are links to blobs, and a large one is named by its SHA-256. The first hop is the name.
        name = file.readlink().name
        return name if _SHA256.fullmatch(name) else None
    return None
