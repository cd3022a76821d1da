"""Names that others give: of files in a repository, an address or a package. None may lead out of its directory."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from .splits import split_stem

__all__ = ["is_safe_name", "nearest_first"]

_LAST_PIECE = re.compile(r"[-./]")


def is_safe_name(name: str) -> bool:
    """Whether a relative name with "/" stays below the directory that it is put in, on any platform.

    False for absolute names, "." and ".." and empty parts, backslashes, drives and streams (":"), and control characters.
    """
    has_bad_character = any(character in '\\:"<>|?*' or ord(character) < ord(" ") for character in name)
    return not has_bad_character and all(part not in ("", ".", "..") for part in name.split("/"))


def nearest_first(wanted: str | None, names: Iterable[str]) -> Sequence[str]:
    """The names, the ones most like `wanted` first; as they come where nothing is wanted.

    A quantization is compared with the last piece of a name, the "Q4_K_M" of "m-Q4_K_M.gguf".
    """
    names = list(names)
    if not wanted:
        return names
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted.lower())

    def likeness(name: str) -> float:
        ratios = []
        for text in (name.lower(), _LAST_PIECE.split(split_stem(name).lower())[-1]):
            matcher.set_seq1(text)
            ratios.append(matcher.ratio())
        return max(ratios)

    return sorted(names, key=likeness, reverse=True)
