"""The web service: streamed answers, a client that goes away, and an end that leaves nothing."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from support.example_programs import Start
from support.processes import ProcessIdentity
from support.waiting import wait_until

LONG: dict[str, Any] = {"text": "Write a very long story about a llama.", "max_tokens": 400}


def asker(socket: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://service", timeout=240)


def serve(start: Start, *arguments: object) -> subprocess.Popen[str]:
    """Start the service and wait until it listens."""
    service = start("fastapi_service", *arguments)
    assert service.stdout is not None
    assert service.stdout.readline().startswith("Listening on ")
    return service


def events(lines: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    """The kind and the data of each event, by the rules of server-sent events."""
    found, kind = [], "message"
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            found.append((kind, json.loads(line.removeprefix("data: "))))
        elif not line:
            kind = "message"
    return found


def children(service: subprocess.Popen[str]) -> list[ProcessIdentity]:
    return [ProcessIdentity.of(child.pid) for child in psutil.Process(service.pid).children(recursive=True)]


def slots(service: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What the model's server says of its slots, asked at its own socket."""
    for child in psutil.Process(service.pid).children(recursive=True):
        for connection in child.net_connections(kind="unix"):
            path = str(connection.laddr)
            if path.startswith("/") and Path(path).is_socket():
                try:
                    with asker(Path(path)) as client:
                        found: list[dict[str, Any]] = client.get("/slots").json()
                except (httpx.HTTPError, ValueError):
                    continue  # the supervisor's
                return found
    raise AssertionError("no server was found")


def is_busy(service: subprocess.Popen[str]) -> bool:
    return any(slot["is_processing"] for slot in slots(service))


def most_tokens(service: subprocess.Popen[str]) -> int:
    """Of the conversation in the fullest slot, with what was written last."""
    return max(slot.get("n_prompt_tokens", 0) for slot in slots(service))


@pytest.mark.smollm2
def test_answers_come_as_events(start: Start, tmp_path: Path, smollm2_model: Path) -> None:
    serve(start, "--model", smollm2_model)
    socket = tmp_path / "localllama.sock"
    assert not socket.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), "nobody else gets in"
    question = {"text": "Paris is the capital of France. What is the capital of France?", "max_tokens": 12}
    with asker(socket) as client, client.stream("POST", "/ask", json=question) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = events(answer.iter_lines())
    assert "Paris" in "".join(data["text"] for kind, data in found if kind == "message")
    assert sum(kind == "message" for kind, _ in found) > 1, "it was not streamed"
    kind, data = found[-1]
    assert kind == "done"
    assert 0 < data["usage"]["output_tokens"] <= 12


@pytest.mark.smollm2
def test_a_client_that_goes_away_stops_its_generation(start: Start, tmp_path: Path, smollm2_model: Path) -> None:
    service = serve(start, "--model", smollm2_model)
    with asker(tmp_path / "localllama.sock") as client:
        with client.stream("POST", "/ask", json=LONG) as answer:
            lines = answer.iter_lines()  # kept: httpx leaves when nobody holds it
            assert next(lines).startswith("data: ")
            wait_until(lambda: is_busy(service), seconds=5, what="the work on it")
        wait_until(lambda: not is_busy(service), seconds=120, what="a free slot")
        assert most_tokens(service) < LONG["max_tokens"], "it was written to its end, for nobody"
        with client.stream("POST", "/ask", json=LONG) as answer:
            kind, data = events(answer.iter_lines())[-1]
        assert kind == "done", "the service goes on"
        assert data["usage"]["output_tokens"] == LONG["max_tokens"]
        assert most_tokens(service) > LONG["max_tokens"], "an answer to its end can be told from one that was left"


@pytest.mark.smollm2
def test_sigterm_during_an_answer_leaves_nothing(start: Start, tmp_path: Path, smollm2_model: Path) -> None:
    service = serve(start, "--model", smollm2_model, "--grace", 1)
    socket = tmp_path / "localllama.sock"
    with asker(socket) as client, client.stream("POST", "/ask", json=LONG) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        servers = children(service)
        service.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)  # cut off, and the client can see that
    _, err = service.communicate(timeout=60)
    assert service.returncode == 0, err
    assert len(servers) >= 2, "a supervisor and a server"
    wait_until(lambda: not any(server.is_alive() for server in servers), seconds=5, what="the end of the server")
    assert not socket.exists()


def test_a_port_and_ctrl_c(start: Start, micro_model: Path) -> None:
    service = start("fastapi_service", "--port", 0, "--model", micro_model)
    assert service.stdout is not None
    place = re.fullmatch(r"Listening on \('127\.0\.0\.1', (\d+)\)\n", service.stdout.readline())
    assert place
    url = f"http://127.0.0.1:{place[1]}"
    with httpx.stream("POST", f"{url}/ask", json={"text": "Hello", "max_tokens": 8}, timeout=240) as answer:
        assert events(answer.iter_lines())[-1][1]["usage"]["output_tokens"] == 8
    servers = children(service)
    service.send_signal(signal.SIGINT)
    service.communicate(timeout=60)
    assert service.returncode == 130
    wait_until(lambda: not any(server.is_alive() for server in servers), seconds=5, what="the end of the server")


def test_faults_are_told(start: Start, tmp_path: Path, micro_model: Path) -> None:
    serve(start, "--model", micro_model)
    with asker(tmp_path / "localllama.sock") as client:
        assert client.post("/ask", json={"text": "Hello", "max_tokens": 0}).status_code == 422
        with client.stream("POST", "/ask", json={"text": "too long " * 3000}) as answer:
            ((kind, data),) = events(answer.iter_lines())
    assert kind == "error"
    assert "Hint: " in data["message"]


def test_a_service_that_was_killed_is_no_hindrance(start: Start, tmp_path: Path, micro_model: Path) -> None:
    killed = serve(start, "--model", micro_model)
    killed.kill()
    killed.communicate(timeout=30)
    assert (tmp_path / "localllama.sock").is_socket()
    serve(start, "--model", micro_model)
    with asker(tmp_path / "localllama.sock") as client:
        assert client.post("/ask", json={"text": "Hello", "max_tokens": 2}).status_code == 200
