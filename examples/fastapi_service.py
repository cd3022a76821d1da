"""A web service that streams the answers of a local model as server-sent events.

    python examples/fastapi_service.py         on the UNIX socket ./localllama.sock; --port 8000: on the loopback address
    curl -N --unix-socket localllama.sock http://localhost/ask --json '{"text": "Why is the sky blue?"}'   # curl 7.82

Each event is `data: {"text": ...}`; the last one is `event: done` with the token counts, or `event: error`. A client that
goes away stops its generation. SIGTERM or Ctrl-C lets answers finish for `--grace` seconds, then stops the model's server.
Only your user may connect to the socket. The port has no key: every program on this machine can ask.
Needs fastapi and uvicorn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from langchain_localllama import ChatLocalLlama
from localllama import LocalLlamaError


class Question(BaseModel):
    """What `POST /ask` takes."""

    text: str
    max_tokens: int = Field(default=300, ge=1)


def make_app(model: str, parallel: int) -> FastAPI:
    """The service; its lifespan opens and closes the model."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with ChatLocalLlama(model=model, parallel=parallel, temperature=0) as llm:
            await asyncio.to_thread(llm.start)  # a wrong model is told here, and the first question need not wait
            app.state.llm = llm
            yield

    app = FastAPI(title="localllama", lifespan=lifespan)

    @app.post("/ask")
    async def ask(question: Question) -> StreamingResponse:
        return StreamingResponse(events(app.state.llm, question), media_type="text/event-stream")

    return app


async def events(llm: ChatLocalLlama, question: Question) -> AsyncIterator[str]:
    """The answer as events; cancelled where the client goes away, which ends the generation too."""
    usage: Any = None
    try:
        async for chunk in llm.astream(question.text, max_tokens=question.max_tokens):
            if chunk.text:
                yield event({"text": chunk.text})
            usage = chunk.usage_metadata or usage
        yield event({"usage": usage}, kind="done")
    except LocalLlamaError as error:  # too late for a status: the answer may have begun
        yield event({"message": str(error)}, kind="error")


def event(data: dict[str, Any], kind: str | None = None) -> str:
    """One server-sent event."""
    return (f"event: {kind}\n" if kind else "") + f"data: {json.dumps(data)}\n\n"


def listen(path: Path, port: int | None) -> socket.socket:
    """The socket that the service answers on."""
    if port is not None:
        return socket.create_server(("127.0.0.1", port))
    if path.is_socket():
        path.unlink()  # left by a service that was killed
    listener = socket.socket(socket.AF_UNIX)
    os.umask(0o077)  # uvicorn itself would let every user in
    listener.bind(str(path))
    return listener


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal comes; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="path or other model reference (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=2, help="answers written at once (default: %(default)s)")
    parser.add_argument("--socket", type=Path, default="localllama.sock", help="UNIX socket (default: %(default)s)")
    parser.add_argument("--port", type=int, help="a port of 127.0.0.1 in place of the socket")
    parser.add_argument("--grace", type=int, default=5, help="seconds for answers at the end (default: %(default)s)")
    options = parser.parse_args(arguments)
    # uvicorn shuts down first and then lets the signal do what it did before: for SIGTERM, end with success.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = listen(options.socket, options.port)
    listener.listen()  # from here on a client may connect
    print(f"Listening on {listener.getsockname()}", flush=True)
    config = uvicorn.Config(make_app(options.model, options.parallel), timeout_graceful_shutdown=options.grace)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return 130
    finally:
        listener.close()
        if options.port is None:
            options.socket.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
