"""What the model is told where its chat template has no place for it: the tools, and the schema of the answer.

The texts are functions of the tools and the schema alone, so they are the same from turn to turn and the KV cache of the
server covers them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from localllama.types import ContentPart, Message, TextPart, ToolSpec

__all__ = ["schema_prompt", "tool_prompt", "with_result_hints", "with_system_text"]


def tool_prompt(tools: Sequence[ToolSpec], *, arguments_key: str, has_answer: bool) -> str:
    """Describes the tools and the form of a call.

    The wording was chosen on SmolLM2-135M, the weakest model of the tests: it calls a tool that fits, and answers once it
    has the result.

    Args:
        tools: The tools.
        arguments_key: The key of the arguments in a call.
        has_answer: Whether the model may answer in words instead.
    """
    lines = "\n".join(_described(tool) for tool in tools)
    call = f'{{"name": <function-name>, "{arguments_key}": <args-json-object>}}'
    how = (
        f"If a function can help, call it with {call}. "
        'Only if none can help, or you have its result, answer with {"answer": <text>}.'
        if has_answer
        else f"Call a function with {call}."
    )
    return (
        "# Tools\n\nYou may call a function to assist with the user's question. The functions:\n"
        f"<tools>\n{lines}\n</tools>\n\n{how}"
    )


def _described(tool: ToolSpec) -> str:
    described = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return json.dumps(described, ensure_ascii=False, default=dict)


def with_result_hints(messages: tuple[Message, ...], *, form: str) -> tuple[Message, ...]:
    """The messages with a word behind each result of a tool on how to go on.

    Without it SmolLM2-135M calls the tool again in four of five questions tried, with it in two.

    Args:
        messages: The conversation.
        form: How an answer is written, such as `{"answer": <text>}`.
    """
    hint = f"Now answer with {form}, or call another function."
    return tuple(
        replace(message, content=_with_text(message.content, hint)) if message.role == "tool" else message
        for message in messages
    )


def schema_prompt(schema: Mapping[str, Any]) -> str:
    """Shows the schema that the answer will have; llama-server enforces it without a word to the model."""
    written = json.dumps(schema, ensure_ascii=False, default=dict)
    return f"Answer with a JSON value that matches this JSON Schema:\n{written}"


def with_system_text(messages: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    """The messages with `text` at the end of the first system message, or in one of its own in front."""
    first = messages[0]
    if first.role != "system":
        return (Message("system", text), *messages)
    return (replace(first, content=_with_text(first.content, text)), *messages[1:])


def _with_text(content: str | tuple[ContentPart, ...], text: str) -> str | tuple[ContentPart, ...]:
    if isinstance(content, str):
        return f"{content}\n\n{text}" if content else text
    return (*content, TextPart(text))
