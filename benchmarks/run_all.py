"""Runs every benchmark and prints its table: `make bench`."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

SCRIPTS = ("import_cost.py", "construct.py", "gguf_header.py", "first_token.py", "stream_rate.py")
DISTRIBUTIONS = ("localllama", "langchain-core", "llama-index-core", "xllamacpp")


def main() -> int:
    """Run them in turn; returns the exit code."""
    versions = ", ".join(f"{name} {version(name)}" for name in DISTRIBUTIONS)
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {versions}")
    codes = [
        subprocess.run([sys.executable, str(Path(__file__).with_name(name))], check=False).returncode
        for name in SCRIPTS
    ]
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
