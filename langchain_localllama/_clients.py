"""The core's clients of one chat model: made when first needed, given up together."""

from __future__ import annotations

import asyncio
import threading
from typing import TypeVar

from localllama import AsyncLocalLlamaClient, ClientClosedError, LocalLlamaClient, ServerSettings

ClientT = TypeVar("ClientT", LocalLlamaClient, AsyncLocalLlamaClient)


class Clients:
    """One synchronous and one asynchronous client for each server that a chat model uses.

    A chat model uses several where a call names another `model`, or where its fields were changed after a call. The
    lease on a server belongs to the client, so every copy of this object starts with none: closing a copied chat model,
    or collecting it, takes nothing from the original.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sync: dict[tuple[str, int], LocalLlamaClient] = {}
        self._async: dict[tuple[str, int], AsyncLocalLlamaClient] = {}
        self._is_closed = False

    def sync(self, settings: ServerSettings, max_retries: int) -> LocalLlamaClient:
        """The client for these settings.

        Raises:
            ClientClosedError: The chat model was closed.
        """
        return self._client(self._sync, LocalLlamaClient, settings, max_retries)

    def asynchronous(self, settings: ServerSettings, max_retries: int) -> AsyncLocalLlamaClient:
        """The client for these settings from asyncio code. Errors as in `sync`."""
        return self._client(self._async, AsyncLocalLlamaClient, settings, max_retries)

    def _client(
        self, made: dict[tuple[str, int], ClientT], cls: type[ClientT], settings: ServerSettings, max_retries: int
    ) -> ClientT:
        key = (settings.identity(), max_retries)
        with self._lock:
            if self._is_closed:
                raise ClientClosedError(
                    "this ChatLocalLlama is closed", hint="Make a new one, or a copy: copies are open again."
                )
            if key not in made:
                made[key] = cls(settings, max_retries=max_retries)
            return made[key]

    def card(self, settings: ServerSettings, max_retries: int, title: str) -> str:
        """What a notebook shows of the chat model, also after `close`."""
        if not self._is_closed:
            return self.sync(settings, max_retries)._repr_html_(title)
        with LocalLlamaClient(settings) as closed:
            closed.close()
            return closed._repr_html_(title)

    def close(self) -> None:
        """Give up every lease. Idempotent."""
        for client in self._give_up():
            client.close()

    async def aclose(self) -> None:
        """Give up every lease without blocking the event loop. Idempotent."""
        for client in self._give_up():
            if isinstance(client, AsyncLocalLlamaClient):
                await client.aclose()
            else:
                # The last client of a server waits for its end, up to two seconds.
                await asyncio.to_thread(client.close)

    def _give_up(self) -> list[LocalLlamaClient | AsyncLocalLlamaClient]:
        with self._lock:
            self._is_closed = True
            clients: list[LocalLlamaClient | AsyncLocalLlamaClient] = [*self._sync.values(), *self._async.values()]
            self._sync.clear()
            self._async.clear()
        return clients

    def __eq__(self, other: object) -> bool:
        # Pydantic compares private attributes too: chat models with equal fields are equal, whatever they have started.
        return isinstance(other, Clients)

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Clients:
        return Clients()

    def __deepcopy__(self, memo: dict[int, object]) -> Clients:
        return Clients()

    def __reduce__(self) -> tuple[type[Clients], tuple[()]]:
        return Clients, ()
