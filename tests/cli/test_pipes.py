"""The command in a process of its own: closed pipes, standard input, and what it removes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_a_reader_that_has_enough_ends_it_quietly(environ: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "localllama", "ask", "Hello", "--max-tokens", "2000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 0
    assert not errors


def test_standard_input_is_what_is_asked_about(environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "localllama", "ask", "Sum up:", "--file", "-", "--max-tokens", "1", "--json"]
    counts = []
    for text in ("a", "a" * 500):
        answer = subprocess.run(
            command, input=text, capture_output=True, text=True, env=environ, timeout=120, check=True
        )
        counts.append(json.loads(answer.stdout)["usage"]["prompt_tokens"])
    assert counts[1] > counts[0] + 400


def test_a_stored_model_is_removed_and_nobody_elses(command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(tmp_path / "models"))
    stored = tmp_path / "models" / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"GGUF" + bytes(1000))
    removed = command("models", "rm", "smollm2-135m", "--yes")
    assert removed.code == 0
    assert "1.0 kB" in removed.err
    assert not stored.exists()
    assert command("models", "rm", "smollm2-135m", "--yes").code == 3
    foreign = command("models", "rm", "owner/repo", "--yes")
    assert foreign.code == 3
    assert "Hugging Face" in foreign.err


def test_the_catalog_has_the_models_of_the_hub(command) -> None:
    listed = json.loads(command("models", "list", "--json").out)
    assert {"smollm2-135m", "qwen2.5-coder-7b", "gpt-oss-20b"} <= {model["name"] for model in listed}


@pytest.mark.parametrize("arguments", [("models", "list"), ("runtime",), ("models", "--help"), ("--version",)])
def test_a_table_whose_reader_has_enough_is_no_failure(environ: dict[str, str], arguments: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)  # nobody reads at all
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "localllama", *arguments],
            stdout=write,
            stderr=subprocess.PIPE,
            env=environ,
            timeout=120,
            check=False,
        )
    finally:
        os.close(write)
    assert (answer.returncode, answer.stderr) == (0, b"")
