"""Answers from a folder: the right file is found without any download, and named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.example_programs import EXAMPLES, Run

TEXTS = {
    "llama.md": "The llama lives in South America. It has soft wool.",
    "countries/france.txt": "Paris is the capital of France. It lies on the Seine.",
    "countries/norway.txt": "Oslo is the capital of Norway. It has 700000 people.",
    "picture.png": "no text",
}

EMBED = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
from llamaindex_rag import HashingEmbedding
print(HashingEmbedding().get_text_embedding("Oslo is the capital of Norway."))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in TEXTS.items():
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "texts"


@pytest.mark.smollm2
def test_answer_and_sources(run: Run, folder: Path, smollm2_model: Path) -> None:
    code, out, err = run("llamaindex_rag", folder, "What is the capital of Norway?", "--model", smollm2_model)
    assert code == 0, err
    answer, _, sources = out.partition("\nSources:\n")
    assert "Oslo" in answer
    assert sources.splitlines()[0].startswith("  countries/norway.txt (")
    assert "Oslo is the capital of Norway." in sources
    assert len(sources.splitlines()) == 2


@pytest.mark.parametrize(
    ("question", "file"),
    [("Where does a llama live?", "llama.md"), ("France: which river?", "countries/france.txt")],
)
def test_the_best_source_comes_first(run: Run, folder: Path, micro_model: Path, question: str, file: str) -> None:
    code, out, err = run("llamaindex_rag", "texts", question, "--top", 1, "--model", micro_model)
    assert code == 0, err
    assert re.findall(r"^  (\S+) \(\d\.\d\d\): ", out.partition("\nSources:\n")[2], re.MULTILINE) == [file]


def test_the_embedding_is_the_same_in_every_process() -> None:
    printed = {
        subprocess.run([sys.executable, "-c", EMBED], capture_output=True, text=True, check=True, timeout=120).stdout
        for _ in range(2)
    }
    assert len(printed) == 1
    assert printed.pop().count(",") == 1023


def test_a_folder_without_texts_is_told(run: Run, tmp_path: Path, micro_model: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run("llamaindex_rag", "empty", "Hello?", "--model", micro_model)
    assert code == 1
    assert "empty" in err
    assert "Traceback" not in err
    assert run("llamaindex_rag", "missing", "Hello?")[0] == 2
