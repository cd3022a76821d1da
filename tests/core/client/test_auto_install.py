"""`auto_install=True`: the first generation brings a runtime, against a stand-in of Homebrew that notes what it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from localllama import (
    ChatRequest,
    ClientClosedError,
    LocalLlamaClient,
    LocalLlamaWarning,
    Message,
    RuntimeBrokenError,
    RuntimeNotFoundError,
    ServerSettings,
    UnsupportedFeatureError,
)
from localllama._runtime import resolve
from localllama._server import auto_install
from support.fake_llama_server import Behaviour, make_fake_llama_server
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="on Linux only: its package managers")

HELLO = ChatRequest((Message("user", "Hello"),))
MakeSettings = Callable[..., ServerSettings]


class Homebrew:
    """A stand-in for `brew`, alone on PATH; it pours a fake llama-server."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "bin"
        self.path.mkdir()
        self.cellar = tmp_path / "cellar"
        self.cellar.mkdir()
        self.log = tmp_path / "told"

    def install(self, before: str = "", *, asked: str = "", pours: Behaviour | None = None, code: int = 0) -> None:
        make_fake_llama_server(self.cellar, pours or Behaviour())
        pour = f"/bin/ln -s {self.cellar}/llama-server {self.path}/llama-server" if not code else f"exit {code}"
        brew = self.path / "brew"
        brew.write_text(
            f'#!/bin/sh\necho "brew $*" >> {self.log}\n{asked}\n[ "$1" = install ] || exit 0\n'
            f"echo 'pouring llama.cpp'\n{before}\n{pour}\n"
        )
        brew.chmod(0o755)

    def told(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def brew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Homebrew:
    """No runtime, and no package manager but this one; pip is out of reach, since only it would reach a network."""
    homebrew = Homebrew(tmp_path)
    monkeypatch.delenv("LOCALLLAMA_TEST_LLAMA_SERVER", raising=False)  # nor the one that other tests are run on
    monkeypatch.setenv("PATH", str(homebrew.path))
    monkeypatch.setenv("LOCALLLAMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(resolve, "_PREFIXES", ())
    monkeypatch.setattr(resolve, "_library_directory", lambda: None)
    monkeypatch.setattr(auto_install, "_failures", {})
    methods = tuple(method for method in auto_install.methods_for("auto") if method.name != "pip")
    monkeypatch.setattr(auto_install, "methods_for", lambda _: methods)
    return homebrew


def test_the_first_generation_installs_and_goes_on(
    brew: Homebrew, make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    brew.install()
    stages = []
    with LocalLlamaClient(make_settings(auto_install=True)) as client:
        assert brew.told() == [], "nothing before the first generation"
        with pytest.warns(LocalLlamaWarning, match=rf"Running: {brew.path}/brew install llama\.cpp"):
            client.start(lambda step: stages.append((step.stage, step.detail)))
        assert client.chat(HELLO).text == "Hello, world."
    assert brew.told() == ["brew info llama.cpp", "brew install llama.cpp"]
    assert ("installing", f"{brew.path}/brew install llama.cpp") in stages
    assert "pouring llama.cpp" in capsys.readouterr().err
    with LocalLlamaClient(make_settings(auto_install=True, n_ctx=512)) as again, warnings.catch_warnings():
        warnings.simplefilter("error", LocalLlamaWarning)
        assert again.chat(HELLO).text
    assert len(brew.told()) == 2


async def test_the_async_client_installs_too(brew: Homebrew, make_settings: MakeSettings) -> None:
    from localllama import AsyncLocalLlamaClient

    brew.install()
    async with AsyncLocalLlamaClient(make_settings(auto_install=True)) as client:
        with pytest.warns(LocalLlamaWarning, match="Running"):
            assert (await client.chat(HELLO)).text


def test_nothing_is_installed_unasked(brew: Homebrew, make_settings: MakeSettings) -> None:
    brew.install()
    with LocalLlamaClient(make_settings()) as client, pytest.raises(RuntimeNotFoundError) as caught:
        client.chat(HELLO)
    assert brew.told() == []
    assert "auto_install" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::localllama.errors.LocalLlamaWarning")
def test_a_failure_is_the_usual_error_and_what_was_tried_and_is_not_repeated(
    brew: Homebrew, make_settings: MakeSettings
) -> None:
    brew.install(code=3)
    with LocalLlamaClient(make_settings(auto_install=True)) as client:
        for _ in range(2):
            with pytest.raises(RuntimeNotFoundError, match=r"No llama\.cpp program was found") as caught:
                client.chat(HELLO)
            assert "auto_install tried" in caught.value.message
            assert "brew install llama.cpp` exited with code 3" in caught.value.message
            assert "apt: apt-get is not on this machine" in caught.value.message
            assert caught.value.places
            assert caught.value.hint
    assert brew.told() == ["brew info llama.cpp", "brew install llama.cpp"]


@pytest.mark.filterwarnings("ignore::localllama.errors.LocalLlamaWarning")
def test_what_was_installed_must_load_a_model(brew: Homebrew, make_settings: MakeSettings) -> None:
    brew.install(pours=Behaviour(load_signal="SIGILL"))
    with LocalLlamaClient(make_settings(auto_install=True)) as client:
        with pytest.raises(RuntimeNotFoundError, match=r"auto_install tried.*brew: .*SIGILL"):
            client.chat(HELLO)


@pytest.mark.filterwarnings("ignore::localllama.errors.LocalLlamaWarning")
def test_a_broken_runtime_is_no_runtime(brew: Homebrew, tmp_path: Path, make_settings: MakeSettings) -> None:
    broken = make_fake_llama_server(tmp_path, Behaviour(help_signal="SIGILL"))
    brew.install(code=3)
    with LocalLlamaClient(make_settings(runtime=str(broken), auto_install=True)) as client:
        with pytest.raises(RuntimeBrokenError, match=r"SIGILL.*auto_install tried"):
            client.chat(HELLO)
    brew.install()
    with LocalLlamaClient(make_settings(runtime=str(broken), auto_install=True, n_ctx=512)) as client:
        auto_install._failures.clear()
        assert client.chat(HELLO).text


def test_a_runtime_that_works_and_lacks_a_flag_is_not_replaced(
    brew: Homebrew, tmp_path: Path, make_settings: MakeSettings
) -> None:
    brew.install()
    working = make_fake_llama_server(tmp_path)
    with LocalLlamaClient(make_settings(runtime=str(working), auto_install=True, flash_attn="on")) as client:
        with pytest.raises(UnsupportedFeatureError, match="flash_attn"):
            client.chat(HELLO)
    assert brew.told() == []


@pytest.mark.filterwarnings("ignore::localllama.errors.LocalLlamaWarning")
def test_the_mock_is_the_rung_below(brew: Homebrew, make_settings: MakeSettings) -> None:
    brew.install(code=3)
    with LocalLlamaClient(make_settings(auto_install=True, allow_mock=True)) as client:
        assert "mock" in client.chat(HELLO).text
    assert "brew install llama.cpp" in brew.told()


def test_a_rung_that_nobody_installs_is_not_installed(brew: Homebrew, make_settings: MakeSettings) -> None:
    brew.install()
    with LocalLlamaClient(make_settings(runtime="one-shot", auto_install=True)) as client:
        with pytest.raises(RuntimeNotFoundError):
            client.chat(HELLO)
    assert brew.told() == []


def _wait_in_shell(path: Path) -> str:
    return f"n=0\nwhile [ ! -e {path} ] && [ $n -lt 600 ]; do /bin/sleep 0.05; n=$((n+1)); done"


@pytest.mark.filterwarnings("ignore::localllama.errors.LocalLlamaWarning")
def test_two_threads_install_once(brew: Homebrew, tmp_path: Path, make_settings: MakeSettings) -> None:
    second_waits = tmp_path / "second-waits"
    brew.install(_wait_in_shell(second_waits))

    def answer(n_ctx: int) -> str:
        with LocalLlamaClient(make_settings(auto_install=True, n_ctx=n_ctx)) as client:
            client.start(lambda step: second_waits.touch() if "waiting" in step.detail else None)
            return client.chat(HELLO).text

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(answer, (256, 512))) == ["Hello, world."] * 2
    assert second_waits.exists()
    assert brew.told() == ["brew info llama.cpp", "brew install llama.cpp"]


_PROCESS = """
import json, sys
from pathlib import Path
from localllama import ChatRequest, LocalLlamaClient, Message, ServerSettings
settings = ServerSettings(model=sys.argv[1], runtime="llama-server", auto_install=True)
with LocalLlamaClient(settings) as client:
    client.start(lambda step: Path(sys.argv[2]).touch() if "waiting" in step.detail else None)
    print(json.dumps(client.chat(ChatRequest((Message("user", "Hello"),))).text))
"""


def test_two_processes_install_once(brew: Homebrew, tmp_path: Path, micro_model: Path) -> None:
    second_waits = tmp_path / "second-waits"
    brew.install(_wait_in_shell(second_waits))
    command = [sys.executable, "-c", _PROCESS, str(micro_model), str(second_waits)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert answers == ["Hello, world."] * 2
    assert brew.told() == ["brew info llama.cpp", "brew install llama.cpp"]


@pytest.mark.filterwarnings("ignore::localllama.errors.LocalLlamaWarning")
@pytest.mark.parametrize("told", ["info", "install"])
def test_what_runs_is_ended_when_nobody_waits_any_more(
    brew: Homebrew, tmp_path: Path, make_settings: MakeSettings, told: str
) -> None:
    pid_file = tmp_path / "pid"
    waits = f"echo $$ > {pid_file}.new; /bin/mv {pid_file}.new {pid_file}; exec /bin/sleep 600"
    brew.install(asked=f'[ "$1" = {told} ] && {{ {waits}; }}')
    client = LocalLlamaClient(make_settings(auto_install=True))
    errors: list[BaseException] = []

    def generate() -> None:
        try:
            client.chat(HELLO)
        except ClientClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=generate)
    thread.start()
    wait_until(pid_file.exists, seconds=30, what="the installer")
    client.close()
    thread.join(30)
    assert errors
    assert not psutil.pid_exists(int(pid_file.read_text()))


def test_an_unwritable_cache_is_said(
    brew: Homebrew, make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brew.install()
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOCALLLAMA_CACHE", str(tmp_path / "file" / "cache"))
    with LocalLlamaClient(make_settings(auto_install=True)) as client:
        with pytest.raises(RuntimeNotFoundError, match="LOCALLLAMA_CACHE"):
            client.chat(HELLO)
    assert brew.told() == []


def test_langchain_passes_it_on(brew: Homebrew, micro_model: Path) -> None:
    from langchain_localllama import ChatLocalLlama

    brew.install()
    with ChatLocalLlama(model=str(micro_model), n_ctx=512, auto_install=True) as llm:
        with pytest.warns(LocalLlamaWarning, match="Running"):
            assert llm.invoke("Hello").content == "Hello, world."


def test_llamaindex_passes_it_on(brew: Homebrew, micro_model: Path) -> None:
    from llamaindex_localllama import LocalLlama

    brew.install()
    with LocalLlama(model=str(micro_model), n_ctx=512, auto_install=True) as llm:
        with pytest.warns(LocalLlamaWarning, match="Running"):
            assert llm.complete("Hello").text == "Hello, world."
