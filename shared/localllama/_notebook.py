"""Cell magics for notebooks: `%load_ext localllama`, then `%%llm` and `%localllama status|stop`.

IPython is imported by nobody here: it calls us with its shell. One client per model is kept, so cells share a warm server.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

from .client import LocalLlamaClient
from .errors import ConfigurationError
from .settings import ServerSettings
from .types import ChatRequest, Message

__all__ = ["Magics"]

_DEFAULT_MODEL = "smollm2-135m"


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
        """`%localllama status` shows the servers of `%%llm`; `%localllama stop` stops them."""
        command = line.strip() or "status"
        if command == "stop":
            self.stop()
        elif command != "status":
            raise ConfigurationError(f"%localllama does not know {command!r}", hint="%localllama status, or stop")
        if not self._clients:
            sys.stdout.write("no model is in use\n")
        for model, client in self._clients.items():
            pid = client.server_pid
            sys.stdout.write(f"{model}: " + (f"runs, pid {pid}\n" if pid is not None else "not running\n"))

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
