"""Where this package keeps what it can find out again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["cache_directory"]

_VARIABLE = "LOCALLLAMA_CACHE"
_OWN_MODE = 0o700


def cache_directory(environ: Mapping[str, str]) -> Path:
    """`LOCALLLAMA_CACHE`, else the user's cache directory; made if it is not there, for this user alone.

    Raises:
        OSError: It can be neither entered nor made.
    """
    chosen = environ.get(_VARIABLE)
    if chosen:
        path = Path(os.path.abspath(os.path.expanduser(chosen)))  # noqa: PTH111  # a home that is unknown is no error
    else:
        from platformdirs import user_cache_path

        path = user_cache_path("localllama", appauthor=False)
    path.mkdir(mode=_OWN_MODE, parents=True, exist_ok=True)
    return path
