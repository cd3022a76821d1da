"""What is left of a run: no file of it, and no process, however it ends."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from core.one_shot.conftest import settings_for
from localllama import ChatRequest, LocalLlamaClient, LocalLlamaError, Message
from localllama._one_shot.answering import _ProgramAnswer
from localllama._one_shot.endpoints import Events
from localllama._one_shot.job import Job
from localllama._one_shot.program_runs import CallerLeftError, Program
from localllama._runtime.resolve import stand_in_command
from support.one_shot_program import make_one_shot_program
from support.processes import ProcessIdentity
from support.program_server import program_server
from support.waiting import wait_until

HELLO = ChatRequest((Message("user", "Hi"),))


def directory_of(client: LocalLlamaClient) -> Path:
    """The private directory of the client's server."""
    running = client._connection.running()
    assert running is not None
    assert running.endpoint.socket_path is not None
    return Path(running.endpoint.socket_path).parent


def runs_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name.startswith("run-")]


def test_a_caller_who_leaves_takes_the_program_and_all_that_it_started_along(micro_model: Path, tmp_path: Path) -> None:
    script = "sleep 1000 & sh -c 'sleep 1000 & wait'; wait"
    program = make_one_shot_program(tmp_path, f"out.write(b'a'); out.flush(); os.system({script!r})")
    with LocalLlamaClient(settings_for(micro_model, program, "family")) as client:
        stream = client.stream_chat(HELLO)
        assert next(stream).text == "a"
        server = psutil.Process(client.server_pid)
        # The program, its shell, a sleep, the shell in the shell, and the sleep of that.
        wait_until(lambda: len(server.children(recursive=True)) == 5, what="the program and what it started")
        family = [ProcessIdentity.of(process.pid) for process in server.children(recursive=True)]
        stream.close()
        wait_until(lambda: not [one for one in family if one.is_alive()], what="the end of all of them")
        assert client.is_running


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_the_program_dies_with_the_stand_in_while_the_supervisor_is_stopped(micro_model: Path, tmp_path: Path) -> None:
    program = make_one_shot_program(tmp_path, "out.write(b'a'); out.flush(); signal.pause()")
    with LocalLlamaClient(settings_for(micro_model, program, "tied")) as client:
        stream = client.stream_chat(HELLO)
        assert next(stream).text == "a"
        server = psutil.Process(client.server_pid)
        supervisor = server.parent()
        assert supervisor is not None
        (running,) = (ProcessIdentity.of(process.pid) for process in server.children())
        supervisor.suspend()
        try:
            server.kill()
            wait_until(lambda: not running.is_alive(), what="the end of the program")
        finally:
            supervisor.resume()
        with contextlib.suppress(LocalLlamaError):
            stream.close()


@pytest.mark.parametrize("way", ["answer", "failure", "not started", "left"])
def test_no_file_of_a_run_is_left(way: str, micro_model: Path, tmp_path: Path) -> None:
    body = {"failure": "sys.exit(3)", "left": "out.write(b'a'); out.flush(); signal.pause()"}.get(
        way, "out.write(b'a\\n\\n')"
    )
    program = make_one_shot_program(tmp_path, body)
    with LocalLlamaClient(settings_for(micro_model, program, f"files of {way}")) as client:
        client.start()
        directory = directory_of(client)
        assert runs_in(directory) == [], "of the trial"
        if way == "not started":
            program.unlink()
        if way == "left":
            stream = client.stream_chat(HELLO)
            assert next(stream).text == "a"
            assert len(runs_in(directory)) == 1
            stream.close()
        else:
            with contextlib.suppress(LocalLlamaError) if way != "answer" else contextlib.nullcontext():
                client.chat(HELLO)
        wait_until(lambda: runs_in(directory) == [], what="the end of the files")


def test_no_file_is_left_of_counting_tokens(micro_model: Path, llama_bin: Path) -> None:
    with LocalLlamaClient(settings_for(micro_model, llama_bin / "llama-completion", "files of tokens")) as client:
        assert client.tokenize("Hello")
        wait_until(lambda: runs_in(directory_of(client)) == [], what="the end of the files")


def test_a_prompt_is_for_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        command = (sys.executable, "-c", "import sys; sys.stdin.read()")
        program = Program(command, "completion", frozenset({"-f"}), (), tmp_path)
        run = program.run(Job("SECRET", grammar="root ::= [a-z]"))
    finally:
        os.umask(before)
    try:
        (directory,) = tmp_path.iterdir()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {
            "prompt": 0o600,
            "grammar": 0o600,
        }
    finally:
        run.stop()
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_was_left_before_its_turn_is_not_written(tmp_path: Path) -> None:
    program = Program((sys.executable, "-c", "print('Hello')"), "completion", frozenset(), (), tmp_path)
    events = Events("model", "build", is_chat=True)
    answer = _ProgramAnswer(program, Job("Hi"), events, threading.BoundedSemaphore(1), n_ctx=512)
    answer.leave()
    with pytest.raises(CallerLeftError):
        list(answer.events())
    assert list(tmp_path.iterdir()) == []


def test_the_stand_in_ends_when_its_owner_ends_the_lifeline(micro_model: Path) -> None:
    command = stand_in_command()
    assert command is not None
    theirs, ours = os.pipe()
    arguments = ["--model", str(micro_model), "--ctx-size", "512", "--parallel", "1"]
    before = os.umask(0)
    try:
        # Not in tmp_path, whose name may be too long for that of a socket.
        with (
            tempfile.TemporaryDirectory(prefix="llt-") as directory,
            program_server(command, arguments, Path(directory), stdin=theirs) as server,
        ):
            server.wait_until_ready()
            assert stat.S_IMODE(Path(server.socket_path).stat().st_mode) & 0o077 == 0, "for its user alone"
            os.close(ours)
            assert server.process.wait(timeout=5) == 0
    finally:
        os.umask(before)
        os.close(theirs)
