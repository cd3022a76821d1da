"""LlamaIndex tools to the core's, and the model's calls back to `ToolSelection`s."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatResponse, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection
from pydantic_core import from_json

from localllama import ConfigurationError, ToolSpec

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

__all__ = ["is_of_program", "take_request_fields", "to_call_arguments", "to_tool_selections", "with_first_call_only"]

_PROGRAM_MODULE = "llama_index.core.program.function_program"


def to_call_arguments(tools: Sequence[BaseTool], tool_choice: Any, *, is_required: bool) -> dict[str, Any]:
    """The keyword arguments of `chat` that offer these tools; none for no tools.

    They are OpenAI's own forms, so that callbacks and traces can show them.
    """
    if not tools:
        return {}
    return {
        "tools": [_openai_tool(tool) for tool in tools],
        "tool_choice": tool_choice or ("required" if is_required else "auto"),
    }


def is_of_program(tools: Sequence[BaseTool]) -> bool:
    """Whether these are the tools of a `FunctionCallingProgram`: calling them is not a choice, it is the answer."""
    functions = [getattr(tool, "fn", None) for tool in tools]
    return bool(functions) and all(getattr(function, "__module__", None) == _PROGRAM_MODULE for function in functions)


def _openai_tool(tool: BaseTool) -> dict[str, Any]:
    metadata = tool.metadata
    function = metadata.to_openai_tool(skip_length_check=True)["function"]
    # LlamaIndex looks a called tool up by its own name, but shows one here in which OpenAI's forbidden letters are
    # replaced; and of a schema it shows five keywords, so that one that is a reference is empty.
    schema = metadata.fn_schema.model_json_schema() if metadata.fn_schema is not None else {}
    shown = {key: value for key, value in schema.items() if key not in {"title", "description"}}
    return {
        "type": "function",
        "function": {
            **function,
            "name": metadata.get_name(),
            "parameters": {**shown, **function["parameters"]},
        },
    }


def take_request_fields(arguments: dict[str, Any]) -> dict[str, Any]:
    """Move what belongs to a `ChatRequest` out of the arguments of a call, in the core's form."""
    fields = {
        "tools": tuple(_tool_spec(tool) for tool in arguments.pop("tools", None) or ()),
        "tool_choice": _tool_choice(arguments.pop("tool_choice", None)),
        "parallel_tool_calls": arguments.pop("parallel_tool_calls", None),
        "response_format": arguments.pop("response_format", None),
    }
    is_free = fields["tools"] and fields["tool_choice"] in (None, "auto") and fields["response_format"] is None
    # A call that the model was free to make, and that does not fit, is the tool's to refuse: an agent goes on from there.
    fields["on_invalid"] = "return" if is_free else None
    return {name: value for name, value in fields.items() if value not in (None, ())}


def _tool_spec(tool: Any) -> ToolSpec:
    if isinstance(tool, ToolSpec):
        return tool
    if hasattr(tool, "metadata"):
        tool = _openai_tool(tool)
    function = tool.get("function", tool)
    return ToolSpec(
        name=function["name"],
        description=function.get("description") or "",
        parameters=function.get("parameters") or {"type": "object", "properties": {}},
    )


def _tool_choice(choice: Any) -> str | None:
    if choice is None or isinstance(choice, str):
        return "required" if choice == "any" else choice
    try:
        # OpenAI's form for the chat API, and the flat one of others.
        name: str = choice.get("function", choice)["name"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"tool_choice={choice!r} is in no known form",
            hint="Give 'auto', 'none', 'required' or the name of a tool.",
        ) from error
    return name


def to_tool_selections(response: ChatResponse) -> list[ToolSelection]:
    """The calls of a response; of one that is still streamed, with as many arguments as can be read."""
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "", tool_name=block.tool_name, tool_kwargs=_arguments(block.tool_kwargs)
        )
        for block in _calls(response)
    ]


def _arguments(arguments: dict[str, Any] | str) -> dict[str, Any]:
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = from_json(arguments, allow_partial="trailing-strings")
    except ValueError:
        # In the middle of a stream there may be nothing to complete yet.
        return {}
    return parsed if isinstance(parsed, dict) else {}


def with_first_call_only(response: ChatResponse) -> ChatResponse:
    """A copy without the further calls, for a caller who allows one; the response itself if it has no more."""
    further = _calls(response)[1:]
    if not further:
        return response
    message = response.message.model_copy(
        update={
            "blocks": [block for block in response.message.blocks if not any(block is other for other in further)],
            "additional_kwargs": {
                **response.message.additional_kwargs,
                "tool_calls": response.message.additional_kwargs.get("tool_calls", [])[:1],
            },
        }
    )
    return response.model_copy(update={"message": message})


def _calls(response: ChatResponse) -> list[ToolCallBlock]:
    blocks: Iterable[Any] = response.message.blocks
    return [block for block in blocks if isinstance(block, ToolCallBlock)]
