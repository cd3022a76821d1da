"""The names of split models: NAME-00001-of-00003.gguf and so on, as llama.cpp's gguf-split writes them."""

from __future__ import annotations

import re

__all__ = ["split_parts", "split_position", "split_stem"]

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE | re.DOTALL)


def split_position(name: str) -> tuple[int, int]:
    """Which part of how many a file is, by its name; (1, 1) for a model in one file."""
    match = _SPLIT.fullmatch(name)
    return (int(match["number"]), int(match["count"])) if match and int(match["count"]) > 1 else (1, 1)


def split_stem(name: str) -> str:
    """The name without ".gguf" and the number of a part."""
    match = _SPLIT.fullmatch(name)
    return match["stem"] if match else name[: -len(".gguf")] if name.lower().endswith(".gguf") else name


def split_parts(name: str) -> tuple[str, ...]:
    """The names of all parts, in order, given any of them; the name itself for a model in one file."""
    _, count = split_position(name)
    match = _SPLIT.fullmatch(name)
    if match is None or count == 1:
        return (name,)
    return tuple(f"{match['stem']}-{number:05d}-of-{count:05d}{match['suffix']}" for number in range(1, count + 1))
