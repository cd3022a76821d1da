"""An agent whose conversation outlives its process, also one that was killed between a call and its answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from support.example_programs import Run, Start

FIRST = "What is 17 times 23?"
SECOND = "What is 4 times 5?"


def conversation(database: Path) -> list[AnyMessage]:
    """What is kept of the conversation."""
    with SqliteSaver.from_conn_string(str(database)) as kept:
        checkpoint = kept.get_tuple({"configurable": {"thread_id": "main"}})
    assert checkpoint
    messages: list[AnyMessage] = checkpoint.checkpoint["channel_values"]["messages"]
    return messages


def test_a_second_run_goes_on_with_the_conversation(run: Run, tmp_path: Path, micro_model: Path) -> None:
    talk = ("langgraph_sqlite", "--rounds", 0, "--model", micro_model)
    assert run(*talk, FIRST)[0] == 0
    code, second, err = run(*talk, SECOND)
    assert code == 0, err
    messages = conversation(tmp_path / "conversations.sqlite")
    assert [message.type for message in messages] == ["human", "ai", "human", "ai"]
    first, last = messages[1], messages[3]
    assert isinstance(first, AIMessage)
    assert isinstance(last, AIMessage)
    assert first.usage_metadata
    assert last.usage_metadata
    # The second prompt held the first question and its answer.
    assert last.usage_metadata["input_tokens"] > first.usage_metadata["total_tokens"]

    _, shown, _ = run(*talk, "--history")
    assert shown == f"> {FIRST}\n{first.text}\n> {SECOND}\n{last.text}\n"
    assert shown.endswith(second)
    assert run(*talk, "--thread", "other", "--history")[1] == "", "conversations are kept apart"


def test_a_killed_run_is_finished_by_the_next(start: Start, run: Run, tmp_path: Path, micro_model: Path) -> None:
    agent = ("langgraph_sqlite", "--model", micro_model)
    killed = start(*agent, "--rounds", 12, FIRST)
    assert killed.stderr is not None
    line = killed.stderr.readline()
    assert re.match(r"  call: (add|multiply)\(", line), line
    killed.kill()
    killed.communicate(timeout=30)
    before = conversation(tmp_path / "conversations.sqlite")
    assert before[0].text == FIRST
    assert not (isinstance(before[-1], AIMessage) and not before[-1].tool_calls), "the kill came too late"

    code, out, err = run(*agent, "--rounds", 1, SECOND)
    assert code == 0, err
    messages = conversation(tmp_path / "conversations.sqlite")
    assert messages[: len(before)] == before, "nothing is lost"
    questions = [n for n, message in enumerate(messages) if message.type == "human"]
    assert [messages[n].text for n in questions] == [FIRST, SECOND], "nothing was asked twice"
    for last in (questions[1] - 1, -1):
        answer = messages[last]
        assert isinstance(answer, AIMessage)
        assert not answer.tool_calls
        assert answer.text in out
    called = [call["id"] for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    answered = [message.tool_call_id for message in messages if message.type == "tool"]
    assert called == answered, "each call has one result"


@pytest.mark.smollm2
def test_tools_are_called_with_the_numbers_of_the_question(run: Run, smollm2_model: Path) -> None:
    code, out, err = run("langgraph_sqlite", "--rounds", 1, "--model", smollm2_model, FIRST)
    assert code == 0, err
    calls = re.findall(r"  call: (\w+)\({'a': 17, 'b': 23}\)", err)
    assert calls
    for name in calls:
        assert f"  {name}: {17 * 23 if name == 'multiply' else 17 + 23}.0" in err
    assert out.strip()


def test_a_question_is_needed(run: Run) -> None:
    code, _, err = run("langgraph_sqlite")
    assert code == 2
    assert "a question is needed" in err
