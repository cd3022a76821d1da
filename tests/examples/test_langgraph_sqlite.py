"""An agent whose conversation outlives its process, also one that was killed between a call and its answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.example_programs import Run, Start

FIRST = "What is 17 times 23?"
SECOND = "What is 4 times 5?"


@pytest.mark.smollm2
def test_a_second_run_goes_on_with_the_conversation(run: Run, smollm2_model: Path) -> None:
    talk = ("langgraph_sqlite", "--rounds", 0, "--model", smollm2_model)
    assert run(*talk, "My name is Ada.")[0] == 0
    code, out, err = run(*talk, "What is my name?")
    assert code == 0, err
    assert "Ada" in out
    _, other, _ = run(*talk, "--thread", "other", "--history")
    assert other == "", "conversations are kept apart"


@pytest.mark.smollm2
def test_a_killed_run_is_finished_by_the_next(start: Start, run: Run, smollm2_model: Path) -> None:
    agent = ("langgraph_sqlite", "--rounds", 1, "--model", smollm2_model)
    killed = start(*agent, FIRST)
    assert killed.stderr is not None
    line = killed.stderr.readline()
    assert re.match(r"  call: (add|multiply)\(", line), line
    killed.kill()
    killed.communicate(timeout=30)

    code, _, err = run(*agent, SECOND)
    assert code == 0, err
    for name, a, b, result in re.findall(r"call: (\w+)\({'a': ([\d.]+), 'b': ([\d.]+)}\)\n  \w+: ([\d.]+)", err):
        assert float(result) == (float(a) * float(b) if name == "multiply" else float(a) + float(b))
    assert re.search(r"^  (add|multiply): [\d.]+$", err, re.MULTILINE), "no tool ran"

    _, out, _ = run(*agent, "--history")
    assert re.fullmatch(rf"> {re.escape(FIRST)}\n(?!>).+\n> {re.escape(SECOND)}\n(?!>).+\n", out, re.DOTALL), (
        f"each question once, each with its answer:\n{out}"
    )


def test_a_question_is_needed(run: Run) -> None:
    code, _, err = run("langgraph_sqlite")
    assert code == 2
    assert "a question is needed" in err
