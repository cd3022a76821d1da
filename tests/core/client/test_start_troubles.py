"""Starts that go wrong beside the program: the port was taken, the disk is full, or nobody waits any more."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from localllama import (
    ClientClosedError,
    LocalLlamaClient,
    RuntimeBrokenError,
    ServerSettings,
    ServerStartError,
    StartProgress,
)
from localllama._processes.private_directory import _locks
from support.fake_llama_server import Behaviour, make_fake_llama_server, recorded
from support.waiting import wait_until

MakeSettings = Callable[..., ServerSettings]

TAKEN = "0.00.003.356 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080\n"


@pytest.mark.parametrize("n_taken", [2, 3])
def test_a_port_that_somebody_took_is_tried_thrice(tmp_path: Path, make_settings: MakeSettings, n_taken: int) -> None:
    program = make_fake_llama_server(tmp_path, Behaviour(exit_code=1, log=TAKEN, only_first_starts=n_taken))
    with LocalLlamaClient(make_settings(runtime=str(program), listen="tcp")) as client:
        if n_taken == 2:
            client.start()
            assert client.is_running
        else:
            with pytest.raises(ServerStartError, match="couldn't bind") as caught:
                client.start()
            assert caught.value.exit_code == 1
    starts = recorded(program, "start")
    assert len(starts) == 3
    ports = [start["argv"][start["argv"].index("--port") + 1] for start in starts]
    assert all(port.isdecimal() for port in ports)


def test_a_full_disk_is_told_and_nothing_is_left(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir
    made: list[Path] = []

    def mkdir_until_full(path: Path, *arguments: object, **options: object) -> None:
        if path.name == "config":
            made.append(path.parent)
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        mkdir(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", mkdir_until_full)
    program = make_fake_llama_server(tmp_path)
    with LocalLlamaClient(make_settings(runtime=str(program))) as client:
        with pytest.raises(ServerStartError, match="No space left on device") as caught:
            client.start()
    assert "TMPDIR" in str(caught.value.hint)
    (directory,) = made
    assert not directory.exists()
    assert directory not in _locks


def test_a_client_that_is_closed_while_its_server_loads_waits_no_longer(
    tmp_path: Path, make_settings: MakeSettings
) -> None:
    program = make_fake_llama_server(tmp_path, Behaviour(is_loading_forever=True))
    client = LocalLlamaClient(make_settings(runtime=str(program)))
    is_loading = threading.Event()
    outcomes: list[BaseException] = []

    def see(step: StartProgress) -> None:
        if step.stage == "loading":
            is_loading.set()

    def start() -> None:
        try:
            client.start(see)
        except BaseException as error:  # noqa: BLE001
            outcomes.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    assert is_loading.wait(60)
    client.close()
    thread.join(60)
    assert [type(error) for error in outcomes] == [ClientClosedError]
    wait_until(lambda: not client.is_running, what="the end of the server")


def test_a_relative_path_names_another_model_in_another_directory(
    tmp_path: Path, make_settings: MakeSettings, micro_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal settings share a server, and these are equal in every letter."""
    clients = []
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "m.gguf").write_bytes(micro_model.read_bytes())
        program = make_fake_llama_server(tmp_path)
        monkeypatch.chdir(directory)
        clients.append(LocalLlamaClient(make_settings(runtime=str(program), model="m.gguf")))
        clients[-1].start()
    served = [start["argv"][start["argv"].index("--model") + 1] for start in recorded(program, "start")]
    assert served == [str(tmp_path / name / "m.gguf") for name in ("one", "two")]
    assert len({client.server_pid for client in clients}) == 2
    for client in clients:
        client.close()


def test_every_runtime_that_fails_has_its_part_in_the_error(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from localllama._runtime import resolve

    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        place.mkdir()
        make_fake_llama_server(place, Behaviour(load_signal="SIGILL"))
    monkeypatch.setenv("PATH", f"{places[0]}:{places[1]}:/usr/bin:/bin")
    monkeypatch.setattr(resolve, "_PREFIXES", ())
    with LocalLlamaClient(make_settings(runtime="llama-server")) as client:
        with pytest.warns(match="passed over"), pytest.raises(RuntimeBrokenError) as caught:
            client.start()
    assert all(str(place) in caught.value.message for place in places)
    assert len(caught.value.causes) == 2
