"""A server that sends what a test tells it to: for answers that no small model would give.

It speaks llama-server's HTTP as far as the clients need it; a client reaches it through `base_url`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 3},
}
PROPS = {
    "default_generation_settings": {"n_ctx": 4096},
    "total_slots": 1,
    "chat_template_caps": dict.fromkeys(
        (
            "supports_system_role",
            "supports_tools",
            "supports_tool_calls",
            "supports_parallel_tool_calls",
            "supports_preserve_reasoning",
        ),
        True,
    ),
}
TIMINGS = {"cache_n": 3, "prompt_n": 8, "prompt_ms": 4.0, "predicted_n": 7, "predicted_ms": 14.0}


class ScriptedServer:
    """What it will answer, and what it was asked.

    Attributes:
        url: For `base_url`.
        deltas: The `choices[0].delta` objects of each answer, in order; an object with `error` breaks it off.
        answers: The deltas of the next answers, one list each, used up before `deltas`; an object is a refusal's body.
        paths: Where the generations were asked for.
        finish_reason: How each answer ends.
        usage: The token counts of each answer.
        requests: Bodies of the generations asked for.
        keys: What each of them had in its Authorization header.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.deltas: list[dict[str, Any]] = [{"content": "Hello"}, {"content": " there"}]
        self.answers: list[list[dict[str, Any]] | dict[str, Any]] = []
        self.paths: list[str] = []
        self.finish_reason = "stop"
        self.usage: dict[str, Any] = USAGE
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def refusal(self) -> dict[str, Any] | None:
        """The body of the refusal that is the next answer, if it is one."""
        if self.answers and isinstance(self.answers[0], dict):
            return self.answers.pop(0)  # type: ignore[return-value]
        return None

    def native_events(self) -> Iterator[str]:
        """The lines of one answer of `/completion`."""
        deltas: Any = self.answers.pop(0) if self.answers else self.deltas
        for delta in deltas:
            yield json.dumps({"content": delta.get("content", ""), "stop": False})
        end = {"content": "", "stop": True, "stop_type": "eos", "tokens_evaluated": 11, "tokens_predicted": 7}
        yield json.dumps({**end, "timings": TIMINGS})

    def events(self) -> Iterator[str]:
        """The lines of one answer."""
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
        first = {"role": "assistant", "content": None}
        deltas: Any = self.answers.pop(0) if self.answers else self.deltas
        for delta in (first, *deltas):
            if "error" in delta:
                yield json.dumps(delta)
                return
            yield json.dumps({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        yield json.dumps({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": self.finish_reason}]})
        yield json.dumps({**head, "choices": [], "usage": self.usage, "timings": TIMINGS})
        yield "[DONE]"


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: ScriptedServer

    def do_GET(self) -> None:
        if self.path == "/props":
            self._send(PROPS)
        else:
            self._send({"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/apply-template":
            self._send({"prompt": json.dumps(body["messages"], ensure_ascii=False)})
        elif self.path == "/tokenize":
            self._send({"tokens": list(body["content"].encode())})
        else:
            self.script.requests.append(body)
            self.script.paths.append(self.path)
            self.script.keys.append(self.headers.get("Authorization"))
            refusal = self.script.refusal()
            if refusal is not None:
                self._send(refusal, status=refusal["error"]["code"])
            else:
                self._stream()

    def _send(self, obj: Any, *, status: int = 200) -> None:
        data = json.dumps(obj).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        is_native = self.path == "/completion"
        for event in self.script.native_events() if is_native else self.script.events():
            self.wfile.write(f"data: {event}\n\n".encode())
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Tests keep quiet."""


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """Run one on a free port of the loopback interface."""
    requests = type("Requests", (_Requests,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), requests)
    server.daemon_threads = True
    script = requests.script = ScriptedServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
