"""The constructor's arguments of the chat model, and what they make of the core's settings."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.load.load import ALL_SERIALIZABLE_MAPPINGS
from langchain_core.utils import from_env
from pydantic import ConfigDict, Field, ValidationError
from typing_extensions import override

from localllama import ConfigurationError
from localllama.settings import (
    PathText,
    SamplingOptions,
    SamplingSettings,
    ServerOptions,
    ServerSettings,
    TimeoutSettings,
    configuration_error,
)

_SYNONYMS = {"model_name": "model", "stop_sequences": "stop"}
"""Names that other chat models of LangChain use for the same thing."""

# They change how a server is reached or how long it lives, not what it answers; the first two may hold secrets.
_NOT_IDENTIFYING = {"api_key", "env", "listen", "start_timeout_seconds", "idle_timeout_seconds"}


class LocalLlamaParameters(BaseChatModel, ServerOptions, SamplingOptions):
    """All arguments of `ChatLocalLlama`: those of `ServerOptions`, of `SamplingOptions`, of `BaseChatModel`, and these.

    Attributes:
        model: A model reference; default: the environment variable `LOCALLLAMA_MODEL`.
        env: Further environment variables of the server. As they may be secret they are left out of serialized objects
            and of traces.
        timeout: Most seconds of one call, the start of the server not counted; or a `TimeoutSettings`, which also limits
            the wait for the first token and between two tokens. Default: no limit of the whole, generous ones of these.
        max_retries: How often a call is tried again where that is surely safe (no connection, the model still loads).
        streaming: Let `invoke` generate as a stream too, so that callbacks see each token; `False` turns streaming off.
    """

    # `hide_input_in_errors`: pydantic's own error is the cause of ours, and a traceback shows it, with a key in it perhaps.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model: PathText | None = Field(default_factory=from_env("LOCALLLAMA_MODEL", default=None))
    env: dict[str, str] = Field(default_factory=dict, repr=False, exclude=True)
    timeout: float | TimeoutSettings | None = None
    max_retries: int = Field(default=2, ge=0)
    streaming: bool = False

    def __init__(self, **values: Any) -> None:
        # Here and not in a validator: pydantic would turn our errors, hints and all, into its own.
        for synonym in _SYNONYMS.keys() & values.keys():
            name = _SYNONYMS[synonym]
            if name in values:
                raise ConfigurationError(
                    f"{synonym} and {name} are two names of one argument", hint="Give one of them."
                )
            values[name] = values.pop(synonym)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise configuration_error(type(self), error) from error
        self._server_settings()
        self._sampling_settings()
        TimeoutSettings.of(self.timeout)

    def _server_settings(self, model: str | None = None) -> ServerSettings:
        """The server that the fields describe at this moment, for another model if one is named."""
        values = {name: getattr(self, name) for name in ServerOptions.model_fields}
        values["model"] = model or self.model
        if self.base_url is None:
            # A standard parameter of LangChain's chat models, which code for any model passes to ours too. Our own
            # server makes its own key.
            values.pop("api_key", None)
        settings: ServerSettings = ServerSettings.build(values)
        return settings

    def _sampling_settings(self) -> SamplingSettings:
        values = {name: getattr(self, name) for name in SamplingOptions.model_fields}
        settings: SamplingSettings = SamplingSettings.build(
            {name: value for name, value in values.items() if value is not None}
        )
        return settings

    def _parameter_values(self) -> dict[str, Any]:
        """What makes one answer differ from another, and nothing secret: for caches and traces."""
        server = self._server_settings().model_dump(mode="json", exclude=_NOT_IDENTIFYING, exclude_defaults=True)
        sampling = self._sampling_settings().model_dump(mode="json", exclude_none=True)
        return {"model": self.model, **server, **sampling}

    # -- serialization ----------------------------------------------------------------------------------------------

    @classmethod
    @override
    def is_lc_serializable(cls) -> bool:
        return True

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        # `load(..., allowed_objects="all")` knows the classes of this table alone, and has no public way in for others.
        # Loading one of ours takes the caller's word still: `valid_namespaces` must name this package.
        if cls.__module__.startswith(f"{__package__}."):
            path = tuple(cls.lc_id())
            ALL_SERIALIZABLE_MAPPINGS[path] = path

    @property
    @override
    def lc_secrets(self) -> dict[str, str]:
        return {"api_key": "LOCALLLAMA_API_KEY"}

    @property
    @override
    def lc_attributes(self) -> dict[str, Any]:
        # LangChain serializes plain values and its own classes only.
        plain: dict[str, Any] = {}
        if self.lora:
            plain["lora"] = [adapter.model_dump() for adapter in self._server_settings().lora]
        if isinstance(self.timeout, TimeoutSettings):
            plain["timeout"] = self.timeout.model_dump()
        return plain

    @override
    def __repr_args__(self) -> Any:
        # The parameters alone: what LangChain adds (versions, profile, callbacks) says nothing about the model.
        own = {*ServerOptions.model_fields, *SamplingOptions.model_fields, *type(self).__annotations__, "timeout"}
        return [(name, value) for name, value in super().__repr_args__() if name in own and name != "api_key"]
