"""The walk down the ladder: a broken runtime is passed over with one warning, a wrong model or setting is not."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from localllama import (
    ChatRequest,
    ConfigurationError,
    LocalLlamaClient,
    LocalLlamaWarning,
    Message,
    ModelCorruptError,
    RuntimeNotFoundError,
    SamplingSettings,
    ServerSettings,
    ServerStartError,
    ServerStartTimeoutError,
)
from localllama._runtime import probe
from support.fake_llama_server import Behaviour, make_fake_llama_server

HELLO = ChatRequest((Message("user", "Hello"),))
SHORT = SamplingSettings(max_tokens=8)
MakeSettings = Callable[..., ServerSettings]


@pytest.fixture
def server_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Behaviour], Path]:
    """Puts a llama-server with the given behaviour on PATH."""

    def put(behaviour: Behaviour) -> Path:
        program = make_fake_llama_server(tmp_path, behaviour)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return program

    return put


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(load_signal="SIGILL"),
        Behaviour(help_signal="SIGILL"),
        Behaviour(missing_library="libggml-cuda.so.1"),
        Behaviour(unknown_flag="--jinja"),
        Behaviour(load_signal="SIGSEGV"),
        Behaviour(exit_code=0),
    ],
    ids=["SIGILL on load", "SIGILL at once", "missing library", "unknown flag", "crash on load", "silent end"],
)
def test_a_broken_server_on_path_is_passed_over(
    behaviour: Behaviour, server_on_path: Callable[[Behaviour], Path], make_settings: MakeSettings
) -> None:
    program = server_on_path(behaviour)
    with LocalLlamaClient(make_settings(runtime="auto"), sampling=SHORT) as client:
        with pytest.warns(LocalLlamaWarning) as warned:
            assert client.chat(HELLO).text
        # Of ours alone: another library may warn, or the garbage of an earlier test be collected, at any moment.
        ours = [str(item.message) for item in warned if issubclass(item.category, LocalLlamaWarning)]
        assert len(ours) == 1, ours
        assert str(program) in ours[0]
    with LocalLlamaClient(make_settings(runtime="auto", n_ctx=512), sampling=SHORT) as again:
        with warnings.catch_warnings():
            warnings.simplefilter("error", LocalLlamaWarning)
            assert again.chat(HELLO).text, "it has been said once"


def test_a_broken_server_is_asked_anew_next_time(
    server_on_path: Callable[[Behaviour], Path],
    make_settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its file stays the same, and yet it may run tomorrow: with a driver, or a library, that was missing."""
    monkeypatch.setenv("LOCALLLAMA_CACHE", str(tmp_path / "cache"))
    program = server_on_path(Behaviour(load_signal="SIGILL"))
    with LocalLlamaClient(make_settings(runtime="auto"), sampling=SHORT) as client:
        with pytest.warns(LocalLlamaWarning, match="passed over"):
            assert client.chat(HELLO).text
    assert str(program) not in (tmp_path / "cache" / "runtimes.json").read_text()


