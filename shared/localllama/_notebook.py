"""Cell magics for notebooks: `%load_ext localllama`, then `%%llm` and `%localllama status|stop|doctor`.

IPython is imported by nobody here: it calls us with its shell. One client per model is kept, so cells share a warm server.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

from ._card import glance
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
        """`%localllama status` shows the servers of `%%llm`; `stop` stops them; `doctor [model]` says what is wrong here."""
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
        if not self._clients:
            sys.stdout.write("no model is in use\n")
        for model, client in self._clients.items():
            seen = glance(client._connection)
            words = [f"runs, pid {seen.pid}" if seen.pid is not None else "not running"]
            if seen.memory_bytes is not None:
                words.append(f"{seen.memory_bytes / _MEGABYTE:.0f} MB")
            if seen.tokens_per_second is not None:
                words.append(f"{seen.tokens_per_second:.1f} tokens per second")
            sys.stdout.write(f"{model}: {', '.join(words)}\n")

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
