"""What the two clients have in common: everything that does not wait."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._card import card
from ._chat_call import ChatCall
from ._connection import Connection
from .settings import SamplingSettings, ServerSettings, TimeoutSettings
from .types import ChatRequest, Endpoint, ModelInfo

if TYPE_CHECKING:
    from typing_extensions import Self

TransportT = TypeVar("TransportT")


class ClientBase(ABC, Generic[TransportT]):
    """Settings, the connection, the transports, and how a client is copied."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        sampling: SamplingSettings | None = None,
        timeouts: TimeoutSettings | None = None,
        max_retries: int = 2,
    ) -> None:
        self._connection = Connection(
            settings, sampling or SamplingSettings(), timeouts or TimeoutSettings(), max_retries
        )
        self._transports: dict[tuple[int, Endpoint], TransportT] = {}

    @property
    def settings(self) -> ServerSettings:
        """How the model is served."""
        return self._connection.settings

    @property
    def sampling(self) -> SamplingSettings:
        """Defaults of each call."""
        return self._connection.sampling

    @property
    def timeouts(self) -> TimeoutSettings:
        """Limits of each call."""
        return self._connection.timeouts

    @property
    def is_running(self) -> bool:
        """Whether our server runs at this moment; asking starts nothing."""
        return self._connection.is_running

    @property
    def server_pid(self) -> int | None:
        """The process id of our server, or None while there is none."""
        running = self._connection.running()
        return running.process.pid if running is not None else None

    @property
    def is_closed(self) -> bool:
        """Whether the client was closed."""
        return self._connection.is_closed

    def model_info(self) -> ModelInfo | None:
        """What is known of the model from its file: no server, no download. None if the file is not here yet.

        Raises:
            ModelNotFoundError: The reference can name no model.
            ModelCorruptError: The file is damaged.
            ConfigurationError: `n_ctx` is longer than the model was trained for.
        """
        return self._connection.model_info()

    def _chat_call(
        self, request: ChatRequest, sampling: SamplingSettings | None, timeouts: TimeoutSettings | None
    ) -> ChatCall:
        return ChatCall(request, sampling or self.sampling, timeouts or self.timeouts, self.settings)

    def _kept_transport(self, endpoint: Endpoint) -> TransportT:
        # The sockets of a parent process, or of a server that is gone, are not used again.
        key = (os.getpid(), endpoint)
        transport = self._transports.get(key)
        if transport is None:
            self._transports.clear()
            # setdefault is atomic: threads that arrive together get the same one.
            transport = self._transports.setdefault(key, self._new_transport(endpoint))
        return transport

    @abstractmethod
    def _new_transport(self, endpoint: Endpoint) -> TransportT: ...

    def _taken_transports(self) -> list[TransportT]:
        """The transports of this process, for closing; they are forgotten here."""
        taken = []
        while self._transports:
            (creator_pid, _), transport = self._transports.popitem()
            if creator_pid == os.getpid():
                taken.append(transport)
        return taken

    def __copy__(self) -> Self:
        connection = self._connection
        return type(self)(
            connection.settings,
            sampling=connection.sampling,
            timeouts=connection.timeouts,
            max_retries=connection.max_retries,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        connection = self._connection
        arguments = (connection.settings, connection.sampling, connection.timeouts, connection.max_retries)
        return _rebuild, (type(self), *arguments)

    def __repr__(self) -> str:
        what = self.settings.model or self.settings.base_url
        return f"{type(self).__name__}(model={what!r}, is_running={self.is_running})"

    def _repr_html_(self, title: str | None = None) -> str:
        # For notebooks. A wrapper gives the name of its own class.
        return card(self._connection, title or type(self).__name__)


def _rebuild(
    cls: type[ClientBase[Any]],
    settings: ServerSettings,
    sampling: SamplingSettings,
    timeouts: TimeoutSettings,
    max_retries: int,
) -> ClientBase[Any]:
    return cls(settings, sampling=sampling, timeouts=timeouts, max_retries=max_retries)
