"""LlamaIndex's tool calling for an LLM that enforces what it is asked: a call that is required is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    MessageRole,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from ._tools import is_of_program, to_call_arguments, to_tool_selections, with_first_call_only

if TYPE_CHECKING:
    from llama_index.core.chat_engine.types import AgentChatResponse
    from llama_index.core.tools.types import BaseTool

__all__ = ["ToolCalling"]


class ToolCalling(FunctionCallingLLM):
    """The tool methods, over chat methods that take `tools`, `tool_choice` and `parallel_tool_calls` as in OpenAI's API.

    Two faults of LlamaIndex's `FunctionCallingProgram`, which selectors and synthesizers use, are made up for here: its
    streams do not say that the call is required, and its async calls leave out the `system_prompt`.
    """

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,  # noqa: ARG002  # LlamaIndex passes it
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or ())
        if user_msg is not None:
            messages.append(ChatMessage(user_msg, role=MessageRole.USER) if isinstance(user_msg, str) else user_msg)
        offered = to_call_arguments(tools, kwargs.pop("tool_choice", None), is_required=tool_required)
        if offered:
            offered["parallel_tool_calls"] = allow_parallel_tool_calls
        return {"messages": messages, **offered, **kwargs}

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],  # noqa: ARG002  # LlamaIndex passes it
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,  # noqa: ARG002  # LlamaIndex passes them
    ) -> ChatResponse:
        return response if allow_parallel_tool_calls else with_first_call_only(response)

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,
        **kwargs: Any,  # noqa: ARG002  # LlamaIndex passes them
    ) -> list[ToolSelection]:
        """The tool calls of a response, whole or still streamed.

        Raises:
            ValueError: There is none, and `error_on_no_tool_call` is set.
        """
        selections = to_tool_selections(response)
        if not selections and error_on_no_tool_call:
            raise ValueError(f"Expected at least one tool call, but the model answered: {response.message.content!r}")
        return selections

    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """`chat_with_tools` in pieces, each with all that came before it."""
        return super().stream_chat_with_tools(
            tools,
            user_msg=user_msg,
            chat_history=chat_history,
            verbose=verbose,
            allow_parallel_tool_calls=allow_parallel_tool_calls,
            tool_required=tool_required or is_of_program(tools),
            **kwargs,
        )

    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """`stream_chat_with_tools`, without blocking the event loop."""
        return await super().astream_chat_with_tools(
            tools,
            user_msg=user_msg,
            chat_history=chat_history,
            verbose=verbose,
            allow_parallel_tool_calls=allow_parallel_tool_calls,
            tool_required=tool_required or is_of_program(tools),
            **kwargs,
        )

    def predict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Let the model call tools, and run what it called.

        Args:
            tools: The tools.
            user_msg: What is asked, after `chat_history`.
            chat_history: The conversation so far; not changed.
            verbose: Print the calls.
            allow_parallel_tool_calls: Several calls may be made at once.
            error_on_no_tool_call: An answer in words is an error. Then the model has to call, unless `tool_required` or
                `tool_choice` say otherwise.
            error_on_tool_error: A tool that fails is an error.
            **kwargs: As for `chat`, and `tool_required`.

        Raises:
            ValueError: See `error_on_no_tool_call`, `error_on_tool_error`.
            LocalLlamaError: Whatever else fails.
        """
        kwargs.setdefault("tool_required", error_on_no_tool_call)
        return super().predict_and_call(
            tools,
            user_msg=user_msg,
            chat_history=chat_history,
            verbose=verbose,
            allow_parallel_tool_calls=allow_parallel_tool_calls,
            error_on_no_tool_call=error_on_no_tool_call,
            error_on_tool_error=error_on_tool_error,
            **kwargs,
        )

    async def apredict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """`predict_and_call`, without blocking the event loop."""
        kwargs.setdefault("tool_required", error_on_no_tool_call)
        if is_of_program(tools):
            chat_history = self._with_system_prompt(chat_history or [])
        return await super().apredict_and_call(
            tools,
            user_msg=user_msg,
            chat_history=chat_history,
            verbose=verbose,
            allow_parallel_tool_calls=allow_parallel_tool_calls,
            error_on_no_tool_call=error_on_no_tool_call,
            error_on_tool_error=error_on_tool_error,
            **kwargs,
        )

    def _with_system_prompt(self, messages: list[ChatMessage]) -> list[ChatMessage]:
        # A later LlamaIndex may add it itself.
        has_it = bool(messages) and messages[0].role is MessageRole.SYSTEM and messages[0].content == self.system_prompt
        return messages if has_it else self._extend_messages(messages)
