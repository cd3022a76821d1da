"""`python -m localllama`: the command line, where the script `localllama` is not on PATH."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
