"""Makes the pictures of the command line in docs/images from real runs of it.

    python tools/make_screens.py            all pictures
    python tools/make_screens.py doctor     one of them

Each command runs in a terminal of its own, so that it has the colours and widths that a user sees. What belongs to this
machine (the home directory, the environment, the processor) is replaced by what it would be anywhere. The pictures hold no
reference to a font or a style of another site. Needs a POSIX system, and SmolLM2-135M, which is fetched if it is missing.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import psutil
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
WIDTH = 100
SCREENS = {
    "doctor": ["doctor"],
    "models-list": ["models", "list"],
    "ask": [
        "ask",
        "Why is the sky blue?",
        "--temperature",
        "0",
        "--max-tokens",
        "80",
    ],
}

# Rich's own format, without its fonts from another site and without window decoration.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class ScreenError(Exception):
    """A command failed, so there is nothing to show."""


def run_in_terminal(arguments: list[str]) -> str:
    """What `localllama` with these arguments writes to a terminal of `WIDTH` columns.

    Raises:
        ScreenError: It did not end with 0.
    """
    leader, follower = pty.openpty()
    environ = {
        **os.environ,
        "COLUMNS": str(WIDTH),
        "LINES": "50",
        "TERM": "xterm-256color",
        "LOCALLLAMA_MODEL": "smollm2-135m",
    }
    environ.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "localllama", *arguments]
    with subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=environ, cwd=Path.home()
    ) as child:
        os.close(follower)
        written = b""
        while piece := _read(leader):
            written += piece
    os.close(leader)
    text = written.decode(errors="replace")
    if child.returncode:
        raise ScreenError(f"localllama {' '.join(arguments)} ended with {child.returncode}:\n{text}")
    return text


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux: the last process that had the terminal open is gone
        return b""


def shown(text: str) -> str:
    """The lines that stay on the screen: without bars that were erased, and without what belongs to this machine."""
    lines, row = [""], 0
    for part in re.split(r"(\r?\n|\r|\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[lh])", text):
        if part.endswith("\n"):
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part != "\r" and not part.startswith("\x1b[?25"):
            lines[row] += part
    return scrubbed("\n".join(lines)).strip("\n")


def scrubbed(text: str) -> str:
    """The text without the paths and the processor of this machine."""
    for path, name in ((ROOT, "~/localllama"), (Path(sys.prefix), "~/localllama/.venv"), (Path.home(), "~")):
        text = text.replace(str(path), name)
    return re.sub(r"(device CPU: )[^;\n]+", r"\1...", text)


def write_screen(name: str, arguments: list[str]) -> Path:
    """Run a command and write its picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    words = " ".join(f'"{word}"' if " " in word else word for word in arguments)
    console.print(Text(f"$ localllama {words}", style="bold"))
    console.print(Text.from_ansi(shown(run_in_terminal(arguments))))
    path = IMAGES / f"{name}.svg"
    svg = console.export_svg(title="localllama", theme=MONOKAI, code_format=SVG, unique_id=f"screen-{name}")
    if "http" in svg.replace("http://www.w3.org/2000/svg", ""):
        raise ScreenError(f"{path.name} refers to another site")
    path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")
    return path


def main() -> int:
    """Make what was asked for."""
    parser = argparse.ArgumentParser(description="Makes the pictures of the command line in docs/images.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(SCREENS)}")
    names = parser.parse_args().names or list(SCREENS)
    if unknown := set(names) - set(SCREENS):
        parser.error(f"no such picture: {', '.join(sorted(unknown))}")
    IMAGES.mkdir(exist_ok=True)
    for name in names:
        print(write_screen(name, SCREENS[name]))
    left = [child.pid for child in psutil.Process().children(recursive=True)]
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
