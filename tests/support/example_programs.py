"""The programs in examples/, as the tests run them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

Start: TypeAlias = "Callable[..., subprocess.Popen[str]]"
"""Starts the example of a name with some arguments."""

Run: TypeAlias = "Callable[..., tuple[int, str, str]]"
"""Runs an example to its end: exit code, stdout, stderr."""
