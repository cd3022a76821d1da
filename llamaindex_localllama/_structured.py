"""LlamaIndex's structured prediction: objects that a schema forces, whole or as they grow, and never anything else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, closing
from typing import Any, Generic

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.types import Model, PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from localllama import ChatResult, StructuredOutputError

__all__ = ["StructuredPrediction"]

_dispatcher = get_dispatcher(__name__)

_PROGRAM_ARGUMENTS = frozenset({"tool_required", "tool_choice", "allow_parallel_tool_calls"})
"""Call arguments for LlamaIndex's tool programs; they mean nothing where no tool is used."""


class StructuredPrediction(FunctionCallingLLM):
    """Structured prediction over chat methods that enforce a `response_format`.

    That is for `PydanticProgramMode.DEFAULT`; the other modes are LlamaIndex's own programs.
    """

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """An object of `output_cls`, decoded under its schema and validated.

        Args:
            output_cls: A pydantic class.
            prompt: A template of any kind.
            llm_kwargs: As for `chat`; not changed.
            **prompt_args: The prompt's variables.

        Raises:
            StructuredOutputError: The answer does not validate. It is a `ValueError`.
            LocalLlamaError: Whatever else fails.
        """
        if not self._is_schema_mode:
            made: Model = super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return made
        _dispatcher.event(_start_event(output_cls, prompt, prompt_args))
        response = self.chat(self._messages_of(prompt, prompt_args), **_call_arguments(output_cls, llm_kwargs))
        output = _validated(output_cls, response)
        _dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """`structured_predict`, without blocking the event loop."""
        if not self._is_schema_mode:
            made: Model = await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return made
        _dispatcher.event(_start_event(output_cls, prompt, prompt_args))
        response = await self.achat(self._messages_of(prompt, prompt_args), **_call_arguments(output_cls, llm_kwargs))
        output = _validated(output_cls, response)
        _dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    # What LlamaIndex's stream_structured_predict and astream_structured_predict read, and report as events.

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        if not self._is_schema_mode:
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        messages = self._messages_of(prompt, prompt_args)
        return self._growing(messages, output_cls, _call_arguments(output_cls, llm_kwargs))

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        if not self._is_schema_mode:
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        messages = self._messages_of(prompt, prompt_args)
        return self._agrowing(messages, output_cls, _call_arguments(output_cls, llm_kwargs))

    def _growing(
        self, messages: list[ChatMessage], output_cls: type[Model], arguments: Mapping[str, Any]
    ) -> Generator[Model | FlexibleModel, None, None]:
        growing = GrowingObject(output_cls)
        with closing(self.stream_chat(messages, **arguments)) as responses:
            for response in responses:
                yield from growing.feed(response)
        yield growing.whole()

    async def _agrowing(
        self, messages: list[ChatMessage], output_cls: type[Model], arguments: Mapping[str, Any]
    ) -> AsyncGenerator[Model | FlexibleModel, None]:
        growing = GrowingObject(output_cls)
        async with aclosing(await self.astream_chat(messages, **arguments)) as responses:
            async for response in responses:
                for output in growing.feed(response):
                    yield output
        yield growing.whole()

    @property
    def _is_schema_mode(self) -> bool:
        return self.pydantic_program_mode == PydanticProgramMode.DEFAULT

    def _messages_of(self, prompt: BasePromptTemplate, prompt_args: Mapping[str, Any]) -> list[ChatMessage]:
        return self._extend_messages(prompt.format_messages(llm=self, **prompt_args))


class GrowingObject(Generic[Model]):
    """One streamed answer as objects, each with more of it.

    Args:
        output_cls: What the whole object will be.
    """

    def __init__(self, output_cls: type[Model]) -> None:
        self._output_cls = output_cls
        self._flexible_cls = create_flexible_model(output_cls)
        self._names = {field.alias: name for name, field in output_cls.model_fields.items() if field.alias}
        self._value: Any = None
        self._last: ChatResponse | None = None

    def feed(self, response: ChatResponse) -> Generator[Model | FlexibleModel, None, None]:
        """The object as it is in `response`, if it has grown.

        It is of the class itself where that accepts it already, and else one that has the same fields without their types.
        """
        self._last = response
        if not response.delta or not response.message.content:
            return
        try:
            value = from_json(response.message.content, allow_partial="trailing-strings")
        except ValueError:
            return  # nothing that could be completed has come yet
        if not isinstance(value, dict) or value == self._value:
            return
        self._value = value
        try:
            yield self._output_cls.model_validate_json(to_json(value))
        except ValidationError:
            yield self._flexible_cls.model_validate({self._names.get(key, key): item for key, item in value.items()})

    def whole(self) -> Model:
        """The object at the end.

        Raises:
            StructuredOutputError: What came does not validate.
        """
        if self._last is None:
            raise StructuredOutputError(f"the model gave no {self._output_cls.__name__}: the stream was empty")
        return _validated(self._output_cls, self._last)


def _start_event(
    output_cls: type[BaseModel], prompt: BasePromptTemplate, prompt_args: dict[str, Any]
) -> LLMStructuredPredictStartEvent:
    return LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)


def _call_arguments(output_cls: type[BaseModel], llm_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    given = {name: value for name, value in (llm_kwargs or {}).items() if name not in _PROGRAM_ARGUMENTS}
    schema = {"name": output_cls.__name__, "schema": output_cls.model_json_schema()}
    return {**given, "response_format": {"type": "json_schema", "json_schema": schema}}


def _validated(output_cls: type[Model], response: ChatResponse) -> Model:
    text = response.message.content or ""
    try:
        return output_cls.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise StructuredOutputError(
            f"the answer is no {output_cls.__name__}: {faults}", result=ChatResult(text=text)
        ) from error
