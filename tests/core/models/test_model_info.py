"""What is known of a model before its server runs: above all, the context window."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllama._models.gguf import model_info
from localllama.errors import ConfigurationError
from support.gguf_bytes import small_model, string, u32


def written(directory: Path, **entries: bytes) -> Path:
    path = directory / "Some-Model.gguf"
    path.write_bytes(small_model(**entries).build())
    return path


@pytest.mark.parametrize(
    ("trained", "asked", "n_ctx"),
    [
        (16384, None, 8192),
        (2048, None, 2048),
        (0, None, 4096),
        (16384, 16384, 16384),
        (2048, 100, 100),
        (0, 100_000, 100_000),
    ],
)
def test_the_context_window(tmp_path: Path, trained: int, asked: int | None, n_ctx: int) -> None:
    info = model_info(written(tmp_path, llama__context_length=u32(trained)), asked)
    assert info.n_ctx == n_ctx
    assert info.n_ctx_train == (trained or None)


def test_a_window_beyond_the_trained_length_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(ConfigurationError, match=r"n_ctx=20000.*16384.*\n.*rope scaling"):
        model_info(path, 20000)
    assert model_info(path, 20000, allow_longer=True).n_ctx == 20000


@pytest.mark.parametrize(("kind", "words"), [("mmproj", "projector"), ("adapter", "LoRA"), ("imatrix", "importance")])
def test_what_is_no_language_model_is_refused_by_name(tmp_path: Path, kind: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        model_info(written(tmp_path, general__type=string(kind)))


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch) -> None:
    path = written(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert model_info(path.name).path == str(path)


def test_the_file_lends_its_name(tmp_path: Path) -> None:
    assert model_info(written(tmp_path)).name == "Some-Model"
