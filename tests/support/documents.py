"""What the documents show: their Python blocks, and the commands of `localllama` in their shell blocks."""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))

_FENCE = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^>]*?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^(?P=indent)```",  # indented: in a tab or a list
    re.MULTILINE | re.DOTALL,
)
_SHELLS = {"sh", "bash", "console"}


@dataclass(frozen=True)
class Block:
    """One fenced block of a document.

    Attributes:
        page: The document.
        line: The line of its first line, from 1.
        language: The word behind the fence.
        text: What is in it.
        reason: Why it is not run, from a comment above it: `<!-- not run: REASON -->`; None where it is run.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        """Such as "docs/tools.md:12"."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def padded(self) -> str:
        """The text at its line, so that a traceback has the line numbers of the document."""
        return "\n" * (self.line - 1) + self.text


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a document that name a language."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        line = text[: match.start("text")].count("\n") + 1
        found.append(Block(page, line, match["language"], textwrap.dedent(match["text"]), match["reason"]))
    return found


def python_blocks(page: Path) -> list[Block]:
    """The Python blocks of a document."""
    return [block for block in blocks(page) if block.language == "python"]


def commands(page: Path, program: str = "localllama") -> list[tuple[str, list[str]]]:
    """The calls of a program in the shell blocks of a document, each with its place, as words without the program's name."""
    found = []
    for block in blocks(page):
        if block.language not in _SHELLS:
            continue
        for number, line in enumerate(block.text.splitlines(), block.line):
            calls = [words[1:] for words in _simple_commands(line.removeprefix("$ ")) if words[0] == program]
            found += [(f"{page.relative_to(ROOT)}:{number}", words) for words in calls]
    return found


def _simple_commands(line: str) -> list[list[str]]:
    """The parts of a shell line between pipes and the like; what a redirection names is left out."""
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    parts: list[list[str]] = [[]]
    is_target = False
    for word in reader:
        if set(word) <= set("|&;()"):
            parts.append([])
        elif set(word) <= set("<>"):
            is_target = True
        elif is_target:
            is_target = False
        elif parts[-1] or not re.fullmatch(r"[A-Z_]+=.*", word):  # NAME=value before a command
            parts[-1].append(word)
    return [part for part in parts if part]
