"""`LocalLlama`: LlamaIndex's LLM interface over the core's two clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, ValidationError

from localllama import (
    AsyncChatStream,
    AsyncLocalLlamaClient,
    ChatChunk,
    ChatRequest,
    ChatStream,
    ConfigurationError,
    LocalLlamaClient,
    SamplingOptions,
    SamplingSettings,
    ServerOptions,
    ServerSettings,
    TimeoutSettings,
    configuration_error,
)

from ._messages import needs_reading, to_messages
from ._responses import StreamedAnswer, is_shown, to_chat_response, to_completion_response
from ._structured import StructuredPrediction
from ._tokenizer import Tokenizer
from ._tool_calling import ToolCalling
from ._tools import take_request_fields

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LocalLlama"]

T = TypeVar("T")

_MAX_RESERVED_OUTPUT = 1024
"""Most tokens of the window that LlamaIndex is told to keep free for an answer where `max_tokens` is not set."""

_CLIENT_FIELDS = frozenset({*ServerOptions.model_fields, "max_retries"})
_OPTION_FIELDS = frozenset({*_CLIENT_FIELDS, *SamplingOptions.model_fields, "timeout", "additional_kwargs"})


class LocalLlama(StructuredPrediction, ToolCalling, ServerOptions, SamplingOptions):
    """A local GGUF model through llama.cpp, for LlamaIndex.

        Settings.llm = LocalLlama(model="./model.gguf", n_ctx=4096, temperature=0)

    Constructing it starts nothing and reads nothing. The first generation starts a private server, which is shared
    with every object of this process that has the same server settings, and which ends with the process at the latest.

    Every field of `ServerOptions` (`model`, `n_ctx`, `n_gpu_layers`, ...) and of `SamplingOptions` (`temperature`,
    `max_tokens`, `stop`, `reasoning`, ...) is an argument here; the latter, `timeout`, `response_format` and the tool
    arguments of the OpenAI API may also be given to each call. A misspelt name is refused, here and there.

    Attributes:
        timeout: Seconds that a whole call may take, or the single limits as `TimeoutSettings`. The start of the server
            is not part of it: see `start_timeout_seconds`.
        max_retries: How often a call is tried again where that is safe. Default 2.
        additional_kwargs: Defaults for the keyword arguments of each call.
        api_key: The key for `base_url`; left out of `to_dict()`.
        env: Further environment variables of the server; left out of `to_dict()`, since they may hold secrets.

    Raises:
        ConfigurationError: An unknown argument, or a value out of range. It is a `ValueError`.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    timeout: float | TimeoutSettings | None = None
    max_retries: int = Field(default=2, ge=0)
    additional_kwargs: dict[str, Any] = Field(default_factory=dict)
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    env: dict[str, str] = Field(default_factory=dict, exclude=True, repr=False)

    _client: LocalLlamaClient = PrivateAttr()
    _async_client: AsyncLocalLlamaClient = PrivateAttr()

    if not TYPE_CHECKING:  # type checkers make a better signature from the fields

        def __init__(self, **arguments: Any) -> None:
            try:
                super().__init__(**arguments)
            except ValidationError as error:
                raise configuration_error(type(self), error) from error
            self._connect()

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's id of this class in serialized objects."""
        return "LocalLlama_llm"

    # What it is made of

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex plans with, from the header of the model's file; starts nothing, downloads nothing.

        `is_function_calling_model` is True for every model: where its chat template knows no tools, they are shown in
        the prompt, and a grammar forces the form of a call.

        Raises:
            ModelError: The model's file is missing or damaged.
        """
        info = self._client.model_info()
        window = info.n_ctx if info else self.n_ctx or DEFAULT_CONTEXT_WINDOW
        max_tokens = self._split({})[1]["sampling"].max_tokens
        # PromptHelper takes this off the window: what is left must hold a prompt.
        wanted = max_tokens if max_tokens is not None and max_tokens > 0 else min(_MAX_RESERVED_OUTPUT, window // 4)
        return LLMMetadata(
            context_window=window,
            num_output=max(1, min(wanted, window // 2)),
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=info.name if info else self.model or "unknown",
            system_role=MessageRole.SYSTEM,
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, for `Settings.tokenizer`; its first call starts the server."""
        return Tokenizer(self._client)

    def _connect(self) -> None:
        self._split({})  # refuses wrong options
        settings = ServerSettings.build({name: getattr(self, name) for name in ServerOptions.model_fields})
        self._client = LocalLlamaClient(settings, max_retries=self.max_retries)
        self._async_client = AsyncLocalLlamaClient(settings, max_retries=self.max_retries)

    def _split(self, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments of one call, over the object's own: those of its `ChatRequest`, those of the client's method."""
        given = {**self.additional_kwargs, **arguments}
        request_fields = take_request_fields(given)
        timeout = given.pop("timeout", None)
        own = {name: getattr(self, name) for name in SamplingOptions.model_fields}
        return request_fields, {
            "sampling": SamplingSettings.build(own).merged(given),
            "timeouts": TimeoutSettings.of(self.timeout if timeout is None else timeout),
        }

    def _call(
        self, messages: Sequence[ChatMessage], arguments: Mapping[str, Any]
    ) -> tuple[ChatRequest, dict[str, Any]]:
        request_fields, options = self._split(arguments)
        return ChatRequest(to_messages(messages), **request_fields), options

    async def _acall(
        self, messages: Sequence[ChatMessage], arguments: Mapping[str, Any]
    ) -> tuple[ChatRequest, dict[str, Any]]:
        if needs_reading(messages):
            return await asyncio.to_thread(self._call, messages, arguments)
        return self._call(messages, arguments)

    def _formatted_call(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        request_fields, options = self._split(arguments)
        if request_fields:
            raise ConfigurationError(
                f"formatted=True sends the prompt as it is, so {', '.join(request_fields)} cannot be added to it",
                hint="Leave formatted=True out.",
            )
        return options

    # Chat

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer the conversation.

        Args:
            messages: The conversation so far; not changed.
            **kwargs: Sampling options, `timeout`, `response_format`, `tools`, `tool_choice` of this call.

        Raises:
            LocalLlamaError: Whatever fails; see `localllama.errors`.
        """
        request, options = self._call(messages, kwargs)
        return to_chat_response(self._client.chat(request, **options))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer the conversation in pieces, each with all that came before it; as `chat` otherwise.

        Closing the generator frees the server for the next call.
        """
        request, options = self._call(messages, kwargs)
        open_stream = partial(self._client.stream_chat, request, **options)
        return _stream(open_stream, StreamedAnswer().chat_response)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat`, without blocking the event loop."""
        request, options = await self._acall(messages, kwargs)
        return to_chat_response(await self._async_client.chat(request, **options))

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat`, without blocking the event loop."""
        request, options = await self._acall(messages, kwargs)
        open_stream = partial(self._async_client.stream_chat, request, **options)
        return _astream(open_stream, StreamedAnswer().chat_response)

    # Complete: a chat of one user message, or a prompt that the caller has put into the model's format already

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt.

        Args:
            prompt: What to answer.
            formatted: The prompt is in the model's own format: it is sent as it is, without the chat template.
            **kwargs: As for `chat`.

        Raises:
            LocalLlamaError: Whatever fails; see `localllama.errors`.
        """
        if formatted:
            return to_completion_response(self._client.complete(prompt, **self._formatted_call(kwargs)))
        request, options = self._call(_one_message(prompt), kwargs)
        return to_completion_response(self._client.chat(request, **options))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """`complete` in pieces, each with all that came before it."""
        if formatted:
            open_stream = partial(self._client.stream_complete, prompt, **self._formatted_call(kwargs))
        else:
            request, options = self._call(_one_message(prompt), kwargs)
            open_stream = partial(self._client.stream_chat, request, **options)
        return _stream(open_stream, StreamedAnswer().completion_response)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete`, without blocking the event loop."""
        if formatted:
            return to_completion_response(await self._async_client.complete(prompt, **self._formatted_call(kwargs)))
        request, options = self._call(_one_message(prompt), kwargs)
        return to_completion_response(await self._async_client.chat(request, **options))

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """`stream_complete`, without blocking the event loop."""
        if formatted:
            open_stream = partial(self._async_client.stream_complete, prompt, **self._formatted_call(kwargs))
        else:
            request, options = self._call(_one_message(prompt), kwargs)
            open_stream = partial(self._async_client.stream_chat, request, **options)
        return _astream(open_stream, StreamedAnswer().completion_response)

    # Its life

    def close(self) -> None:
        """Give up this object's share of the server; the last share stops it. Calls raise `ClientClosedError` then."""
        self._async_client.close()
        self._client.close()

    async def aclose(self) -> None:
        """`close`, without blocking the event loop."""
        await self._async_client.aclose()
        await asyncio.to_thread(self._client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OPTION_FIELDS:
            # What does not fit is refused before anything is changed.
            value = getattr(type(self)(**{**self.__dict__, name: value}), name)
        super().__setattr__(name, value)
        if name in _CLIENT_FIELDS:
            self._connect()

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._connect()
        return copied

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with clients of its own, and with `update` applied to its fields."""
        copied = super().model_copy(update=update, deep=deep)
        copied._connect()
        return copied

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # Fields that were changed, and of these none that may hold a prompt or a secret.
        hidden = {"system_prompt", "chat_template"}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if not field.exclude and name not in hidden and value != field.get_default(call_default_factory=True):
                yield name, value

    def _repr_html_(self) -> str:
        return self._client._repr_html_(type(self).__name__)


def _one_message(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(prompt, role=MessageRole.USER)]


def _stream(open_stream: Callable[[], ChatStream], to_response: Callable[[ChatChunk], T]) -> Generator[T, None, None]:
    with open_stream() as stream:
        for chunk in stream:
            if is_shown(chunk):
                yield to_response(chunk)


async def _astream(
    open_stream: Callable[[], AsyncChatStream], to_response: Callable[[ChatChunk], T]
) -> AsyncGenerator[T, None]:
    async with open_stream() as stream:
        async for chunk in stream:
            if is_shown(chunk):
                yield to_response(chunk)
