"""What a notebook shows of a client or a model: its settings and its server at a glance, as an HTML table.

Looking starts nothing and reads no model: what is not known yet is left out. No key, prompt or template is in it.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ._connection import Connection
from ._speed import tokens_per_second
from .settings import ServerSettings

if TYPE_CHECKING:
    from ._server.start import StartedServer

__all__ = ["Glance", "card", "glance", "memory_bytes"]

_MEGABYTE = 1_000_000
_QUANTIZATION_IN_NAME = re.compile(r"(?<![a-z0-9])(i?q[1-8]_[a-z0-9_]+|bf16|f16|f32)(?=\.gguf$|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Glance:
    """What is known of a client's model and server at this moment.

    Attributes:
        model: The reference, or the address of the server, without secrets.
        state: "not started", "starting", "running", "crashed", "stopped", "closed", or "elsewhere" with `base_url`.
        pid: The server's process id while it runs.
        quantization: Such as "Q4_K_M".
        n_ctx: The context window of one request.
        runtime: The program that runs, or the setting if none does.
        memory_bytes: What the server's process has in memory, the mapped model included.
        tokens_per_second: Of the last hundred answers, by llama.cpp's timings.
    """

    model: str
    state: str
    pid: int | None = None
    quantization: str | None = None
    n_ctx: int | None = None
    runtime: str | None = None
    memory_bytes: int | None = None
    tokens_per_second: float | None = None


def glance(connection: Connection) -> Glance:
    """Look at a client's settings and server, without starting, waiting or reading a file."""
    settings = connection.settings
    started = connection.running()
    info = started.model if started is not None and started.model is not None else connection.known_model
    model = _without_secrets(settings.model or settings.base_url or "")
    return Glance(
        model=model,
        state=_state(connection),
        pid=started.process.pid if started is not None else None,
        quantization=info.quantization if info is not None else _quantization_in(settings, model),
        n_ctx=info.n_ctx if info is not None else settings.n_ctx,
        runtime=_runtime(settings, started),
        memory_bytes=memory_bytes(started),
        tokens_per_second=tokens_per_second(connection.known_notes()),
    )


def card(connection: Connection, title: str) -> str:
    """The table, under the name of the user's class. Never raises: a cell that shows a model must not fail for it."""
    try:
        seen = glance(connection)
        rows = {
            "model": seen.model,
            "quantization": seen.quantization,
            "context window": f"{seen.n_ctx} tokens" if seen.n_ctx else None,
            "runtime": seen.runtime,
            "state": seen.state if seen.pid is None else f"{seen.state}, process {seen.pid}",
            "memory": f"{seen.memory_bytes / _MEGABYTE:.0f} MB" if seen.memory_bytes else None,
            "speed so far": f"{seen.tokens_per_second:.1f} tokens per second" if seen.tokens_per_second else None,
        }
    except Exception as error:  # noqa: BLE001  # whatever a process that is just ending may raise
        rows = {"state": f"not known: {type(error).__name__}"}
    cells = "".join(
        f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in rows.items()
        if value
    )
    return f"<table><caption>{html.escape(title)}</caption><tbody>{cells}</tbody></table>"


def _state(connection: Connection) -> str:
    if connection.is_closed:
        return "closed"
    if connection.settings.base_url is not None:
        return "elsewhere"
    words = {"unstarted": "not started", "ready": "running"}
    state = connection.server_state()
    return words.get(state, state)


def _runtime(settings: ServerSettings, started: StartedServer | None) -> str | None:
    if started is not None:
        return started.runtime.origin
    return None if settings.base_url is not None else settings.runtime


def memory_bytes(started: StartedServer | None) -> int | None:
    """What a server's process has in memory, the mapped model included."""
    if started is None:
        return None
    import psutil

    try:
        return int(psutil.Process(started.process.pid).memory_info().rss)
    except psutil.Error:  # it ended between two looks
        return None


def _quantization_in(settings: ServerSettings, model: str) -> str | None:
    found = _QUANTIZATION_IN_NAME.search(model) if settings.base_url is None else None
    return found[1].upper() if found else None


def _without_secrets(reference: str) -> str:
    """The reference without the user name, password and query that an address may have."""
    if "://" not in reference:
        return reference
    parts = urlsplit(reference)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
