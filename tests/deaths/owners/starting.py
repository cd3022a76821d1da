"""What an owner program starts: a stand-in for a server, or the real client with the micro model."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

# Ignores SIGTERM, has a child of its own and a socket file: everything that can be left behind.
_STAND_IN = 'trap "" TERM; (trap "" TERM; exec sleep 1000) & : > "$0"; echo serving; wait'


def start(mode: str) -> Any:
    """Start a server and return once it serves; whoever drops what is returned gives it up.

    Args:
        mode: "standin", "client", or "busy": the client with a request in flight all the time.
    """
    if mode == "standin":
        return start_stand_in()
    return start_client(is_busy=mode == "busy")


def start_stand_in() -> Any:
    from localllama._processes.private_directory import make_private_directory
    from localllama._processes.process import LaunchPlan, launch

    directory = make_private_directory()
    server_socket = directory / "server.sock"
    process = launch(LaunchPlan(["/bin/sh", "-c", _STAND_IN, str(server_socket)], dict(os.environ), directory))
    while not server_socket.exists():
        if process.wait_for_exit(0.002) is not None:
            sys.exit(f"the stand-in ended: {process.exit_status()} {process.log_tail()}")
    return process


def start_client(*, is_busy: bool) -> Any:
    from localllama import LocalLlamaClient, ServerSettings

    settings = ServerSettings(model=os.environ["DEATHS_MODEL"], runtime="embedded", n_ctx=256, parallel=2)
    client = LocalLlamaClient(settings)
    client.start()
    if is_busy:
        has_begun = threading.Event()
        threading.Thread(target=_generate_for_ever, args=(client, has_begun), daemon=True).start()
        has_begun.wait(20)
    return client


def _generate_for_ever(client: Any, has_begun: threading.Event) -> None:
    while True:
        for _ in client.stream_complete("once"):
            has_begun.set()


def stop(started: Any) -> None:
    """Stop what `start` started, and wait for it."""
    if hasattr(started, "stop"):
        started.stop()
    else:
        started.close()


def hear_signals() -> None:
    """A test run in the background hands down ignored signals, and they would turn half of the matrix into nothing."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)


def token_into_environment() -> None:
    """From here on every program that is started carries the token; this process and its forks do not.

    So a search for the token finds servers and supervisors only (/proc/PID/environ is what a program was started with).
    """
    os.environ["LOCALLLAMA_TEST_TOKEN"] = os.environ["DEATHS_TOKEN"]


def say(word: str) -> None:
    """Tell the test where we are."""
    os.write(1, f"{word}\n".encode())
