"""The embedded child as a process: what it serves, what ends it, what cannot change it."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from localllama._runtime.probe import supported_flags
from localllama._runtime.runtime import Runtime
from localllama._server.command import child_environment, server_arguments
from localllama.settings import ServerSettings
from localllama.types import ModelInfo
from support.program_server import ProgramServer, UnixConnection, program_server
from support.waiting import wait_until

QUESTION = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
# With --context-shift, else the window ends it after some milliseconds.
ENDLESS = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10**9, "stream": True}


def _arguments(model: Path, *more: str) -> list[str]:
    return ["-m", str(model), "-c", "512", "-np", "1", *more]


def _run(command: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
    )


def _command_with_library(runtime: Runtime, directory: Path) -> list[str]:
    return [*runtime.command[: runtime.command.index("--library") + 1], str(directory)]


def _begin_endless_stream(server: ProgramServer) -> UnixConnection:
    connection = UnixConnection(server.socket_path)
    connection.request("POST", "/v1/chat/completions", json.dumps(ENDLESS))
    assert connection.getresponse().readline().startswith(b"data: ")
    assert server.ask("GET", "/slots")[1][0]["is_processing"]
    return connection


def test_serves_what_it_was_told(runtime: Runtime, micro_model: Path, short_path: Path) -> None:
    with program_server(runtime.command, _arguments(micro_model, "-a", "tiny"), short_path) as server:
        server.wait_until_ready()
        status, props = server.ask("GET", "/props")
        assert status == 200
        assert props["default_generation_settings"]["n_ctx"] == 512
        assert props["total_slots"] == 1
        assert props["model_alias"] == "tiny"
        status, answer = server.ask("POST", "/v1/chat/completions", QUESTION)
        assert status == 200
        assert answer["usage"]["completion_tokens"] == 5
        # Changing properties over HTTP is off, as in llama-server.
        assert server.ask("POST", "/props", {})[0] == 501


def test_every_slot_has_the_whole_window(runtime: Runtime, micro_model: Path, short_path: Path) -> None:
    settings = ServerSettings(model="micro", parallel=3)
    model = ModelInfo(name="micro", path=str(micro_model), n_ctx=768)
    arguments = server_arguments(
        settings,
        model,
        socket_path=str(short_path / "program.sock"),
        port=None,
        api_key_file=None,
        flags=supported_flags(runtime),
    )
    with program_server(runtime.command, arguments, short_path) as server:
        server.wait_until_ready()
        assert [slot["n_ctx"] for slot in server.ask("GET", "/slots")[1]] == [768] * 3


def test_accepts_every_flag_that_settings_can_ask_for(runtime: Runtime, micro_model: Path, short_path: Path) -> None:
    template = short_path / "template.jinja"
    template.write_text("{{ messages[0].content }}|{{ enable_thinking }}|{{ city }}")
    settings = ServerSettings(
        model="micro",
        n_gpu_layers="auto",
        n_threads=1,
        n_threads_batch=2,
        n_batch=64,
        n_ubatch=32,
        flash_attn="auto",
        cache_type_k="f16",
        cache_type_v="bf16",
        chat_template_file=str(template),
        chat_template_kwargs={"city": "Köln"},
        reasoning="on",
        reasoning_budget=7,
        draft_model=str(micro_model),
        draft_max=4,
        draft_min=1,
        extra_args=("--top-k", "7", "--no-warmup", "--cache-ram", "0"),
    )
    model = ModelInfo(name="a, b", path=str(micro_model), n_ctx=512)
    arguments = server_arguments(
        settings,
        model,
        socket_path=str(short_path / "program.sock"),
        port=None,
        api_key_file=None,
        flags=supported_flags(runtime),
    )
    with program_server(runtime.command, arguments, short_path) as server:
        server.wait_until_ready()
        props = server.ask("GET", "/props")[1]
        assert props["default_generation_settings"]["params"]["top_k"] == 7
        assert props["model_alias"] == "a  b"
        prompt = server.ask("POST", "/apply-template", QUESTION)[1]["prompt"]
        assert prompt == "hi|True|Köln"
        answer = server.ask("POST", "/v1/chat/completions", {**QUESTION, "max_tokens": 40, "temperature": 0})[1]
        # The draft model is the model itself, so what it proposes is accepted.
        assert answer["timings"]["draft_n"] > 0


@pytest.mark.parametrize("is_config_file", [False, True], ids=["environment", "config.ini"])
def test_a_hostile_environment_changes_nothing(
    runtime: Runtime, micro_model: Path, short_path: Path, is_config_file: bool
) -> None:
    home = short_path / "home"
    config = home / ".config" / "llama.cpp"
    config.mkdir(parents=True)
    hostile = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
    if is_config_file:
        (config / "config.ini").write_text("[*]\napi-prefix = /evil\nn-predict = 1\ntemp = 0.01\napi-key = evil\n")
    else:
        hostile |= {
            "LLAMA_ARG_HOST": "0.0.0.0",
            "LLAMA_ARG_API_PREFIX": "/evil",
            "LLAMA_ARG_N_PREDICT": "1",
            "LLAMA_ARG_PORT": "not a number",
            "LLAMA_API_KEY": "evil",
            "LLAMA_ARG_TEMPERATURE": "0.01",
            "AIP_MODE": "PREDICTION",
        }
    private = short_path / "config"
    private.mkdir()
    env = child_environment(hostile, ServerSettings(model="m"), config_directory=str(private))
    if runtime.kind == "embedded":
        # Nothing there parses LLAMA_ARG_* or the file, so it does not even matter whether they reach it. AIP_* does.
        env = {name: value for name, value in hostile.items() if name != "AIP_MODE"}
    with program_server(runtime.command, _arguments(micro_model), short_path, env=env) as server:
        server.wait_until_ready()
        status, answer = server.ask("POST", "/v1/chat/completions", QUESTION)
        assert (status, answer["usage"]["completion_tokens"]) == (200, 5)
        params = server.ask("GET", "/props")[1]["default_generation_settings"]["params"]
        assert params["n_predict"] == -1
        assert params["temperature"] == pytest.approx(0.8)


def test_nobody_else_can_open_the_socket(embedded: Runtime, micro_model: Path, short_path: Path) -> None:
    before = os.umask(0)
    try:
        with program_server(embedded.command, _arguments(micro_model), short_path) as server:
            server.wait_until_ready()
            assert stat.S_IMODE(Path(server.socket_path).stat().st_mode) & 0o077 == 0
    finally:
        os.umask(before)


@pytest.fixture(params=["socket", "pipe"])
def lifeline(request: pytest.FixtureRequest) -> Iterator[tuple[int, Callable[[], None]]]:
    """What the server gets as its standard input, and how its owner ends it."""
    if request.param == "pipe":
        theirs, ours = os.pipe()
        end: Callable[[], None] = functools.partial(os.close, ours)
    else:
        our_socket, their_socket = socket.socketpair()
        theirs = their_socket.detach()
        end = functools.partial(our_socket.shutdown, socket.SHUT_RDWR)
    yield theirs, end
    os.close(theirs)


def test_ends_when_its_owner_ends_the_lifeline(
    embedded: Runtime, micro_model: Path, short_path: Path, lifeline: tuple[int, Callable[[], None]]
) -> None:
    theirs, end = lifeline
    arguments = _arguments(micro_model, "--context-shift")
    with program_server(embedded.command, arguments, short_path, stdin=theirs) as server:
        server.wait_until_ready()
        connection = _begin_endless_stream(server)
        end()
        assert server.process.wait(timeout=2) == 0
        connection.close()


@pytest.mark.skipif(
    sys.platform != "linux", reason="on Linux only: elsewhere the supervisor alone watches over the load"
)
def test_ends_while_it_loads_when_the_lifeline_ends(
    embedded: Runtime, smollm2_model: Path, short_path: Path, lifeline: tuple[int, Callable[[], None]]
) -> None:
    theirs, end = lifeline
    # SmolLM2 takes 0.2 s and more to load, with the GIL held all the while.
    with program_server(embedded.command, _arguments(smollm2_model), short_path, stdin=theirs) as server:
        wait_until(lambda: "loading model" in server.log.read_text(errors="replace"), what="the load to begin")
        end()
        assert server.process.wait(timeout=2) == -signal.SIGTERM
        assert "model loaded" not in server.log.read_text(errors="replace")


def test_stays_without_a_lifeline(embedded: Runtime, micro_model: Path, short_path: Path) -> None:
    # /dev/null is at its end from the first read on.
    with program_server(embedded.command, _arguments(micro_model), short_path) as server:
        server.wait_until_ready()
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(timeout=0.3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_request_in_flight(
    embedded: Runtime, micro_model: Path, short_path: Path, number: signal.Signals
) -> None:
    with program_server(embedded.command, _arguments(micro_model, "--context-shift"), short_path) as server:
        server.wait_until_ready()
        connection = _begin_endless_stream(server)
        server.process.send_signal(number)
        assert server.process.wait(timeout=2) == -number
        connection.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nosuch"], "error: invalid argument: --nosuch"),
        (["-c", "abc"], 'error while handling argument "-c"'),
        (["-c", "99999999999999999999"], 'error while handling argument "-c"'),
        (["-c"], "expected value for argument"),
        (["-fa", "maybe"], "'maybe'"),
        (["--chat-template-kwargs", "[1]"], "not a JSON object"),
        (["--chat-template-file", "/nope"], "failed to open file '/nope'"),
        (["--slot-save-path", "/nope"], "not a directory: /nope"),
        ([], "--model is required"),
        (["-m", "/nope.gguf", "--host", "/nope/x.sock"], "couldn't bind"),
    ],
)
def test_a_fault_ends_it_with_code_1_and_the_reason(embedded: Runtime, arguments: list[str], said: str) -> None:
    ended = _run(embedded.command, *arguments)
    assert ended.returncode == 1
    assert said in ended.stderr


def test_a_model_that_cannot_be_loaded_ends_it(embedded: Runtime, short_path: Path) -> None:
    broken = short_path / "broken.gguf"
    broken.write_bytes(b"<html>")
    ended = _run(embedded.command, "-m", str(broken), "--host", str(short_path / "x.sock"))
    assert ended.returncode == 1
    assert "failed to load model" in ended.stderr


def test_without_the_library_it_says_so(embedded: Runtime, short_path: Path) -> None:
    ended = _run(_command_with_library(embedded, short_path), "-m", "x")
    assert ended.returncode == 1
    assert f"cannot load xllamacpp from {short_path}" in ended.stderr


def test_help_and_version_do_not_load_the_library(embedded: Runtime, short_path: Path) -> None:
    trap = short_path / "xllamacpp"
    trap.mkdir()
    (trap / "__init__.py").write_text("raise SystemExit('loaded')")
    (short_path / "xllamacpp-1.2.345.dist-info").mkdir()
    command = _command_with_library(embedded, short_path)
    shown = _run(command, "--help")
    assert (shown.returncode, "--ctx-size" in shown.stdout) == (0, True)
    shown = _run(command, "--version")
    assert shown.returncode == 0
    assert shown.stderr.startswith("version: 1.2.345 (build 345, commit ")
