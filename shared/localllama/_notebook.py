"""Cell magics for notebooks: `%load_ext localllama`, then `%%llm` and `%localllama status|stop|doctor`.

IPython is imported by nobody here: it calls us with its shell. One client per model is kept, so cells share a warm server.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

from ._card import glance, memory_bytes
from ._server.registry import running_servers
from .client import LocalLlamaClient
from .errors import ConfigurationError, MissingDependencyError
from .settings import ServerSettings
from .types import ChatRequest, Message

__all__ = ["Magics"]

_DEFAULT_MODEL = "smollm2-135m"
_MEGABYTE = 1_000_000


class Magics:
    """The two magics, and the clients that they keep."""

    def __init__(self) -> None:
        self._clients: dict[str, LocalLlamaClient] = {}

    def llm(self, line: str, cell: str) -> None:
        """`%%llm [model] [setting=value ...]`: answer the cell, streamed. The settings are those of `SamplingSettings`.

        Interrupting the cell ends the generation; the server stays warm.
        """
        words = shlex.split(line)
        # A reference may hold "=" (a URL), a setting never holds "/" or ":" before it.
        is_setting = [word.partition("=")[0].isidentifier() and "=" in word for word in words]
        models = [word for word, setting in zip(words, is_setting, strict=True) if not setting]
        if len(models) > 1:
            raise ConfigurationError(f"%%llm takes one model, not {models!r}", hint="%%llm smollm2-135m max_tokens=50")
        pairs = (word.partition("=") for word, setting in zip(words, is_setting, strict=True) if setting)
        client = self._client(models[0] if models else _DEFAULT_MODEL)
        sampling = type(client.sampling).build({name: value for name, _, value in pairs})
        with client.stream_chat(ChatRequest((Message("user", cell.strip()),)), sampling=sampling) as stream:
            for chunk in stream:
                sys.stdout.write(chunk.text)
                sys.stdout.flush()
        sys.stdout.write("\n")

    def localllama(self, line: str) -> None:
        """`%localllama status` shows the servers of this process; `stop` stops those of `%%llm`; `doctor [model]` what is wrong."""
        command, *arguments = shlex.split(line) or ["status"]
        if command == "doctor" and len(arguments) <= 1:
            _print_findings(arguments[0] if arguments else None)
            return
        if command not in ("status", "stop") or arguments:
            raise ConfigurationError(
                f"%localllama does not know {line.strip()!r}", hint="%localllama status, stop, or doctor [model]"
            )
        if command == "stop":
            self.stop()
        self._print_status()

    def _print_status(self) -> None:
        seen = {model: glance(client._connection) for model, client in self._clients.items()}
        lines = [f"{model}: {_words(one.pid, one.memory_bytes, one.tokens_per_second)}" for model, one in seen.items()]
        ours = {one.pid for one in seen.values()}
        for started in running_servers():
            if started.process.pid not in ours:
                model = (
                    started.model.path or started.model.name if started.model is not None else started.runtime.origin
                )
                words = _words(started.process.pid, memory_bytes(started), None)
                lines.append(f"{model}: {words}, of other objects here: close() them to end it")
        sys.stdout.write("\n".join(lines or ["no model is in use"]) + "\n")

    def stop(self) -> None:
        """Close every client; a server that other objects use goes on."""
        while self._clients:
            self._clients.popitem()[1].close()

    def _client(self, model: str) -> LocalLlamaClient:
        if model not in self._clients:
            self._clients[model] = LocalLlamaClient(ServerSettings(model=model))
        return self._clients[model]

    def register(self, shell: Any) -> None:
        """Give the magics to IPython's shell."""
        shell.register_magic_function(self.llm, magic_kind="cell", magic_name="llm")
        shell.register_magic_function(self.localllama, magic_kind="line", magic_name="localllama")


def _words(pid: int | None, n_bytes: int | None, speed: float | None) -> str:
    words = [f"runs, pid {pid}" if pid is not None else "not running"]
    if n_bytes is not None:
        words.append(f"{n_bytes / _MEGABYTE:.0f} MB")
    if speed is not None:
        words.append(f"{speed:.1f} tokens per second")
    return ", ".join(words)


def _print_findings(model: str | None) -> None:
    """What `localllama doctor` finds, as plain text: rich would make a block of its own out of every line in a notebook."""
    try:
        from .cli.machine import examine
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"%localllama doctor needs {error.name}, which is not installed", hint='pip install "localllama[cli]"'
        ) from error
    findings = examine(model)
    for item in findings:
        sys.stdout.write(f"{item.state:<5}  {item.what}: {item.detail}\n")
    for item in findings:
        if item.fix:
            sys.stdout.write(f"To mend {item.what}: {item.fix}\n")
    if not any(item.state == "fault" for item in findings):
        sys.stdout.write("All is well.\n")
