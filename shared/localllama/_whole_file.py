"""Writing a small file so that every reader sees the old one or the new one, whole, and only this user sees either."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["write_json"]


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Replace a file by a JSON document, in one step.

    Args:
        path: The file; its directory exists.
        value: The document.
        indent: For files that people edit.

    Raises:
        OSError: It cannot be written; then the old one is as it was, and nothing is left beside it.
    """
    # In ASCII where nobody reads it: the path of a file need not be Unicode.
    text = json.dumps(value, indent=indent, ensure_ascii=indent is None) + "\n"
    # Made with mode 0600: an address may have a token in it.
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
