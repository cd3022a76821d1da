"""`ask`, `models`, `runtime`, `bench`: what they print, where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from .conftest import Command


def test_ask_prints_the_answer_and_nothing_else(localllama: Command) -> None:
    answer = localllama("ask", "Hello", "--max-tokens", "8", "--temperature", "0")
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout) > 8
    assert "\x1b" not in answer.stdout + answer.stderr
    again = localllama("ask", "Hello", "--max-tokens", "8", "--temperature", "0", "--json")
    document = json.loads(again.stdout)
    assert document["text"] + "\n" == answer.stdout
    assert document["usage"]["completion_tokens"] == 8
    assert document["finish_reason"] == "length"


def test_ask_about_standard_input(localllama: Command) -> None:
    short = localllama("ask", "Sum up:", "--file", "-", "--max-tokens", "1", "--json", stdin="a")
    long = localllama("ask", "Sum up:", "--file", "-", "--max-tokens", "1", "--json", stdin="a" * 500)
    counts = [json.loads(answer.stdout)["usage"]["prompt_tokens"] for answer in (short, long)]
    assert counts[1] > counts[0] + 400


def test_ask_for_a_schema(localllama: Command, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 9}}, "required": ["n"]}
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    answer = localllama("ask", "A number, please", "--schema", str(path))
    assert answer.returncode == 0, answer.stderr
    jsonschema.validate(json.loads(answer.stdout), schema)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("ask",), 2, "There is no question"),
        (("ask", "Hello", "--model", "./nowhere.gguf"), 3, "nowhere.gguf"),
        (("ask", "Hello", "--model", "smolm2-135m"), 3, "smollm2-135m"),
        (("ask", "Hello", "--runtime", "/nowhere/llama-server"), 2, "/nowhere/llama-server"),
        (("ask", "a" * 600, "--n-ctx", "256"), 6, "256"),
        (("ask", "Hello", "--schema", "/nowhere.json"), 2, "/nowhere.json"),
        (("models", "show", "qwen3-4b"), 3, "localllama models pull qwen3-4b"),
        (("models", "rm", "--yes", "owner/repo"), 3, "Hugging Face"),
        (("install", "--method", "brwe"), 2, "brew"),
        (("install",), 2, "--dry-run"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_what_goes_wrong_is_said_with_a_remedy(
    localllama: Command, arguments: tuple[str, ...], code: int, words: str
) -> None:
    answer = localllama(*arguments, HF_HUB_OFFLINE="1")
    assert answer.returncode == code, answer.stderr
    assert words in answer.stderr
    assert not answer.stdout


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


def test_the_default_model_and_where_it_comes_from(localllama: Command, micro_model: Path, tmp_path: Path) -> None:
    used = localllama("models", "use", str(micro_model), LOCALLLAMA_MODEL="")
    assert used.returncode == 0, used.stderr
    assert json.loads((tmp_path / "config" / "config.json").read_text()) == {"model": str(micro_model)}
    answer = localllama("ask", "Hello", "--max-tokens", "1", "--json", LOCALLLAMA_MODEL="")
    assert answer.returncode == 0, answer.stderr
    (tmp_path / "config" / "config.json").write_text("{")
    broken = localllama("ask", "Hello", LOCALLLAMA_MODEL="")
    assert broken.returncode == 2
    assert "config.json" in broken.stderr


def test_models_list_show_where_verify(localllama: Command, micro_model: Path) -> None:
    listed = json.loads(localllama("models", "list", "--json").stdout)
    assert {"smollm2-135m", "qwen2.5-coder-7b", "gpt-oss-20b"} <= {model["name"] for model in listed}
    shown = json.loads(localllama("models", "show", str(micro_model), "--json").stdout)
    assert shown["n_ctx_train"] == 4096
    assert localllama("models", "where", str(micro_model)).stdout.strip() == str(micro_model)
    assert localllama("models", "verify", str(micro_model)).returncode == 0


def test_a_stored_model_is_checked_and_removed(localllama: Command, tmp_path: Path) -> None:
    stored = tmp_path / "models" / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"GGUF" + bytes(1000))
    store = {"LOCALLLAMA_MODELS": str(tmp_path / "models")}
    removed = localllama("models", "rm", "smollm2-135m", "--yes", **store)
    assert removed.returncode == 0, removed.stderr
    assert "1.0 kB" in removed.stderr
    assert not stored.exists()
    assert localllama("models", "rm", "smollm2-135m", "--yes", **store).returncode == 3


def test_runtime_tells_every_place(localllama: Command, tmp_path: Path) -> None:
    report = json.loads(localllama("runtime", "--json").stdout)
    assert any("embedded" in runtime["kind"] for runtime in report["runtimes"])
    assert len(report["places"]) >= 3
    nothing = localllama("runtime", "llama-server", PATH=str(tmp_path), HOME=str(tmp_path))
    assert nothing.returncode == 4
    assert "localllama install" in nothing.stderr


def test_bench_gives_numbers(localllama: Command) -> None:
    values = json.loads(localllama("bench", "--rounds", "1", "--tokens", "8", "--json").stdout)
    assert values["generated_tokens"] == 8
    assert values["generated_tokens_per_second"] > 0
    assert values["prompt_tokens"] > 100


def test_version(localllama: Command) -> None:
    assert localllama("--version").stdout.startswith("localllama 0.")
