"""What a notebook's cells do: imported by the kernel of a trial."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

from starting import start, token_into_environment

kept: list[Any] = []


def start_once(mode: str) -> None:
    token_into_environment()
    with contextlib.redirect_stdout(io.StringIO()):
        kept.append(start(mode))
    sys.stdout.write("READY\n")
