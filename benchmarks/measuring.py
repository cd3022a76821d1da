"""What the benchmarks share: alternating runs of two things in fresh processes, and one way to print the result.

Two things are only ever compared within one run, alternating, by their medians: a ratio then says something even on a
busy or a slow machine, where a time by itself says little.
"""

from __future__ import annotations

import compileall
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

PACKAGES = ("localllama", "langchain_localllama", "llamaindex_localllama")


@dataclass(frozen=True)
class Comparison:
    """Times of a base and of ours, in seconds."""

    name: str
    base_name: str
    base: tuple[float, ...]
    ours: tuple[float, ...]

    def row(self) -> str:
        """One line: both medians, the difference and the ratio."""
        base, ours = statistics.median(self.base), statistics.median(self.ours)
        return (
            f"{self.name:<34}{_ms(ours):>10}   {self.base_name:<38}{_ms(base):>10}"
            f"   {_ms(ours - base, signed=True):>10}   x {ours / base:.2f}"
        )


def _ms(seconds: float, *, signed: bool = False) -> str:
    return f"{seconds * 1000:{'+' if signed else ''}.1f} ms"


def compare(name: str, ours: list[str], base_name: str, base: list[str], *, rounds: int) -> Comparison:
    """Run two commands in turn; each prints a JSON object with `seconds`."""
    _compile_packages()
    base_times, our_times = [], []
    for _ in range(rounds):
        base_times.append(float(answer_of(base)["seconds"]))
        our_times.append(float(answer_of(ours)["seconds"]))
    return Comparison(name, base_name, tuple(base_times), tuple(our_times))


@lru_cache
def _compile_packages() -> None:
    # As pip does for what it installs, the frameworks included; an editable install, where PYTHONDONTWRITEBYTECODE is set,
    # would compile our sources, and only ours, in each process that is measured.
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            compileall.compile_dir(location, quiet=2)


def answer_of(command: list[str]) -> dict[str, Any]:
    """Run this interpreter with `command` and decode the last line of its output, which is JSON."""
    answer = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=600)
    if answer.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{answer.stderr}")
    values: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return values


def title(text: str, rounds: int) -> None:
    """The head of a table."""
    print(f"\n{text} (medians of {rounds} alternating runs)", flush=True)


def micro_model() -> str:
    """The path of the micro model that the tests use, built on first use."""
    path = Path(tempfile.gettempdir()) / f"localllama-bench-{os.getuid()}" / "micro.gguf"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        builder = Path(__file__).resolve().parent.parent / "tests/support/micro_model.py"
        subprocess.run([sys.executable, str(builder), str(path)], check=True, stdout=subprocess.DEVNULL)
    return str(path)
