"""Every Python block of the documents runs as it stands, each in a fresh process, and leaves nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.documents import ROOT, Block, python_blocks

DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]


def _blocks() -> list[Block]:
    return [block for name in DOCUMENTS for block in python_blocks(ROOT / name) if not block.reason]


@pytest.mark.smollm2
@pytest.mark.parametrize("block", _blocks(), ids=lambda block: block.place)
def test_block_runs(block: Block, tmp_path: Path, micro_model: Path, smollm2_model: Path) -> None:
    shutil.copy(micro_model, tmp_path / "model.gguf")
    answer = subprocess.run(
        [sys.executable, "-c", block.padded()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert answer.returncode == 0, answer.stderr
    if "print(" in block.text:
        assert answer.stdout.strip()


def test_the_readme_shows_each_framework() -> None:
    text = "\n".join(block.text for block in _blocks() if block.page.name == "README.md")
    for name in ("ChatLocalLlama", "LocalLlama(", "LocalLlamaClient"):
        assert name in text


def test_every_file_that_a_document_links_to_is_there() -> None:
    for name in DOCUMENTS:
        linked = re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / name).read_text())
        assert [path for path in linked if not (ROOT / path).exists()] == [], name


def test_every_make_target_that_the_documents_name_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set()
    for name in DOCUMENTS:
        for command in re.findall(r"(?:`|^)make ([^`#\n]+)", (ROOT / name).read_text(), re.MULTILINE):
            named |= {word for word in command.split("'")[0].split() if re.fullmatch("[a-z-]+", word)}
    assert {"demo", "test", "lint", "types", "bench"} <= named
    assert named <= targets


def test_every_setting_that_the_readme_names_is_real() -> None:
    from localllama import SamplingSettings, ServerSettings

    known = {*SamplingSettings.model_fields, *ServerSettings.model_fields}
    table = (ROOT / "README.md").read_text().partition("## Settings that matter")[2].partition("## ")[0]
    named = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert len(named) > 10
    assert set(named) <= known


def test_every_error_that_the_readme_names_is_real() -> None:
    from localllama import errors

    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`(\w+Error)`", text))
    assert len(named) > 8
    assert named <= set(errors.__all__)
