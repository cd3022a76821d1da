"""What the guides show is true: their Python runs, and the commands that they name exist with these options.

The blocks of one page are one program: they run in order, in one namespace and a process of their own, on SmolLM2-135M. A
block below `<!-- not run: REASON -->` shows another package; it must compile, and what it imports of this one must exist.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from localllama import errors
from localllama.cli.app import app
from support.documents import PAGES, ROOT, Block, blocks, commands, python_blocks

OURS = {"localllama", "langchain_localllama", "llamaindex_localllama"}
DOCUMENTS = [ROOT / "README.md", *PAGES]

_RUN = """
import json, sys
for _page, _line, _text in json.load(sys.stdin):
    print(f"\\x1e{_line}", flush=True)
    exec(compile(_text, _page, "exec"), globals())
"""


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _shown_of_others() -> list[Block]:
    return [block for page in DOCUMENTS for block in python_blocks(page) if block.reason]


@pytest.mark.smollm2
@pytest.mark.parametrize("page", [p for p in PAGES if any(not b.reason for b in python_blocks(p))], ids=_id)
def test_blocks_of_a_page_run(page: Path, tmp_path: Path, micro_model: Path, smollm2_model: Path) -> None:
    program = [block for block in python_blocks(page) if not block.reason]
    shutil.copy(micro_model, tmp_path / "model.gguf")
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        input=json.dumps([(_id(page), block.line, block.padded()) for block in program]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    printed = {int(part.partition("\n")[0]): part.partition("\n")[2] for part in done.stdout.split("\x1e")[1:]}
    silent = [block.place for block in program if "print(" in block.text and not printed[block.line].strip()]
    assert silent == []


@pytest.mark.parametrize("block", _shown_of_others(), ids=lambda block: block.place)
def test_block_that_is_not_run_names_what_exists(block: Block) -> None:
    assert block.reason
    for node in ast.walk(ast.parse(block.padded(), block.place)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in OURS:
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_comment_that_keeps_a_block_from_running_stands_above_one() -> None:
    for page in DOCUMENTS:
        noted = page.read_text(encoding="utf-8").count("<!-- not run:")
        assert noted == len([block for block in blocks(page) if block.reason]), page


@pytest.mark.parametrize(("place", "words"), [call for page in DOCUMENTS for call in commands(page)], ids=str)
def test_command_exists_with_its_options(place: str, words: list[str]) -> None:
    assert _fault(words) is None, place


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["doctor", "--fix"], None),
        (["ask", "Why?", "-m", "smollm2-135m", "--json"], None),
        (["ask", "Why", "not?"], "2 arguments"),
        (["doctor", "--mend"], "--mend"),
        (["dokter"], "dokter"),
        (["models", "shw", "x"], "shw"),
    ],
)
def test_wrong_command_is_seen(words: list[str], fault: str | None) -> None:
    found = _fault(words)
    assert found is None if fault is None else fault in (found or "")


def _fault(words: list[str]) -> str | None:
    """What is wrong with a call of `localllama`, by its own command tree; nothing is run."""
    # By its attributes: newer releases of Typer have a copy of Click's classes of their own.
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    options = {
        flag: parameter
        for parameter in command.params
        for flag in (*parameter.opts, *parameter.secondary_opts)  # the latter: `--no-this` of `--this`
        if flag.startswith("-")
    }
    arguments = 0
    while rest:
        word = rest.pop(0)
        flag, _, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            arguments += 1
        elif flag in ("--help", "--install-completion"):
            continue
        elif flag not in options:
            return f"no option {flag}"
        elif not options[flag].is_flag and not value and rest:
            rest.pop(0)
    most = sum(parameter.param_type_name == "argument" for parameter in command.params)
    return None if arguments <= most else f"{arguments} arguments"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_error_that_a_page_names_is_real(page: Path) -> None:
    python_own = {"FileNotFoundError", "PermissionError", "ValueError", "ImportError", "TimeoutError", "OSError"}
    named = set(re.findall(r"`(\w+Error)`", page.read_text(encoding="utf-8")))
    assert named - python_own <= set(errors.__all__)


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_file_of_ours_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`((?:tests|benchmarks|examples|notebooks|tools)/[\w./-]*)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_make_target_that_a_page_names_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)) <= targets
