"""How the server of a client lives: started once, shared, restarted, stopped, whoever asks and however they leave."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from localllama import (
    AsyncLocalLlamaClient,
    ChatRequest,
    ClientClosedError,
    LocalLlamaClient,
    Message,
    ModelNotFoundError,
    SamplingSettings,
    ServerCrashedError,
    ServerSettings,
    StreamInterruptedError,
    TimeoutSettings,
)
from support.processes import ProcessIdentity
from support.waiting import wait_until

HELLO = ChatRequest((Message("user", "Hello"),))
SHORT = SamplingSettings(max_tokens=8)
LONG = SamplingSettings(max_tokens=4000, ignore_eos=True)

MakeSettings = Callable[..., ServerSettings]


@pytest.fixture(autouse=True)
def nothing_runs_yet() -> None:
    """Graphs of the tests before may be garbage that still holds the server which their class shared."""
    gc.collect()
    wait_until(lambda: servers_of_this_process() == [], seconds=5, what="the end of the servers of other tests")


@pytest.fixture
def client(make_settings: MakeSettings) -> Iterator[LocalLlamaClient]:
    with LocalLlamaClient(make_settings(), sampling=SHORT) as client:
        yield client


def servers_of_this_process() -> list[psutil.Process]:
    """The servers are grandchildren: between them and us are their supervisors."""
    me = psutil.Process()
    supervisors = me.children()
    return [p for p in me.children(recursive=True) if p not in supervisors and "--host" in _command_line(p)]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.NoSuchProcess:
        return []


def test_nothing_starts_before_the_first_call(client: LocalLlamaClient) -> None:
    assert client.model_info() is not None
    assert repr(client)
    assert not client.is_running
    assert servers_of_this_process() == []
    client.chat(HELLO)
    assert client.is_running
    assert len(servers_of_this_process()) == 1


def test_32_threads_and_32_tasks_start_one_server(make_settings: MakeSettings) -> None:
    settings = make_settings(parallel=4)
    clients = [LocalLlamaClient(settings, sampling=SHORT) for _ in range(32)]
    task_client = AsyncLocalLlamaClient(settings, sampling=SHORT)

    async def ask_32_times() -> None:
        await asyncio.gather(*(task_client.chat(HELLO) for _ in range(32)))

    with ThreadPoolExecutor(33) as pool:
        tasks = pool.submit(lambda: asyncio.run(ask_32_times()))
        results = list(pool.map(lambda client: client.chat(HELLO), clients))
        tasks.result()
    assert all(result.usage is not None and result.usage.completion_tokens == 8 for result in results)
    assert len(servers_of_this_process()) == 1
    assert {client.server_pid for client in clients} == {task_client.server_pid}
    for client in clients:
        client.close()
    assert task_client.is_running, "the last lease is still held"
    task_client.close()
    assert servers_of_this_process() == []


def test_different_settings_have_different_servers(make_settings: MakeSettings) -> None:
    with (
        LocalLlamaClient(make_settings(), sampling=SHORT) as one,
        LocalLlamaClient(make_settings(n_ctx=1024), sampling=SHORT) as other,
    ):
        one.chat(HELLO)
        other.chat(HELLO)
        assert one.server_pid != other.server_pid
        assert other.server_info().n_ctx == 1024


def test_close_is_idempotent_and_use_after_it_says_so(client: LocalLlamaClient) -> None:
    client.chat(HELLO)
    server = ProcessIdentity.of(client.server_pid or 0)
    client.close()
    client.close()
    assert not server.is_alive(), "close() returns when the server is gone"
    with pytest.raises(ClientClosedError, match="closed"):
        client.chat(HELLO)
    with pytest.raises(ClientClosedError, match="closed"):
        client.stream_chat(HELLO)


def test_close_while_another_thread_generates(client: LocalLlamaClient) -> None:
    begun = threading.Event()

    def generate() -> None:
        for chunk in client.stream_chat(HELLO, sampling=LONG):
            if chunk.text:
                begun.set()

    with ThreadPoolExecutor(1) as pool:
        generation = pool.submit(generate)
        assert begun.wait(10)
        client.close()
        with pytest.raises(ClientClosedError):
            generation.result(timeout=5)


def test_a_dropped_client_stops_its_server(make_settings: MakeSettings) -> None:
    client = LocalLlamaClient(make_settings(), sampling=SHORT)
    client.chat(HELLO)
    server = ProcessIdentity.of(client.server_pid or 0)
    del client
    gc.collect()
    wait_until(lambda: not server.is_alive(), seconds=2, what="the end of the dropped client's server")


def test_an_unused_object_keeps_the_server_of_its_short_lived_twins(make_settings: MakeSettings) -> None:
    """LangChain's configurable fields make a new model for every call, beside the one that the user keeps."""
    settings = make_settings()
    kept = LocalLlamaClient(settings)
    pids = set()
    for _ in range(2):
        twin = LocalLlamaClient(settings, sampling=SHORT)
        twin.chat(HELLO)
        pids.add(twin.server_pid)
        del twin
        gc.collect()
    assert len(pids) == 1
    assert kept.is_running
    kept.close()


