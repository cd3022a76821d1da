"""`with_structured_output`: an answer in a form that the user gave, or an error; while it is streamed, in part."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import AddableDict, Runnable, RunnableBinding, RunnableConfig, RunnableSerializable
from langchain_core.utils.json import parse_partial_json
from pydantic import ConfigDict, SkipValidation
from typing_extensions import override

from localllama import ChatResult, ConfigurationError, StructuredOutputError

from ._errors import as_langchain_errors
from ._forms import ANY_OBJECT, AnswerForm, to_answer_form
from ._output import to_chat_result

METHODS = ("json_schema", "function_calling", "json_mode")

_NOTHING: Any = object()


def structured(
    llm: BaseChatModel, schema: Any, *, method: str, strict: bool | None, arguments: Mapping[str, Any]
) -> tuple[Runnable[LanguageModelInput, AIMessage], AnswerParser]:
    """What writes the answer, and what reads it.

    Args:
        llm: The chat model.
        schema: What the answer must be; None with "json_mode" alone.
        method: One of `METHODS`.
        strict: Passed on, as LangChain's traces show it.
        arguments: Further arguments of each call.

    Raises:
        ConfigurationError: An unknown method, or no schema.
    """
    if method not in METHODS:
        raise ConfigurationError(f"method={method!r} is not known", hint=f"Use one of: {', '.join(METHODS)}.")
    if schema is None and method != "json_mode":
        raise ConfigurationError(f"method={method!r} needs a schema", hint='Give one, or use method="json_mode".')
    form = to_answer_form(schema) if schema is not None else ANY_OBJECT
    options = {"method": method} if strict is None else {"method": method, "strict": strict}
    traced = {"kwargs": options, "schema": form.traced()}
    if method == "function_calling":
        model = llm.bind_tools(
            [form.as_tool()],
            tool_choice=form.name,
            parallel_tool_calls=False,
            strict=strict,
            ls_structured_output_format=traced,
            **arguments,
        )
        return model, AnswerParser(form=form, is_call=True)
    response_format = form.as_json_schema(strict=strict) if method == "json_schema" else form.as_json_object()
    bound = llm.bind(response_format=response_format, ls_structured_output_format=traced, **arguments)
    return bound, AnswerParser(form=form)


class AnswerParser(BaseCumulativeTransformOutputParser[Any]):
    """Reads the object from an answer.

    Unlike core's parsers it checks a streamed answer at its end too, and never gives None for an answer that is none.

    Attributes:
        form: What the answer must be.
        is_call: The object is the arguments of a tool call, not the text.
    """

    form: Annotated[AnswerForm, SkipValidation()]
    is_call: bool = False

    @property
    @override
    def OutputType(self) -> Any:
        return dict[str, Any] if self.form.is_plain else self.form.given

    @property
    @override
    def _type(self) -> str:
        return "localllama_answer"

    @override
    def parse(self, text: str) -> Any:
        with as_langchain_errors():
            try:
                return self.form.made_of(text)
            except ValueError as error:
                raise StructuredOutputError(
                    f"the answer is no {self.form.name!r}: {error}", raw_text=text, result=ChatResult(text=text)
                ) from error

    @override
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        generation = result[0]
        text = self.json_text(generation.message) if isinstance(generation, ChatGeneration) else generation.text
        return self.parse_partial(text, default=None) if partial else self.parse(text)

    def parse_partial(self, text: str, default: Any = _NOTHING) -> Any:
        """The object as far as it is written, or `default` if it is none yet."""
        try:
            value = parse_partial_json(text)
            return value if self.form.is_plain else self.form.made_of(json.dumps(value))
        except ValueError:
            return default

    def json_text(self, message: BaseMessage) -> str:
        """What of the object is in a message, or in a piece of one."""
        if not self.is_call:
            return str(message.text)
        if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
            return "".join(call["args"] or "" for call in message.tool_call_chunks if not call["index"])
        if isinstance(message, AIMessage) and not isinstance(message, AIMessageChunk):
            return next((json.dumps(call["args"]) for call in message.tool_calls), "")
        return ""

    @override
    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:
        reading = Reading(self)
        for piece in input:
            yield from reading.feed(piece)
        yield from reading.close()

    @override
    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:
        reading = Reading(self)
        async for piece in input:
            for value in reading.feed(piece):
                yield value
        for value in reading.close():
            yield value


class Reading:
    """One streamed answer: the object as it grows.

    Args:
        parser: Reads it.
    """

    def __init__(self, parser: AnswerParser) -> None:
        self._parser = parser
        self._text = ""
        self._shown: Any = _NOTHING

    def feed(self, piece: str | BaseMessage) -> Iterator[Any]:
        """The object as it is after the next piece, if that changed it."""
        text = piece if isinstance(piece, str) else self._parser.json_text(piece)
        if not text:
            return
        self._text += text
        value = self._parser.parse_partial(self._text)
        if value is not _NOTHING and value != self._shown:
            self._shown = value
            yield value

    def close(self) -> Iterator[Any]:
        """The whole object, if it was not shown already.

        Raises:
            StructuredOutputError: The answer is not what it must be.
        """
        value = self._parser.parse(self._text)
        if self._shown is _NOTHING or value != self._shown:
            yield value


class AnswerWithRaw(RunnableSerializable[LanguageModelInput, dict[str, Any]]):
    """Gives the message, the object and the error, if there is one, side by side: `include_raw=True`.

    Attributes:
        model: Writes the answer.
        parser: Reads it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: Runnable[LanguageModelInput, AIMessage]
    parser: AnswerParser

    @override
    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        return self._call_with_config(self._answer, input, config, **kwargs)

    @override
    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        return await self._acall_with_config(self._aanswer, input, config, **kwargs)

    @override
    def transform(
        self, input: Iterator[LanguageModelInput], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[dict[str, Any]]:
        yield from self._transform_stream_with_config(input, self._transform, config, **kwargs)

    @override
    async def atransform(
        self, input: AsyncIterator[LanguageModelInput], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[dict[str, Any]]:
        async for part in self._atransform_stream_with_config(input, self._atransform, config, **kwargs):
            yield part

    @override
    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[dict[str, Any]]:
        yield from self.transform(iter([input]), config, **kwargs)

    @override
    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[dict[str, Any]]:
        async def once() -> AsyncIterator[LanguageModelInput]:
            yield input

        async for part in self.atransform(once(), config, **kwargs):
            yield part

    def _answer(
        self,
        question: LanguageModelInput,
        run_manager: CallbackManagerForChainRun,  # noqa: ARG002
        config: RunnableConfig,
        **kwargs: Any,
    ) -> dict[str, Any]:
        try:
            raw = self.model.invoke(question, config, **kwargs)
        except StructuredOutputError as error:
            return _failed(self._message_of(error, kwargs), error)
        try:
            return {"raw": raw, "parsed": self.parser.invoke(raw, config), "parsing_error": None}
        except StructuredOutputError as error:
            return _failed(raw, error)

    async def _aanswer(
        self,
        question: LanguageModelInput,
        run_manager: AsyncCallbackManagerForChainRun,  # noqa: ARG002
        config: RunnableConfig,
        **kwargs: Any,
    ) -> dict[str, Any]:
        try:
            raw = await self.model.ainvoke(question, config, **kwargs)
        except StructuredOutputError as error:
            return _failed(self._message_of(error, kwargs), error)
        try:
            return {"raw": raw, "parsed": await self.parser.ainvoke(raw, config), "parsing_error": None}
        except StructuredOutputError as error:
            return _failed(raw, error)

    def _transform(
        self,
        questions: Iterator[LanguageModelInput],
        run_manager: CallbackManagerForChainRun,  # noqa: ARG002
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Iterator[dict[str, Any]]:
        reading = Reading(self.parser)
        try:
            for chunk in self.model.transform(questions, config, **kwargs):
                yield AddableDict(raw=chunk)
                for value in reading.feed(chunk):
                    yield AddableDict(parsed=value)
            for value in reading.close():
                yield AddableDict(parsed=value)
        except StructuredOutputError as error:
            yield AddableDict(parsed=None, parsing_error=error)
        else:
            yield AddableDict(parsing_error=None)

    async def _atransform(
        self,
        questions: AsyncIterator[LanguageModelInput],
        run_manager: AsyncCallbackManagerForChainRun,  # noqa: ARG002
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AsyncIterator[dict[str, Any]]:
        reading = Reading(self.parser)
        try:
            async for chunk in self.model.atransform(questions, config, **kwargs):
                yield AddableDict(raw=chunk)
                for value in reading.feed(chunk):
                    yield AddableDict(parsed=value)
            for value in reading.close():
                yield AddableDict(parsed=value)
        except StructuredOutputError as error:
            yield AddableDict(parsed=None, parsing_error=error)
        else:
            yield AddableDict(parsing_error=None)

    def _message_of(self, error: StructuredOutputError, arguments: Mapping[str, Any]) -> AIMessage | None:
        """The answer in the error, with the name that the model has in answers without one."""
        if error.result is None:
            return None
        bound = self.model.bound if isinstance(self.model, RunnableBinding) else self.model
        given = {**(self.model.kwargs if isinstance(self.model, RunnableBinding) else {}), **arguments}
        name = given.get("model") or getattr(bound, "model", None)
        return cast("AIMessage", to_chat_result(error.result, name).generations[0].message)


def _failed(raw: AIMessage | None, error: StructuredOutputError) -> dict[str, Any]:
    return {"raw": raw, "parsed": None, "parsing_error": error}
