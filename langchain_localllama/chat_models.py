"""`ChatLocalLlama`: a local GGUF model as a LangChain chat model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import PrivateAttr, model_validator
from typing_extensions import Self, override

import localllama
from localllama import (
    ChatRequest,
    ConfigurationError,
    LocalLlamaError,
    ModelInfo,
    SamplingSettings,
    ServerSettings,
    TimeoutSettings,
    nearest_name_hint,
)

from ._clients import Clients
from ._errors import as_langchain_errors
from ._messages import to_core_messages
from ._output import MODEL_PROVIDER, to_chat_result, to_generation_chunk
from ._parameters import LocalLlamaParameters
from ._profile import to_profile
from ._structured import AnswerWithRaw, structured
from ._tools import ToolLike, to_openai_tools, to_response_format, to_tool_choice, to_tool_specs

if TYPE_CHECKING:
    from localllama import StartProgress

__all__ = ["ChatLocalLlama"]

_REQUEST_ARGUMENTS = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "model", "timeout")
"""What a call may have besides the names of `SamplingSettings`."""


@dataclass(frozen=True)
class _Call:
    settings: ServerSettings
    request: ChatRequest
    sampling: SamplingSettings
    timeouts: TimeoutSettings


class ChatLocalLlama(LocalLlamaParameters):
    """A GGUF model on this machine, through a private llama-server that belongs to this process.

        from langchain_localllama import ChatLocalLlama

        llm = ChatLocalLlama(model="qwen3-4b", temperature=0)
        llm.invoke("Write a haiku about C.")   # the server starts here, and stays warm

    Making the object starts nothing; at most it reads the header of a model file that is here. The first call starts the
    server; objects and copies with equal server settings share it; it ends with the last of them, dropped or closed, and
    with this process in any case.

    Every argument has the name that llama.cpp gives it. Those of `localllama.SamplingSettings` (`temperature`,
    `max_tokens`, `stop`, `seed`, `top_k`, `grammar`, `reasoning`, `extra_body`, ...) can be given to a single call too, as
    can `timeout` and `model`: another model gets a server of its own. An unknown name is refused.

    The arguments are all those of `localllama.ServerOptions` and `localllama.SamplingOptions`, of which the commonest are named
    here, those of LangChain's `BaseChatModel`, and `timeout`, `max_retries` and `streaming`.

    Args:
        model: A path, a catalog name such as "smollm2-135m", or "owner/repo:QUANT" on Hugging Face. Default: the
            environment variable `LOCALLLAMA_MODEL`.
        n_ctx: The context window of one request, in tokens. Default: the model's own, at most 8192.
        n_gpu_layers: "all", "auto" or a number.
        parallel: How many requests run at once; further ones wait. Default 1.
        temperature: 0 takes the likeliest token always.
        max_tokens: Most tokens of an answer, thinking included. Default: up to the end of the window.
        stop: Strings that end the answer.
        timeout: Most seconds of one call. Default: no limit of the whole call.
        max_retries: How often a call is tried again where that is surely safe. Default 2.
        streaming: Let `invoke` generate as a stream too, so that callbacks see each token. Default False.

    Raises:
        ConfigurationError: An argument is unknown or out of range; the message names it, the hint the remedy.
    """

    _clients: Clients = PrivateAttr(default_factory=Clients)

    # -- generation -------------------------------------------------------------------------------------------------

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with as_langchain_errors():
            call = self._to_call(messages, stop, kwargs)
            client = self._clients.sync(call.settings, self.max_retries)
            result = client.chat(call.request, sampling=call.sampling, timeouts=call.timeouts)
        return to_chat_result(result, call.settings.model)

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with as_langchain_errors():
            call = self._to_call(messages, stop, kwargs)
            client = self._clients.asynchronous(call.settings, self.max_retries)
            result = await client.chat(call.request, sampling=call.sampling, timeouts=call.timeouts)
        return to_chat_result(result, call.settings.model)

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with as_langchain_errors():
            call = self._to_call(messages, stop, kwargs)
            client = self._clients.sync(call.settings, self.max_retries)
            with client.stream_chat(call.request, sampling=call.sampling, timeouts=call.timeouts) as stream:
                for chunk in stream:
                    if shown := to_generation_chunk(chunk, call.settings.model):
                        yield shown

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with as_langchain_errors():
            call = self._to_call(messages, stop, kwargs)
            client = self._clients.asynchronous(call.settings, self.max_retries)
            async with client.stream_chat(call.request, sampling=call.sampling, timeouts=call.timeouts) as stream:
                async for chunk in stream:
                    if shown := to_generation_chunk(chunk, call.settings.model):
                        yield shown

    def _to_call(self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> _Call:
        """What one call sends, from the fields of the object and the arguments of the call."""
        changes = {name: value for name, value in kwargs.items() if name != "stream"}  # `stream` is LangChain's own
        arguments = {name: changes.pop(name, None) for name in _REQUEST_ARGUMENTS}
        _refuse_unknown(changes)
        tools = to_tool_specs(arguments["tools"] or ())
        request = ChatRequest(
            messages=to_core_messages(messages),
            tools=tools,
            tool_choice=to_tool_choice(arguments["tool_choice"], [tool.name for tool in tools]),
            parallel_tool_calls=arguments["parallel_tool_calls"] if tools else None,
            response_format=to_response_format(arguments["response_format"]),
        )
        timeout = self.timeout if arguments["timeout"] is None else arguments["timeout"]
        return _Call(
            settings=self._server_settings(arguments["model"]),
            request=request,
            sampling=self._sampling_settings().merged({**changes, "stop": stop}),
            timeouts=TimeoutSettings.of(timeout),
        )

    # -- tools ------------------------------------------------------------------------------------------------------

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | ToolLike],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """This model with tools that it may call.

        Any model can call tools, with or without a place for them in its chat template. A call that must happen happens:
        the answer is generated under a grammar that allows nothing else.

        Args:
            tools: Functions, tools, runnables (`as_tool`), pydantic classes, typed dicts, JSON schemas with a title, or the
                dicts of OpenAI and Anthropic. None at all is allowed.
            tool_choice: "auto", the default: the model decides; "none"; "any", "required" or True for some tool; a
                tool's name, or a dict that names it, for that one.
            strict: As in the OpenAI API: no property that the schema does not name.
            parallel_tool_calls: Whether one answer may call several tools. None leaves it to the model's template, and
                where the call is forced it is one.
            **kwargs: Further arguments of the call, such as `response_format` or `temperature`.

        Raises:
            ConfigurationError: Something is no tool, or `tool_choice` names none of them.
        """
        shaped = to_openai_tools(tools, strict=strict)
        choice = to_tool_choice(tool_choice, [tool["function"]["name"] for tool in shaped])
        options = {"tool_choice": choice, "parallel_tool_calls": parallel_tool_calls}
        given = {name: value for name, value in options.items() if value is not None}
        return self.bind(tools=shaped, **given, **kwargs)

    @override
    def with_structured_output(
        self,
        schema: Any = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """This model with answers in a form of yours: it gives objects instead of messages, or raises.

            class Person(BaseModel):
                name: str
                born: date

            people = llm.with_structured_output(Person)
            people.invoke("Ada Lovelace, born on 10 December 1815")

        The answer is generated under a grammar made of the schema, and checked against the schema afterwards. In a stream
        the object grows: dicts from their first key on, objects of a class as soon as the class accepts what there is.

        Args:
            schema: A pydantic class (v1 or v2), a dataclass, or any type that pydantic knows, such as `Cat | Dog` and
                `list[Person]`: the answer is an object of it. A typed dict, a JSON Schema, a tool of OpenAI or Anthropic
                or a whole `response_format`: the answer is a dict. None is possible with "json_mode" alone.
            method: "json_schema": the answer's text is the object. "function_calling": the object is the arguments of a
                tool call, as some models were trained; it must be an object then, not a list. "json_mode": as the first,
                but that `schema` may be left out, and the prompt describe the object.
            include_raw: Give {"raw": message, "parsed": object or None, "parsing_error": error or None} and do not raise
                where the answer is not what it must be.
            strict: For code that is written for any model. Here a schema always holds.
            **kwargs: Further arguments of the call, such as `temperature`.

        Raises:
            ConfigurationError: No schema can be made of `schema`.
            StructuredOutputError: Raised by the object that is returned: the answer is not what it must be. It is an
                `OutputParserException` too.
        """
        model, parser = structured(self, schema, method=method, strict=strict, arguments=kwargs)
        return AnswerWithRaw(model=model, parser=parser) if include_raw else model | parser

    # -- counting ---------------------------------------------------------------------------------------------------

    @override
    def get_token_ids(self, text: str) -> list[int]:
        """The token ids of a text by the model's own tokenizer; starts the server."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        with as_langchain_errors():
            return self._clients.sync(self._server_settings(), self.max_retries).tokenize(text)

    @override
    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[ToolLike] | None = None) -> int:
        """Tokens that the messages and tools take in the window, with the chat template around them; starts the server."""
        if not messages and not tools:  # a part of a conversation may be empty: `trim_messages` asks what it takes
            return 0
        with as_langchain_errors():
            request = ChatRequest(messages=to_core_messages(messages), tools=to_tool_specs(tools or ()))
            return self._clients.sync(self._server_settings(), self.max_retries).count_tokens(request)

    # -- what LangChain asks about the model ------------------------------------------------------------------------

    @property
    @override
    def _llm_type(self) -> str:
        return "chat-localllama"

    @property
    @override
    def _identifying_params(self) -> Mapping[str, Any]:
        info = self._model_info()
        return {**self._parameter_values(), **({"model_fingerprint": info.fingerprint} if info else {})}

    @override
    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        # Core would put None over the object's own stop strings.
        return super()._get_invocation_params(stop=self._stop_strings(stop), **kwargs)

    @override
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        # Core's own key is made of `_serialized`, which is computed once for an object and its copies: after
        # `llm.temperature = 1`, or on `llm.model_copy(update=...)`, the cache would answer for the old parameters.
        return str(sorted(self._get_invocation_params(stop=stop, **kwargs).items()))

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(ls_provider=MODEL_PROVIDER, ls_model_type="chat")
        params["ls_model_name"] = kwargs.get("model") or self.model or self.base_url or ""
        temperature = kwargs.get("temperature", self.temperature)
        if temperature is not None:
            params["ls_temperature"] = temperature
        max_tokens = kwargs.get("max_tokens", self.max_tokens)
        if max_tokens is not None:
            params["ls_max_tokens"] = max_tokens
        if stop_strings := self._stop_strings(stop):
            params["ls_stop"] = stop_strings
        return params

    def _stop_strings(self, stop: list[str] | None) -> list[str] | None:
        # Through the settings: a single string is one stop string, not many of a letter each.
        strings = self._sampling_settings().merged({"stop": stop}).stop
        return None if strings is None else list(strings)

    def _model_info(self) -> ModelInfo | None:
        # A model that is missing or damaged is an error of the call that needs it, which says so better.
        with suppress(LocalLlamaError):
            return self._clients.sync(self._server_settings(), self.max_retries).model_info()
        return None

    @override
    def _resolve_model_profile(self) -> ModelProfile | None:
        info = self._model_info()
        return to_profile(info, has_projector=info.mmproj is not None) if info else None

    def _repr_html_(self) -> str | None:
        with suppress(LocalLlamaError):  # fields that were set to what does not fit; then `repr` is shown
            return self._clients.card(self._server_settings(), self.max_retries, type(self).__name__)
        return None

    @model_validator(mode="after")
    def _set_localllama_version(self) -> Self:
        self._add_version("localllama", localllama.__version__)
        return self

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self, on_progress: Callable[[StartProgress], None] | None = None) -> None:
        """Fetch the model and start the server now, rather than in the first call.

        Args:
            on_progress: Called often while the model is fetched and loaded, in the thread that starts the server.
        """
        with as_langchain_errors():
            self._clients.sync(self._server_settings(), self.max_retries).start(on_progress)

    def close(self) -> None:
        """Give the server up; it stops, within two seconds, if no other object uses it. Idempotent.

        Later calls raise `ClientClosedError`; copies made of this object, before or after, are not closed with it.
        """
        self._clients.close()

    async def aclose(self) -> None:
        """`close` for asyncio code."""
        await self._clients.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __copy__(self) -> Self:
        # `model_copy()` ends here. Pydantic would share the private attributes, and so the clients, with the copy.
        copied = super().__copy__()
        copied._clients = Clients()
        return copied


def _refuse_unknown(changes: Mapping[str, Any]) -> None:
    known = [*SamplingSettings.model_fields, *_REQUEST_ARGUMENTS]
    for name in changes:
        if name in known:
            continue
        if name in ServerSettings.model_fields:
            raise ConfigurationError(
                f"{name} belongs to the server and cannot change from call to call",
                hint=f"Give it to the constructor, or make a copy: llm.model_copy(update={{{name!r}: ...}}).",
            )
        near = nearest_name_hint(name, known)
        raise ConfigurationError(
            f"unknown argument {name!r} of the call",
            hint=f"Did you mean {near!r}?" if near else "What has no name here can be sent with extra_body={...}.",
        )