def test_copies_share_the_server_and_do_not_kill_it(client: LocalLlamaClient) -> None:
    client.chat(HELLO)
    copies = [copy.copy(client), copy.deepcopy(client), pickle.loads(pickle.dumps(client))]
    for duplicate in copies:
        duplicate.chat(HELLO)
        assert duplicate.server_pid == client.server_pid
        duplicate.close()
    assert client.is_running
    client.chat(HELLO)


def test_a_killed_server_is_replaced(client: LocalLlamaClient) -> None:
    client.chat(HELLO)
    first_pid = client.server_pid
    os.kill(first_pid or 0, signal.SIGKILL)
    assert client.chat(HELLO).text
    assert client.server_pid != first_pid


def test_an_error_about_a_crash_keeps_no_client_alive(client: LocalLlamaClient) -> None:
    client.start()
    assert client.server_pid is not None
    os.kill(client.server_pid, signal.SIGKILL)
    shared = client._connection._shared()
    for _ in range(2):
        error = shared.crash_of(1)
        assert error is not None
        assert error.__traceback__ is None
        with pytest.raises(ServerCrashedError):
            raise error


def test_a_stream_that_has_begun_says_what_came(client: LocalLlamaClient) -> None:
    stream = client.stream_chat(HELLO, sampling=LONG)
    came = next(chunk.text for chunk in stream if chunk.text)
    os.kill(client.server_pid or 0, signal.SIGKILL)
    with pytest.raises(StreamInterruptedError) as caught:
        for chunk in stream:
            came += chunk.text
    assert caught.value.partial is not None
    assert caught.value.partial.text == came
    assert "SIGKILL" in str(caught.value)
    assert client.chat(HELLO).text, "the next call has a new server"


def test_a_request_without_an_answer_is_sent_once_more(client: LocalLlamaClient) -> None:
    """The slot is taken, so the second request waits in the server's queue when the server dies."""
    holder = client.stream_chat(HELLO, sampling=LONG)
    next(chunk for chunk in holder if chunk.text)
    first_pid = client.server_pid or 0
    os.kill(first_pid, signal.SIGSTOP)  # so that the second request can surely not be answered before the death
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.chat, HELLO)
        wait_until(lambda: _established_sockets() >= 2, what="the second request's connection")
        os.kill(first_pid, signal.SIGKILL)
        assert waiting.result(timeout=20).text
    assert client.server_pid != first_pid
    holder.close()


def _established_sockets() -> int:
    return sum(
        1 for c in psutil.Process().net_connections("unix") if c.status in ("ESTABLISHED", "NONE") and c.fd != -1
    )


def test_a_socket_that_was_removed_is_no_dead_end(client: LocalLlamaClient) -> None:
    client.chat(HELLO)
    first = client._connection.running()
    assert first is not None
    assert first.endpoint.socket_path
    server = ProcessIdentity.of(first.process.pid)
    Path(first.endpoint.socket_path).unlink()
    assert client.chat(HELLO).text
    assert client.server_pid != first.process.pid
    assert not server.is_alive(), "the server that nobody can reach is stopped"


def test_a_server_that_no_longer_listens_is_replaced(client: LocalLlamaClient) -> None:
    """So llama-server is after a SIGTERM, until its last request in flight ends."""
    client.chat(HELLO)
    first = client._connection.running()
    assert first is not None
    assert first.endpoint.socket_path
    Path(first.endpoint.socket_path).unlink()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(first.endpoint.socket_path)
    assert client.chat(HELLO).text
    assert client.server_pid != first.process.pid


