"""What programs said of themselves, kept on disk, so that a fresh process does not start each of them to ask again.

One JSON file in the cache directory, for this user alone, replaced as a whole. It is never needed: one that is damaged, of
another user, too large or not to be read counts as empty, and one that cannot be written is left unwritten. Two processes
that write at once lose an answer, which is then asked for again.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from localllama._whole_file import write_json

from .cache_directory import cache_directory

__all__ = ["FileStamp", "command_stamp", "forget", "forget_question", "remember", "remembered"]

FileStamp = tuple[str, int, int]
"""A part of a command line; if it is the path of a file, its size and its modification time in nanoseconds, else -1."""

_FILE_NAME = "runtimes.json"
_MOST_ENTRIES = 64
_MOST_BYTES = 1 << 20
# What reads the answers: another edition of it may read them in another way.
_READERS = ("probe.py", "one_shot_flags.py", "report.py")


def command_stamp(command: Sequence[str]) -> tuple[FileStamp, ...]:
    """What tells whether a program is still the same."""
    return tuple(_stamp(part) for part in command)


def _stamp(part: str) -> FileStamp:
    try:
        status = Path(part).stat()
    except (OSError, ValueError):
        return part, -1, -1
    return part, status.st_size, status.st_mtime_ns


def remembered(question: str, command: Sequence[str], *, most_seconds: float | None = None) -> Any:
    """The answer that is kept; None if there is none.

    Args:
        question: What was asked.
        command: How the program is called.
        most_seconds: How old the answer may be; None: it holds as long as the program is the same.
    """
    entry = _entries().get(_key(question, command))
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], int | float):  # noqa: PLR2004
        return None
    if most_seconds is not None and not 0 <= time.time() - entry[0] <= most_seconds:
        return None
    return entry[1]


def remember(question: str, command: Sequence[str], answer: Any) -> None:
    """Keep an answer, any value of JSON but None."""
    entries = _entries()
    key = _key(question, command)
    entries.pop(key, None)
    entries[key] = [time.time(), answer]
    _write(dict(list(entries.items())[-_MOST_ENTRIES:]))


def forget(command: Sequence[str]) -> None:
    """Drop every answer of a program."""
    end = _key("", command)
    _drop(lambda key: key.endswith(end))


def forget_question(begin: str) -> None:
    """Drop the answers of all programs to the questions that begin so."""
    _drop(lambda key: key.startswith(begin))


def _drop(is_dropped: Callable[[str], bool]) -> None:
    entries = _entries()
    kept = {key: entry for key, entry in entries.items() if not is_dropped(key)}
    if len(kept) < len(entries):
        _write(kept)


def _key(question: str, command: Sequence[str]) -> str:
    readers = command_stamp([str(Path(__file__).with_name(name)) for name in _READERS])
    return question + json.dumps([command_stamp(command), readers])


def _entries() -> dict[str, Any]:
    try:
        with (cache_directory(os.environ) / _FILE_NAME).open("rb") as file:
            status = os.fstat(file.fileno())
            is_ours = os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)
            document = json.loads(file.read(_MOST_BYTES)) if is_ours else None
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _write(entries: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        write_json(cache_directory(os.environ) / _FILE_NAME, entries)
