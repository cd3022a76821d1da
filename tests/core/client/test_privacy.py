"""What other users and other programs can see of us: no key, no prompt, no open door."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from localllama import AsyncLocalLlamaClient, ChatRequest, LocalLlamaClient, Message, SamplingSettings, ServerSettings

PROMPT = "xyzzy-very-private-words"
PRIVATE = ChatRequest((Message("user", PROMPT),))
SHORT = SamplingSettings(max_tokens=8)
MakeSettings = Callable[..., ServerSettings]


def _visible_to_others(pid: int) -> str:
    """What `ps` and `lsof` show of a process and its descendants: command lines, open files, sockets."""
    shown = []
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile, or is a zombie: nothing to see
            shown += process.cmdline()
            shown += [file.path for file in process.open_files()]
            shown += [str(c.laddr) for c in process.net_connections("all")]
    return "\n".join(shown)


def test_command_lines_logs_and_reprs_show_no_prompt(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), LocalLlamaClient(make_settings(), sampling=SHORT) as client:
        client.chat(PRIVATE)
        running = client._connection.running()
        assert running is not None
        assert PROMPT not in running.process.log_tail()
        assert PROMPT not in _visible_to_others(os.getpid())
        assert PROMPT not in caplog.text
        assert PROMPT not in repr(client)


def test_no_port_is_open(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings(), sampling=SHORT) as client:
        client.chat(PRIVATE)
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            assert [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []


def test_the_socket_is_behind_a_door_of_its_user(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings(), sampling=SHORT) as client:
        client.chat(PRIVATE)
        running = client._connection.running()
        assert running is not None
        path = Path(running.endpoint.socket_path or "")
        directory = path.parent.stat()
        assert stat.S_IMODE(directory.st_mode) == 0o700
        assert directory.st_uid == os.getuid()
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        for file in path.parent.rglob("*"):
            assert stat.S_IMODE(file.lstat().st_mode) & 0o077 == 0, file


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_cannot_connect(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings(), sampling=SHORT) as client:
        client.chat(PRIVATE)
        running = client._connection.running()
        assert running is not None
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                os.setgid(65534)
                os.setuid(65534)
                with socket.socket(socket.AF_UNIX) as stranger:
                    stranger.connect(running.endpoint.socket_path or "")
                code = 1
            except PermissionError:
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "a stranger reached the server"


def test_tcp_wants_the_key_and_shows_it_to_nobody(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings(listen="tcp"), sampling=SHORT) as client:
        assert client.chat(PRIVATE).text
        running = client._connection.running()
        assert running is not None
        key = running.endpoint.api_key
        assert key
        for text in (_visible_to_others(os.getpid()), repr(client), repr(running), running.process.log_tail()):
            assert key not in text
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{running.endpoint.base_url}/props", timeout=5)
        refused.value.close()
        assert refused.value.code == 401


@pytest.mark.parametrize("make_client", [LocalLlamaClient, AsyncLocalLlamaClient])
def test_a_key_of_the_user_is_never_shown(make_client: type[LocalLlamaClient]) -> None:
    settings = ServerSettings(base_url="http://127.0.0.1:1", api_key="hush-hush")  # type: ignore[arg-type]
    client = make_client(settings)
    for text in (repr(settings), str(settings), repr(client), settings.model_dump_json(), settings.identity()):
        assert "hush-hush" not in text