def test_the_working_directory_may_be_gone(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    directory = tmp_path / "gone"
    directory.mkdir()
    monkeypatch.chdir(directory)
    directory.rmdir()
    with LocalLlamaClient(settings) as client:
        assert client.chat(HELLO).text
    with LocalLlamaClient(settings.with_changes({"model": "micro.gguf"})) as client, pytest.raises(ModelNotFoundError):
        client.start()


def test_an_idle_server_stops_and_comes_back(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings(idle_timeout_seconds=0.2), sampling=SHORT) as client:
        client.chat(HELLO)
        wait_until(lambda: not client.is_running, seconds=5, what="the idle stop")
        wait_until(lambda: servers_of_this_process() == [], seconds=2, what="the end of the idle server")
        assert client.chat(HELLO).text


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("seconds", [3e6, 1e300, float("inf")])
def test_limits_of_any_length_are_taken(make_settings: MakeSettings, seconds: float) -> None:
    limits = TimeoutSettings.build(dict.fromkeys(TimeoutSettings.model_fields, seconds))
    settings = make_settings(idle_timeout_seconds=seconds)
    with LocalLlamaClient(settings, sampling=SHORT, timeouts=limits) as client:
        assert client.chat(HELLO).text


def test_a_server_that_was_just_handed_out_is_not_idle(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings(), sampling=SHORT) as client:
        client.start()
        shared = client._connection._shared()
        wait_until(lambda: shared.idle_seconds() >= 1, what="a second without a request")
        assert shared.ready() is not None
        assert not shared.stop_if_idle(1)
        wait_until(lambda: shared.stop_if_idle(1), what="the idle stop")
        assert not client.is_running
        assert client.chat(HELLO).text


def test_a_stream_that_is_read_slowly_keeps_its_server(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings(idle_timeout_seconds=0.2), sampling=SHORT) as client:
        stream = client.stream_chat(HELLO)
        next(stream)
        pid = client.server_pid
        client.chat(HELLO)  # its end is not that of the stream
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began >= 1, what="five times the idle timeout")
        assert client.server_pid == pid is not None
        before_the_end = time.monotonic()
        stream.close()
        assert client._connection._shared().idle_seconds() <= time.monotonic() - before_the_end


def test_two_event_loops_one_after_the_other(make_settings: MakeSettings) -> None:
    client = AsyncLocalLlamaClient(make_settings(), sampling=SHORT)

    async def ask() -> str:
        return (await client.chat(HELLO)).text

    assert asyncio.run(ask())
    pid = client.server_pid
    assert asyncio.run(ask())
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: asyncio.run(ask())).result()
    assert client.server_pid == pid
    asyncio.run(client.aclose())
    assert client.is_closed


def test_a_cancelled_task_frees_its_slot(make_settings: MakeSettings) -> None:
    async def run() -> None:
        async with AsyncLocalLlamaClient(make_settings(), sampling=SHORT) as client:
            await client.start()
            task = asyncio.create_task(client.chat(HELLO, sampling=LONG))
            while not task.done():
                slots = await client._ask("GET", "/slots", None)
                if slots[0]["is_processing"]:
                    task.cancel()
                    break
            with pytest.raises(asyncio.CancelledError):
                await task
            deadline = asyncio.get_running_loop().time() + 2
            while (await client._ask("GET", "/slots", None))[0]["is_processing"]:
                assert asyncio.get_running_loop().time() < deadline, "the cancelled request still holds its slot"

    asyncio.run(run())


def test_what_was_learned_of_a_server_is_forgotten_with_it(client: LocalLlamaClient) -> None:
    """Also by a call that still talks to the old one when the new one is there: it must not teach the new one."""
    client.chat(HELLO)
    connection = client._connection
    old = connection.endpoint()
    connection.notes(old)["learned"] = True
    assert connection.notes(old)["learned"]
    os.kill(client.server_pid or 0, signal.SIGKILL)
    client.chat(HELLO)
    new = connection.endpoint()
    assert new.generation == old.generation + 1
    assert connection.notes(old) == {}
    assert "learned" not in connection.notes(new)


def _child_asks(client: LocalLlamaClient, parent_server_pid: int, connection: object) -> None:
    text = client.chat(HELLO).text
    is_own = client.server_pid not in (None, parent_server_pid)
    connection.send((bool(text), is_own))  # type: ignore[attr-defined]
    client.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="on POSIX only: fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_server_of_its_own(client: LocalLlamaClient) -> None:
    client.chat(HELLO)
    parent_server_pid = client.server_pid or 0
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=_child_asks, args=(client, parent_server_pid, theirs))
    child.start()
    assert mine.poll(20), "the forked child did not answer"
    assert mine.recv() == (True, True)
    child.join(10)
    assert child.exitcode == 0
    assert client.server_pid == parent_server_pid
    assert client.chat(HELLO).text, "the parent's server lives on"


def test_tcp_is_the_other_way(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings(listen="tcp"), sampling=SHORT) as client:
        assert client.chat(HELLO).text
        running = client._connection.running()
        assert running is not None
        assert running.endpoint.base_url.startswith("http://127.0.0.1:")
        key = running.endpoint.api_key
        assert key
        assert key not in repr(running.endpoint)
        assert not any(key in argument for argument in _command_line(psutil.Process(running.process.pid)))
