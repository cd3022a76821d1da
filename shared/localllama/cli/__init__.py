"""The command `localllama`: the only part of the package that prints. It stands on public names and the client."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]

_NEEDED = ("typer", "rich")
_INTERRUPTED = 130


def main() -> None:
    """Entry point of the command; says which extra is missing when it is."""
    try:
        _run()
    except KeyboardInterrupt:  # while the rest is imported, which takes longer than some people wait
        sys.stderr.write("\nInterrupted.\n")
        raise SystemExit(_INTERRUPTED) from None


def _run() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"The command line needs {' and '.join(missing)}, which the extra `cli` brings: "
            'pip install "localllama[cli]"\n'
        )
        raise SystemExit(2)
    from .app import run

    run()
