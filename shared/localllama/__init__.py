"""localllama: local GGUF models through llama.cpp, in a private server that belongs to this process.

    from localllama import ChatRequest, LocalLlamaClient, Message, ServerSettings

    with LocalLlamaClient(ServerSettings(model="smollm2-135m")) as client:
        for chunk in client.stream_chat(ChatRequest((Message("user", "Hello"),))):
            print(chunk.text, end="")

Importing starts nothing, reads no environment variable and opens no file. The LangChain and LlamaIndex classes are in
`langchain_localllama` and `llamaindex_localllama`.
"""

from __future__ import annotations

from typing import Any

from . import errors, settings, types
from .async_client import AsyncChatStream, AsyncLocalLlamaClient
from .client import ChatStream, LocalLlamaClient
from .errors import *  # noqa: F403  # errors.__all__ is the list
from .settings import *  # noqa: F403  # settings.__all__ is the list
from .types import *  # noqa: F403  # types.__all__ is the list

__all__ = [
    "AsyncChatStream",
    "AsyncLocalLlamaClient",
    "ChatStream",
    "LocalLlamaClient",
    "load_ipython_extension",
    "unload_ipython_extension",
]
__all__ += errors.__all__
__all__ += settings.__all__
__all__ += types.__all__


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        found = globals()[name] = version("localllama")
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_magics: list[Any] = []


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext localllama`: the magics `%%llm` and `%localllama`. Starts nothing."""
    from ._notebook import Magics

    magics = Magics()
    magics.register(shell)
    _magics.append(magics)


def unload_ipython_extension(shell: Any) -> None:  # noqa: ARG001  # IPython's signature
    """`%unload_ext localllama`: stops the servers that the magics started and nobody else uses."""
    while _magics:
        _magics.pop().stop()