def test_a_foreign_program_of_that_name_is_asked_once(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start walks past it, and so does each new process: what it said is kept on disk."""
    asked = tmp_path / "asked"
    for name in ("llama", "llama-server"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {asked}\necho "usage: {name} [-h] {{model}}"\nexit 2\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for number in range(2):
        monkeypatch.setattr(probe, "_known", {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LocalLlamaWarning)
            with LocalLlamaClient(make_settings(runtime="auto", env={"NUMBER": str(number)}), sampling=SHORT) as client:
                assert client.chat(HELLO).text
    assert sorted(asked.read_text().splitlines()) == ["llama serve --help", "llama-server --help"]


def test_a_program_named_in_the_environment_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_settings: MakeSettings
) -> None:
    program = make_fake_llama_server(tmp_path, Behaviour())
    monkeypatch.setenv("LOCALLLAMA_RUNTIME", str(program))
    with LocalLlamaClient(make_settings(runtime="auto"), sampling=SHORT) as client:
        client.chat(HELLO)
        running = client._connection.running()
        assert running is not None
        assert str(program) in running.command


def test_a_fault_of_the_model_is_not_tried_elsewhere(
    server_on_path: Callable[[Behaviour], Path], make_settings: MakeSettings
) -> None:
    log = "llama_model_load: error loading model: tensor 'x' data is not within the file bounds, model is corrupted or incomplete\n"
    server_on_path(Behaviour(exit_code=1, log=log + "exiting due to model loading error\n"))
    with LocalLlamaClient(make_settings(runtime="auto"), sampling=SHORT) as client, warnings.catch_warnings():
        warnings.simplefilter("error", LocalLlamaWarning)
        with pytest.raises(ModelCorruptError, match="corrupted"):
            client.chat(HELLO)


def test_a_server_that_exits_says_why(tmp_path: Path, make_settings: MakeSettings) -> None:
    program = make_fake_llama_server(tmp_path, Behaviour(exit_code=3, log="the roof is on fire\n"))
    with LocalLlamaClient(make_settings(runtime=str(program)), sampling=SHORT) as client:
        with pytest.raises(ServerStartError) as caught:
            client.chat(HELLO)
    error = caught.value
    assert error.exit_code == 3
    assert "the roof is on fire" in str(error)
    assert f"{program} " in error.command, "the command line to run it by hand"


def test_a_server_that_never_gets_ready_is_given_up(tmp_path: Path, make_settings: MakeSettings) -> None:
    program = make_fake_llama_server(tmp_path, Behaviour(load_seconds=3600))
    settings = make_settings(runtime=str(program), start_timeout_seconds=0.7)
    with LocalLlamaClient(settings, sampling=SHORT) as client:
        with pytest.raises(ServerStartTimeoutError, match=r"start_timeout_seconds=0\.7") as caught:
            client.chat(HELLO)
        assert not client.is_running
        # Its frames live as long as the error does, so the garbage collector cannot be what ends the server.
        assert caught.value.__traceback__ is not None
        assert [command for command in commands_of_children() if str(program) in command] == []


def commands_of_children() -> list[list[str]]:
    commands = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            commands.append(process.cmdline())
    return commands


@pytest.mark.parametrize("choice", ["nowhere-to-be-found", "/nowhere/llama-server"])
def test_a_program_that_is_not_there(choice: str, make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings(runtime=choice)) as client, pytest.raises(ConfigurationError, match=choice):
        client.start()


def test_no_runtime_at_all_lists_the_places(monkeypatch: pytest.MonkeyPatch, make_settings: MakeSettings) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    with LocalLlamaClient(make_settings(runtime="llama-server")) as client:
        with pytest.raises(RuntimeNotFoundError) as caught:
            client.start()
    assert caught.value.places
    assert caught.value.hint


HOSTILE: dict[str, Any] = {
    "LLAMA_ARG_HOST": "0.0.0.0",
    "LLAMA_ARG_PORT": "zzz",
    "LLAMA_ARG_API_PREFIX": "/hidden",
    "LLAMA_ARG_N_PREDICT": "1",
    "LLAMA_ARG_CTX_SIZE": "64",
    "LLAMA_ARG_CHAT_TEMPLATE": "hijacked",
    "LLAMA_API_KEY": "someone-elses",
    "LLAMA_SERVER_SLOTS_DEBUG": "1",
    "AIP_MODE": "PREDICTION",
}


def test_a_hostile_environment_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_settings: MakeSettings
) -> None:
    config = tmp_path / "llama.cpp" / "config.ini"
    config.parent.mkdir()
    config.write_text("[*]\napi-key = someone-elses\nc = 64\ntemp = 2\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    with LocalLlamaClient(make_settings(), sampling=SHORT) as client:
        result = client.chat(HELLO)
        assert result.usage is not None
        assert result.usage.completion_tokens == 8
        assert client.server_info().n_ctx == 4096
        assert "hijacked" not in client.render_prompt(HELLO)
