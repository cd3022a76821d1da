"""Tools and tool choices in LangChain's many forms, as the core takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool

from localllama import ConfigurationError, ToolChoice, ToolSpec, nearest_name_hint

from ._forms import to_function_tool

_CHOICES: dict[str, ToolChoice] = {"auto": "auto", "none": "none", "any": "required", "required": "required"}

ToolLike = Mapping[str, Any] | type | Callable[..., Any] | BaseTool


def to_openai_tools(tools: Sequence[ToolLike], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Each tool as `{"type": "function", "function": {...}}`, the shape in which LangChain passes tools on.

    Raises:
        ConfigurationError: Not a tool, or one that a vendor runs on its own servers.
    """
    return [to_function_tool(tool, strict=strict) for tool in tools]


def to_tool_specs(tools: Sequence[ToolLike]) -> tuple[ToolSpec, ...]:
    """The tools of one call as the core takes them.

    Raises:
        ConfigurationError: As in `to_openai_tools`.
    """
    functions = [tool["function"] for tool in to_openai_tools(tools)]
    return tuple(
        ToolSpec(
            name=function["name"],
            description=function.get("description") or "",
            parameters=function.get("parameters") or {"type": "object", "properties": {}},
        )
        for function in functions
    )


def to_tool_choice(choice: str | bool | Mapping[str, Any] | None, names: Sequence[str]) -> ToolChoice | None:
    """LangChain's `tool_choice`: "auto", "none", "any", "required", True, a tool's name, or the dict of some vendor.

    Args:
        choice: What the user gave; False is like None.
        names: Names of the tools of the call.

    Raises:
        ConfigurationError: It names no tool of the call.
    """
    if choice is None or choice is False or not names:
        return None
    if choice is True:
        return "required"
    if isinstance(choice, Mapping):
        function = choice.get("function")
        chosen = function.get("name") if isinstance(function, Mapping) else choice.get("name") or choice.get("type")
    else:
        chosen = choice
    if chosen in names:
        return str(chosen)
    if chosen in _CHOICES:
        return _CHOICES[chosen]
    near = nearest_name_hint(str(chosen), [*names, *_CHOICES])
    raise ConfigurationError(
        f"tool_choice={choice!r} is neither a tool of this call nor one of {', '.join(_CHOICES)}",
        hint=f"Did you mean {near!r}?" if near else f"The tools are: {', '.join(names)}.",
    )


def to_response_format(value: Any) -> Mapping[str, Any] | None:
    """The `response_format` of a call: an object as in the OpenAI API, sent as it is.

    Raises:
        ConfigurationError: It is not such an object.
    """
    if value is None or isinstance(value, Mapping):
        return value
    raise ConfigurationError(
        f"response_format must be a dict such as {{'type': 'json_object'}}, not {type(value).__name__}",
        hint="For a class, use with_structured_output().",
    )
