"""Extraction over a folder: valid data for each file, and after a kill nothing done twice and nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from support.example_programs import Run, Start
from support.processes import ProcessIdentity
from support.waiting import wait_until

# The words of the micro model are random; a form so narrow is filled by it at once.
SCHEMA = {
    "title": "Kind",
    "type": "object",
    "properties": {"kind": {"enum": ["letter", "invoice", "report"]}},
    "required": ["kind"],
    "additionalProperties": False,
}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty files, some in a subfolder, and what they are to be made into."""
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    for n in range(30):
        (folder / ("more" if n % 3 == 0 else "") / f"{n:02}.txt").write_text(f"Text number {n}.")
    (folder / "picture.png").write_bytes(b"no text")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    return folder


@pytest.fixture
def arguments(micro_model: Path, folder: Path) -> tuple[object, ...]:
    return ("texts", "out.jsonl", "--schema", "schema.json", "--model", micro_model)


def test_a_killed_run_is_gone_on_with(start: Start, run: Run, folder: Path, arguments: tuple[object, ...]) -> None:
    output = folder.parent / "out.jsonl"
    killed = start("batch_extraction", *arguments)
    wait_until(lambda: output.exists() and output.read_bytes().count(b"\n") >= 3, seconds=120, what="three lines")
    servers = [ProcessIdentity.of(child.pid) for child in psutil.Process(killed.pid).children(recursive=True)]
    killed.kill()
    killed.communicate(timeout=30)
    assert servers
    wait_until(lambda: not any(server.is_alive() for server in servers), seconds=10, what="the end of the server")

    content = output.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    n_done = whole.count(b"\n")
    assert n_done < 30, "the kill came too late to prove anything"
    output.write_bytes(whole + b'{"file": "99.txt", "da')  # as a power cut would leave it

    code, _, err = run("batch_extraction", *arguments)
    assert code == 0, err
    assert f"{30 - n_done} of 30 files to do" in err
    assert output.read_bytes().startswith(whole), "what was there has changed"
    found = lines_of(output)
    assert sorted(line["file"] for line in found) == sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.txt")
    )
    assert all(line["data"]["kind"] in SCHEMA["properties"]["kind"]["enum"] for line in found)  # type: ignore[index]

    before = output.read_bytes()
    code, _, err = run("batch_extraction", *arguments)
    assert (code, output.read_bytes()) == (0, before)
    assert "0 of 30 files to do" in err


def test_a_file_that_fails_is_told_and_tried_again(run: Run, folder: Path, arguments: tuple[object, ...]) -> None:
    (folder / "07.txt").write_bytes(b"\xff\xfe is no UTF-8")
    (folder / "08.txt").write_text("too long " * 3000)
    code, _, err = run("batch_extraction", *arguments)
    assert code == 1
    assert "07.txt: UnicodeDecodeError: " in err
    assert "08.txt: " in err
    assert "Hint: " in err
    assert len(lines_of(folder.parent / "out.jsonl")) == 28

    (folder / "07.txt").write_text("Now it is.")
    (folder / "08.txt").write_text("Now it is short.")
    code, _, err = run("batch_extraction", *arguments)
    assert code == 0, err
    assert "2 of 30 files to do" in err
    assert len(lines_of(folder.parent / "out.jsonl")) == 30


def test_two_runs_at_once_are_refused(run: Run, folder: Path, arguments: tuple[object, ...]) -> None:
    with FileLock(folder.parent / "out.jsonl.lock"):
        code, _, err = run("batch_extraction", *arguments)
    assert code == 1
    assert "another run is writing it" in err


@pytest.mark.smollm2
def test_people_are_found_in_texts(run: Run, tmp_path: Path, smollm2_model: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "anna.txt").write_text("Anna Berg is 34 years old. She lives in Oslo and likes chess.")
    (tmp_path / "texts" / "tom.txt").write_text("Tom Hill, a baker of 52 years, moved to Leeds last spring.")
    code, _, err = run("batch_extraction", "texts", "people.jsonl", "--model", smollm2_model)
    assert code == 0, err
    found = {line["file"]: line["data"] for line in lines_of(tmp_path / "people.jsonl")}
    assert found["anna.txt"]["name"].strip() == "Anna Berg"
    assert found["anna.txt"]["age"] == 34
    assert found["tom.txt"]["name"].strip() == "Tom Hill"
