"""What the client needs of a transport: a way to reach the model, in a sync and an async form."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, Protocol

from localllama._protocol.stream import StreamParser
from localllama.settings import TimeoutSettings
from localllama.types import ChatChunk

__all__ = ["AsyncChatTransport", "ChatTransport"]


class ChatTransport(Protocol):
    """Sends requests to one server. All methods raise `RequestError`s and `ProtocolError`s, and nothing of httpx."""

    def get_json(self, path: str, timeouts: TimeoutSettings, began: float | None = None) -> Any:
        """The decoded body of a GET."""
        ...

    def post_json(
        self, path: str, body: Mapping[str, Any], timeouts: TimeoutSettings, began: float | None = None
    ) -> Any:
        """The decoded body of a POST."""
        ...

    def stream(
        self,
        path: str,
        body: Mapping[str, Any],
        parser: StreamParser,
        timeouts: TimeoutSettings,
        began: float | None = None,
    ) -> Generator[ChatChunk, None, None]:
        """The chunks of a streamed answer. Nothing is sent before the first `next`; `close()` frees the slot."""
        ...

    def close(self) -> None:
        """End every request in flight; later ones raise `ClientClosedError`."""
        ...


class AsyncChatTransport(Protocol):
    """The async twin of `ChatTransport`."""

    async def get_json(self, path: str, timeouts: TimeoutSettings, began: float | None = None) -> Any:
        """The decoded body of a GET."""
        ...

    async def post_json(
        self, path: str, body: Mapping[str, Any], timeouts: TimeoutSettings, began: float | None = None
    ) -> Any:
        """The decoded body of a POST."""
        ...

    def stream(
        self,
        path: str,
        body: Mapping[str, Any],
        parser: StreamParser,
        timeouts: TimeoutSettings,
        began: float | None = None,
    ) -> AsyncGenerator[ChatChunk, None]:
        """The chunks of a streamed answer. Nothing is sent before the first `anext`; `aclose()` frees the slot."""
        ...

    async def aclose(self) -> None:
        """End every request in flight; later ones raise `ClientClosedError`."""
        ...
