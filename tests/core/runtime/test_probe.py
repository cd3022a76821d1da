"""What a program says it can do, and what is said when it cannot even do that."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psutil
import pytest

from localllama._runtime import probe
from localllama._runtime.probe import runtime_version, supported_flags, supports_unix_sockets
from localllama._runtime.runtime import Runtime
from localllama.errors import RuntimeBrokenError
from support.fake_llama_server import Behaviour, make_fake_llama_server
from support.waiting import wait_until

HELP_OF_2024 = """usage: ./llama-server [options]

general:

  -h,    --help, --usage          print usage and exit
  -m,    --model FNAME            model path (default: models/x.gguf)
  -c,    --ctx-size N             size of the prompt context (default: 0) --not-a-flag
         --host HOST              ip address to listen (default: 127.0.0.1)
         --port PORT              port to listen (default: 8080)
"""
HELP_OF_2026 = """----- common params -----

-h,    --help, --usage                  print usage and exit
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading, see --other
-m,    --model FNAME                    model path
-c,    --ctx-size N                     size
--fim-qwen-1.5b-default                 a name with a dot
--host HOST                             or UNIX socket paths ending in .sock
--port PORT                             port
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
--draft-min, --draft-n-min N            the argument
                                        has been removed. use --spec-draft-n-min
"""


def program(path: Path, text: str) -> Runtime:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Runtime(kind="llama-server", command=(str(path),), origin=str(path))


def printing(path: Path, text: str) -> Runtime:
    return program(path, f"cat <<'END'\n{text}\nEND")


def test_real_programs_list_what_we_need(runtime: Runtime) -> None:
    flags = supported_flags(runtime)
    assert {"--model", "-m", "--ctx-size", "-c", "--host", "--parallel", "-np", "--no-ui", "--no-webui"} <= flags
    assert supports_unix_sockets(runtime)
    assert runtime_version(runtime)


def test_the_embedded_runtime_is_known_without_asking_it_and_says_the_same(embedded: Runtime) -> None:
    command = [*embedded.command, "--help"]
    printed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    assert supported_flags(embedded) == probe._listed_flags(printed)


def test_every_spelling_is_read_and_no_prose(tmp_path: Path) -> None:
    flags = supported_flags(printing(tmp_path / "new", HELP_OF_2026))
    assert {"-kvo", "--kv-offload", "-nkvo", "--no-kv-offload", "--fim-qwen-1.5b-default"} <= flags
    assert not {"--other", "--spec-draft-n-max", "--spec-ngram-mod-n-max"} & flags


def test_flags_that_are_listed_as_removed_are_left_out(tmp_path: Path) -> None:
    flags = supported_flags(printing(tmp_path / "new", HELP_OF_2026))
    assert not {"--draft", "--draft-n", "--draft-max", "--draft-min", "--draft-n-min"} & flags


def test_the_help_of_old_builds_is_read_too(tmp_path: Path) -> None:
    runtime = printing(tmp_path / "old", HELP_OF_2024)
    assert supported_flags(runtime) >= {"-m", "--model", "-c", "--ctx-size", "--host", "--port"}
    assert "--not-a-flag" not in supported_flags(runtime)
    assert not supports_unix_sockets(runtime)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Behaviour(missing_library="libllama.so"), "libllama.so"),
        (Behaviour(help_signal="SIGILL"), "SIGILL"),
    ],
)
def test_a_program_that_cannot_print_its_help_is_broken(tmp_path: Path, behaviour: Behaviour, said: str) -> None:
    path = make_fake_llama_server(tmp_path, behaviour)
    with pytest.raises(RuntimeBrokenError) as caught:
        supported_flags(Runtime(kind="llama-server", command=(str(path),), origin="the fake"))
    assert caught.value.runtime == "the fake"
    assert said in caught.value.message
    assert caught.value.hint


def test_another_program_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(RuntimeBrokenError, match="another program") as caught:
        supported_flags(printing(tmp_path / "cat", "usage: cat [-n] FILE"))
    assert "usage: cat" in caught.value.log_tail


def test_a_file_that_cannot_be_executed_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(b"\x7fELF" + bytes(60))
    path.chmod(0o755)
    with pytest.raises(RuntimeBrokenError, match="could not be started"):
        supported_flags(Runtime(kind="llama-server", command=(str(path),), origin="foreign"))


def test_a_program_that_hangs_is_given_up_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hanging = program(tmp_path / "hang", f"sleep 60 & echo $! > {pids}\necho begun\nwait")
    begun = time.monotonic()
    with pytest.raises(RuntimeBrokenError, match="within 1 s") as caught:
        supported_flags(hanging, timeout_seconds=1.0)
    assert time.monotonic() - begun < 10
    assert caught.value.log_tail == "begun"
    sleeper = int(pids.read_text())
    wait_until(lambda: not psutil.pid_exists(sleeper) or is_zombie(sleeper), seconds=5, what="the end of the sleeper")


def test_what_a_program_starts_while_it_is_asked_is_gone(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    text = f"sleep 60 & echo $! > {pids}\nsetsid sh -c 'echo $$ >> {pids}; exec sleep 60' &\n"
    text += f"while [ $(wc -l < {pids}) -lt 2 ]; do sleep 0.01; done\ncat <<'END'\n{HELP_OF_2026}\nEND"
    assert "--host" in supported_flags(program(tmp_path / "forking", text))
    sleepers = [int(pid) for pid in pids.read_text().split()]
    assert len(sleepers) == 2
    wait_until(lambda: all(is_zombie(pid) for pid in sleepers), seconds=5, what="the end of the sleepers")


def is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_users_environment_does_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_PORT", "zzz")
    guarded = program(tmp_path / "guarded", f'[ -z "$LLAMA_ARG_PORT" ] || exit 1\ncat <<END\n{HELP_OF_2024}\nEND')
    assert "--port" in supported_flags(guarded)


def test_it_is_asked_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_known", {})
    counter = tmp_path / "counter"
    text = f"echo x >> {counter}\ncat <<'END'\n{HELP_OF_2024}\nEND"
    runtime = program(tmp_path / "counted", text)
    for _ in range(3):
        supported_flags(runtime)
    assert counter.read_text().count("x") == 1
    program(tmp_path / "counted", text.replace("--port", "--port, --new-flag"))
    assert "--new-flag" in supported_flags(runtime)


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("version: 8994 (aab68217b)", "build 8994"),
        ("version: 0.1.0-dev (build 10453, commit 3cb7ffb1a)", "0.1.0-dev (build 10453)"),
        ("version: 0.6.0 (build 0, commit unknown)", "0.6.0 (build 0)"),
        ("load_backend: loaded CPU backend\nversion: 7000 (abc1234)", "build 7000"),
        ("no version at all", None),
    ],
)
def test_versions_of_all_ages_are_read(tmp_path: Path, printed: str, version: str | None) -> None:
    assert runtime_version(program(tmp_path / "versioned", f"echo '{printed}' >&2")) == version
