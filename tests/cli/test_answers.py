"""What `ask` and `chat` show of answers that the micro model never gives: thoughts, refusals, the end of a server."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localllama import LocalLlamaClient, SamplingSettings, ServerSettings
from localllama.cli import answering
from support.scripted_server import ScriptedServer, scripted_server

REFUSAL = {"error": {"code": 400, "message": "this is too much", "type": "invalid_request_error"}}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """The model of every command says what a test has it say."""
    with scripted_server() as running:

        def client(*_: object) -> LocalLlamaClient:
            return LocalLlamaClient(ServerSettings(base_url=running.url))

        monkeypatch.setattr(answering, "make_client", client)
        yield running


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_thoughts_are_shown_beside_the_answer_and_not_in_it(command, script: ScriptedServer) -> None:
    script.deltas = [{"reasoning_content": "Hm"}, {"reasoning_content": " [so]"}, {"content": "Yes"}, {"content": "."}]
    outcome = command("ask", "Is it so?", "--system", "Be short.")
    assert outcome.out == "Yes.\n"
    assert outcome.err == "Hm [so]\n"
    assert [message["role"] for message in script.requests[0]["messages"]] == ["system", "user"]


def test_thoughts_and_letters_of_any_language_are_in_the_json(command, script: ScriptedServer) -> None:
    script.deltas = [{"reasoning_content": "Hm"}, {"content": "Grüße."}]
    out = command("ask", "Hello", "--json").out
    answer = json.loads(out)
    assert (answer["text"], answer["reasoning"]) == ("Grüße.", "Hm")
    assert "Grüße." in out


def test_a_question_stands_above_the_text_that_it_is_about(command, script: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("It rains.")
    command("ask", "Is it so?", "--file", str(tmp_path / "text"))
    assert script.requests[0]["messages"] == [{"role": "user", "content": "Is it so?\n\nIt rains."}]


def test_the_options_of_ask_and_chat_are_settings(micro_model: Path) -> None:
    with answering.make_client(str(micro_model), "embedded", 512, 0.0, 7) as client:
        assert client.settings == ServerSettings(model=str(micro_model), runtime="embedded", n_ctx=512)
        assert client.sampling == SamplingSettings(temperature=0, max_tokens=7)


def test_thoughts_without_an_answer_leave_an_empty_line(command, script: ScriptedServer) -> None:
    script.deltas = [{"reasoning_content": "Hm"}]
    assert command("ask", "Is it so?").out == "\n"


def test_a_file_that_is_not_there_is_named(command, tmp_path: Path) -> None:
    outcome = command("ask", "What is it?", "--file", str(tmp_path / "text"))
    assert outcome.code == 2
    assert f"--file '{tmp_path / 'text'}' cannot be read: No such file" in outcome.err


def test_a_schema_is_an_object(command, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("[]")
    outcome = command("ask", "What is it?", "--schema", str(tmp_path / "schema.json"))
    assert outcome.code == 2
    assert "is not a JSON object" in outcome.err


def test_a_conversation_goes_on_after_a_refusal_and_forgets_it(command, script: ScriptedServer, monkeypatch) -> None:
    script.answers = [[{"content": "One."}], REFUSAL, [{"content": "Three."}], [{"content": "Four."}]]
    type_in(monkeypatch, "first", "second", "", "third", "/reset", "fourth")
    outcome = command("chat", "--system", "Count.")
    assert outcome.code == 0
    assert outcome.out == "One.\nThree.\nFour.\n"
    assert "this is too much" in outcome.err
    said = [[message["content"] for message in request["messages"]] for request in script.requests]
    assert said[2] == ["Count.", "first", "One.", "third"]
    assert said[3] == ["Count.", "fourth"]


def test_a_conversation_that_cannot_be_saved_is_not_lost(
    command, script: ScriptedServer, tmp_path: Path, monkeypatch
) -> None:
    type_in(monkeypatch, "Hi", f"/save {tmp_path}/nowhere/a.json", f"/save {tmp_path}/a.json", "/exit")
    outcome = command("chat")
    assert f"{tmp_path}/nowhere/a.json cannot be written: No such file or directory" in outcome.err
    turns = json.loads((tmp_path / "a.json").read_text())
    assert [turn["content"] for turn in turns] == ["Hi", "Hello there"]
