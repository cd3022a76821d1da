"""A stand-in for llama-server that misbehaves to order: a real process on a real socket, without a model.

    program = make_fake_llama_server(tmp_path, Behaviour(die_after_chunks=3))
    ... ServerSettings(model=..., runtime=str(program)) ...
    starts = recorded(program, "start")        # one entry for each time it was started to serve: argv, pid, environment names
    requests = recorded(program, "request")    # one for each request: method, path, body

`program` is an executable named `llama-server` in the directory given, with its orders in `llama-server.json` beside it
and what it saw in `llama-server.jsonl`; no environment variable is needed. It understands `--help` and `--version`,
listens on `--host X.sock` or on `--host`/`--port` with `--api-key-file`, answers `/health`, `/props`, `/slots`,
`/v1/models`, `/tokenize`, `/detokenize`, `/apply-template`, `/v1/chat/completions` with `/input_tokens`, and `/completion`,
streamed and not, byte for byte in llama-server's framing. Every `Behaviour` but the default is one way to fail.

The file is both a module for tests and, run by path, the program itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FLAGS = """----- common params -----

-h,    --help, --usage                  print usage and exit
--version                               show version and build info
-m,    --model FNAME                    model path to load
-c,    --ctx-size N                     size of the prompt context
-t,    --threads N                      number of CPU threads
-b,    --batch-size N                   logical maximum batch size
-np,   --parallel N                     number of server slots
-a,    --alias STRING                   model name aliases
--host HOST                             address to listen on, or UNIX socket path ending in .sock
--port PORT                             port to listen
--api-key-file FNAME                    path to file containing API keys
--no-ui, --no-webui                     no Web UI
--jinja, --no-jinja                     whether to use jinja
-ngl,  --gpu-layers, --n-gpu-layers N   layers in VRAM
--chat-template-kwargs STRING           variables
"""


@dataclass(frozen=True)
class Behaviour:
    """What the server does; the default does everything right.

    Attributes:
        help_signal: Name of the signal that ends it even at `--help` and `--version`.
        missing_library: Exit 127 always, as the dynamic loader does, naming this library.
        load_signal: Name of the signal that ends it while it loads a model; `--help` and `--version` work.
        exit_code: Exit while loading with this code,
        log: after printing this on standard error.
        unknown_flag: Listed in `--help` and then refused, as a build with a wrong help text would.
        load_seconds: Answer 503 for this long.
        is_loading_forever: Answer 503 without end.
        ignores_sigterm: SIGTERM and SIGINT do nothing.
        log_mebibytes: Print so much of log before serving.
        die_after_requests: Answer so many generations, then die when the next one comes, before any byte.
        die_after_chunks: Die in the middle of each stream, after so many chunks of text.
        stall_after_chunks: Send so many chunks of text, then nothing more; 0 stalls before the first.
        chunk_delay_seconds: Wait before each chunk of text.
        garbage: "body": a body that is no JSON and no SSE; "status": a first line that is no HTTP.
        error_status: Answer every generation with this status and
        error_body: this body.
        chunks: The answer's pieces.
        only_first_starts: Misbehave in so many first starts, and do everything right from then on.
    """

    help_signal: str | None = None
    missing_library: str | None = None
    load_signal: str | None = None
    exit_code: int | None = None
    log: str = ""
    unknown_flag: str | None = None
    load_seconds: float = 0.0
    is_loading_forever: bool = False
    ignores_sigterm: bool = False
    log_mebibytes: int = 0
    die_after_requests: int | None = None
    die_after_chunks: int | None = None
    stall_after_chunks: int | None = None
    chunk_delay_seconds: float = 0.0
    garbage: str | None = None
    error_status: int | None = None
    error_body: str = ""
    chunks: tuple[str, ...] = ("Hello", ",", " world", ".")
    only_first_starts: int | None = None


def make_fake_llama_server(directory: Path, behaviour: Behaviour | None = None, *, name: str = "llama-server") -> Path:
    """Write the executable into `directory` and return its path; a second call changes its orders."""
    program = directory / name
    orders = directory / f"{name}.json"
    orders.write_text(json.dumps(asdict(behaviour or Behaviour())))
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -I '{Path(__file__).resolve()}' '{orders}' \"$@\"\n")
    program.chmod(0o755)
    return program


def recorded(program: Path, event: str) -> list[dict[str, Any]]:
    """What the program saw so far: its "start"s or its "request"s."""
    record = program.with_name(f"{program.name}.jsonl")
    if not record.exists():
        return []
    entries = [json.loads(line) for line in record.read_text().splitlines()]
    return [entry for entry in entries if entry["event"] == event]


@dataclass
class _State:
    behaviour: Behaviour
    record: Path
    keys: frozenset[str]
    model: str
    ready_at: float
    n_generations: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, **values}) + "\n"
        descriptor = os.open(self.record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    @property
    def is_loading(self) -> bool:
        return self.behaviour.is_loading_forever or time.monotonic() < self.ready_at


def main(orders: Path, arguments: list[str]) -> int:
    values = json.loads(orders.read_text())
    behaviour = Behaviour(**{item.name: values[item.name] for item in fields(Behaviour)})
    if behaviour.missing_library:
        sys.stderr.write(
            f"llama-server: error while loading shared libraries: {behaviour.missing_library}: "
            "cannot open shared object file: No such file or directory\n"
        )
        return 127
    if behaviour.help_signal:
        _end_by(behaviour.help_signal)
    if "--help" in arguments or "-h" in arguments:
        extra = f"{behaviour.unknown_flag} N\n" if behaviour.unknown_flag else ""
        sys.stdout.write(FLAGS + extra)
        return 0
    if "--version" in arguments:
        sys.stderr.write("version: 0.6.0-dev (build 11434, commit abcdef0)\nbuilt with a fake for tests\n")
        return 0
    return _serve(behaviour, orders.with_suffix(".jsonl"), arguments)


def _serve(behaviour: Behaviour, record: Path, arguments: list[str]) -> int:
    program = record.with_suffix("")
    if behaviour.only_first_starts is not None and len(recorded(program, "start")) >= behaviour.only_first_starts:
        behaviour = Behaviour(chunks=tuple(behaviour.chunks))
    options = _options(arguments, behaviour.unknown_flag)
    if isinstance(options, str):
        sys.stderr.write(options)
        return 1
    keys = Path(options["--api-key-file"]).read_text().split() if "--api-key-file" in options else []
    model = options.get("--alias") or options.get("-a") or "fake"
    state = _State(behaviour, record, frozenset(keys), model, time.monotonic() + behaviour.load_seconds)
    state.note("start", argv=arguments, pid=os.getpid(), environ=sorted(os.environ))
    if behaviour.unknown_flag and behaviour.unknown_flag in arguments:
        sys.stderr.write(f"error: invalid argument: {behaviour.unknown_flag}\n")
        return 1
    for _ in range(behaviour.log_mebibytes):
        sys.stderr.write(("0.00.000.000 I srv  load_model: " + "x" * 95 + "\n") * 8192)
    sys.stderr.write(behaviour.log)
    sys.stderr.flush()
    if behaviour.load_signal:
        _end_by(behaviour.load_signal)
    if behaviour.exit_code is not None:
        return behaviour.exit_code
    if behaviour.ignores_sigterm:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    listener = _listener(options)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_talk, args=(connection, state), daemon=True).start()


def _options(arguments: list[str], unknown_flag: str | None) -> dict[str, str] | str:
    known = {word.rstrip(",") for line in FLAGS.splitlines() for word in line.split() if word.startswith("-")}
    options: dict[str, str] = {}
    previous = ""
    for argument in arguments:
        if argument.startswith("-"):
            if argument not in known and argument != unknown_flag:
                return f"error: invalid argument: {argument}\n"
            options[argument] = ""
        else:
            options[previous] = argument
        previous = argument
    return options


def _end_by(name: str) -> None:
    number = getattr(signal, name)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _listener(options: dict[str, str]) -> socket.socket:
    os.umask(0o077)
    host = options["--host"]
    if host.endswith(".sock"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(host)
    else:
        listener = socket.socket(socket.AF_INET)
        listener.bind((host, int(options["--port"])))
    listener.listen(64)
    return listener


class _ClosedError(Exception):
    pass


def _talk(connection: socket.socket, state: _State) -> None:
    reader = connection.makefile("rb")
    try:
        while True:
            _answer_one(connection, reader, state)
    except (_ClosedError, OSError, ValueError):
        connection.close()


def _answer_one(connection: socket.socket, reader: Any, state: _State) -> None:
    first = reader.readline().split()
    if len(first) < 2:
        raise _ClosedError
    method, path = first[0].decode(), first[1].decode().partition("?")[0]
    headers: dict[str, str] = {}
    while line := reader.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    data = reader.read(int(headers.get("content-length", 0)))
    body = json.loads(data) if data else None
    if path not in ("/health", "/v1/health"):
        state.note("request", method=method, path=path, body=body)
    if state.is_loading:
        _send_error(connection, 503, "Loading model", "unavailable_error")
    elif path in ("/health", "/v1/health"):
        _send_json(connection, {"status": "ok"})
    elif state.keys and headers.get("authorization", "").removeprefix("Bearer ") not in state.keys:
        _send_error(connection, 401, "Invalid API Key", "authentication_error")
    elif path in ("/v1/chat/completions", "/chat/completions", "/completion"):
        _generate(connection, state, body or {}, is_chat=path != "/completion")
    else:
        _send_small_answer(connection, path, body or {}, state)


def _send_small_answer(connection: socket.socket, path: str, body: dict[str, Any], state: _State) -> None:
    prompt = "".join(str(message.get("content")) + "\n" for message in body.get("messages", ()))
    answers: dict[str, Any] = {
        "/props": _props(state),
        "/slots": [{"id": 0, "n_ctx": 4096, "is_processing": False}],
        "/v1/models": {"object": "list", "data": [{"id": state.model, "object": "model", "meta": {"n_ctx": 4096}}]},
        "/tokenize": {"tokens": list(str(body.get("content", "")).encode())},
        "/detokenize": {"content": bytes(body.get("tokens", ())).decode("utf-8", "replace")},
        "/apply-template": {"prompt": prompt},
        "/v1/chat/completions/input_tokens": {"input_tokens": len(prompt.encode()), "object": "response.input_tokens"},
    }
    if path in answers:
        _send_json(connection, answers[path])
    else:
        _send_error(connection, 404, "File Not Found", "not_found_error")


def _props(state: _State) -> dict[str, Any]:
    names = "object_arguments parallel_tool_calls preserve_reasoning tool_calls tools typed_content"
    caps = {f"supports_{name}": False for name in names.split()}
    return {
        "default_generation_settings": {"n_ctx": 4096, "params": {}},
        "total_slots": 1,
        "model_alias": state.model,
        "modalities": {"vision": False, "audio": False, "video": False},
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
        "chat_template_caps": {**caps, "supports_string_content": True, "supports_system_role": True},
        "build_info": "b11434-abcdef0",
        "is_sleeping": False,
    }


def _generate(connection: socket.socket, state: _State, body: dict[str, Any], *, is_chat: bool) -> None:
    behaviour = state.behaviour
    with state.lock:
        state.n_generations += 1
        n_generations = state.n_generations
    if behaviour.die_after_requests is not None and n_generations > behaviour.die_after_requests:
        _end_by("SIGKILL")
    if behaviour.error_status is not None:
        _send(connection, behaviour.error_status, "application/json; charset=utf-8", behaviour.error_body.encode())
    elif behaviour.garbage == "status":
        connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        raise _ClosedError
    elif behaviour.garbage == "body":
        kind = "text/event-stream" if body.get("stream") else "application/json; charset=utf-8"
        _send(connection, 200, kind, b"data: <html>this is not JSON</html>\n\n")
    elif body.get("stream"):
        _stream(connection, state, body, is_chat=is_chat)
    else:
        _send_json(connection, _whole_answer(state, is_chat=is_chat))


def _usage(behaviour: Behaviour) -> dict[str, Any]:
    n = len(behaviour.chunks)
    cached = {"cached_tokens": 0}
    return {"completion_tokens": n, "prompt_tokens": 7, "total_tokens": n + 7, "prompt_tokens_details": cached}


def _timings(behaviour: Behaviour) -> dict[str, Any]:
    n = len(behaviour.chunks)
    return {"cache_n": 0, "prompt_n": 7, "prompt_ms": 7.0, "predicted_n": n, "predicted_ms": 10.0 * n}


def _whole_answer(state: _State, *, is_chat: bool) -> dict[str, Any]:
    text = "".join(state.behaviour.chunks)
    if not is_chat:
        return {"content": text, "stop": True, "stop_type": "eos", "timings": _timings(state.behaviour)}
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "model": state.model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": _usage(state.behaviour),
        "timings": _timings(state.behaviour),
    }


def _stream(connection: socket.socket, state: _State, body: dict[str, Any], *, is_chat: bool) -> None:
    behaviour = state.behaviour
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
    )
    base = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "model": state.model}

    def choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "finish_reason": finish_reason, "delta": delta}]}

    for position, text in enumerate(behaviour.chunks):
        if behaviour.stall_after_chunks == position:
            # Blocks until the client hangs up.
            connection.recv(1)
            raise _ClosedError
        if behaviour.die_after_chunks == position:
            _end_by("SIGKILL")
        time.sleep(behaviour.chunk_delay_seconds)
        if is_chat and position == 0:
            _send_event(connection, choice({"role": "assistant", "content": None}))
        native = {"index": 0, "content": text, "stop": False, "tokens": [position]}
        _send_event(connection, choice({"content": text}) if is_chat else native)
    if not is_chat:
        last = {**_whole_answer(state, is_chat=False), "content": "", "tokens_predicted": len(behaviour.chunks)}
        _send_event(connection, {**last, "tokens_evaluated": 7, "model": state.model, "truncated": False})
        connection.sendall(b"0\r\n\r\n")
        return
    has_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    end = choice({}, "stop")
    tail = {"timings": _timings(behaviour)}
    _send_event(connection, end if has_usage else {**end, **tail})
    if has_usage:
        _send_event(connection, {**base, "choices": [], "usage": _usage(behaviour), **tail})
    _send_chunk(connection, b"data: [DONE]\n\n")
    connection.sendall(b"0\r\n\r\n")


def _send_event(connection: socket.socket, value: dict[str, Any]) -> None:
    _send_chunk(connection, b"data: " + json.dumps(value).encode() + b"\n\n")


def _send_chunk(connection: socket.socket, data: bytes) -> None:
    connection.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _send_json(connection: socket.socket, value: Any, status: int = 200) -> None:
    _send(connection, status, "application/json; charset=utf-8", json.dumps(value).encode())


def _send_error(connection: socket.socket, status: int, message: str, kind: str) -> None:
    _send_json(connection, {"error": {"message": message, "type": kind, "code": status}}, status)


def _send(connection: socket.socket, status: int, content_type: str, data: bytes) -> None:
    head = (
        f"HTTP/1.1 {status} Status\r\nServer: llama.cpp\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(data)}\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
    )
    connection.sendall(head.encode() + data)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
