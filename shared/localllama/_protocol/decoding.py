"""Decides how an answer is decoded: the one place that knows when tools and schemas are native and when they are forced.

| the caller wants                        | the template shows tools and calls | it does not                           |
|-----------------------------------------|------------------------------------|---------------------------------------|
| an answer                               | as it comes                        | as it comes                           |
| tools, free choice                      | native, parsed by the server       | our prompt, an envelope with an answer|
| tools, a call that must happen          | tools in the template, an envelope | our prompt, an envelope               |
| an object                               | its schema                         | its schema                            |
| tools, free choice, and an object       | an envelope: a call or the object  | the same, with our prompt             |

llama-server drops the tools in silence where a response format is given with them, and its `tool_choice: "required"` is a
wish: hence the envelopes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from localllama.errors import ConfigurationError
from localllama.types import ChatRequest, ServerInfo, ToolSpec

from .envelope import Envelope, arguments_key
from .prepared import SchemaForm
from .tool_prompt import schema_prompt, tool_prompt, with_result_hints, with_system_text

__all__ = ["DecodingPlan", "enforced_schema", "plan_decoding", "response_schema"]

_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True)
class DecodingPlan:
    """How one request is sent and its answer read.

    Attributes:
        request: What is sent: messages with our prompt, tools where the template shows them, the response format.
        envelope: How the text of the answer is read back; None: it is the answer.
        schema: The schema that the answer's text must have, as the caller gave it.
        tools: The tools that may be called, as the caller gave them.
    """

    request: ChatRequest
    envelope: Envelope | None = None
    schema: Mapping[str, Any] | None = None
    tools: tuple[ToolSpec, ...] = ()

    @property
    def has_fixed_form(self) -> bool:
        """Whether the answer must be JSON of one form, or a call."""
        return not self.envelope.has_answer if self.envelope is not None else self.schema is not None


def plan_decoding(
    request: ChatRequest, server: ServerInfo, form: SchemaForm, *, is_enveloped: bool = False, is_choice: bool = False
) -> DecodingPlan:
    """The plan for one request.

    Args:
        request: What the caller wants.
        server: What the server's template can take.
        form: Makes schemas fit for the server.
        is_enveloped: Calls are decoded in an envelope, also where the template has a syntax of its own.
        is_choice: Only the name of the tool is decoded.

    Raises:
        ConfigurationError: A choice of a tool that is not there, or a schema that nobody can satisfy.
    """
    schema = response_schema(request)
    tools = _allowed_tools(request)
    if not tools:
        return _plan_without_tools(request, schema, form)
    if schema is None and _is_json_object(request):
        schema = _ANY_OBJECT
    template = server.template
    is_forced = request.tool_choice not in (None, "auto")
    is_native = not is_forced and schema is None and template.supports_tools and template.supports_tool_calls
    if is_native and not is_enveloped:
        return DecodingPlan(request, tools=tools)
    envelope = Envelope(
        tools=tools if is_choice else tuple(form.tool(tool) for tool in tools),
        is_parallel=bool(request.parallel_tool_calls),
        has_answer=not is_forced and schema is None,
        result_schema=None if is_forced or schema is None else form.schema(schema),
        arguments_key=arguments_key(server.chat_template),
        is_choice=is_choice,
    )
    return _envelope_plan(request, tools, envelope, schema, form.envelope(envelope), is_shown=template.supports_tools)


def _plan_without_tools(request: ChatRequest, schema: Mapping[str, Any] | None, form: SchemaForm) -> DecodingPlan:
    bare = replace(request, tools=(), tool_choice=None, parallel_tool_calls=None)
    if schema is not None:
        messages = with_system_text(bare.messages, schema_prompt(schema))
        sent = replace(bare, messages=messages, response_format=_json_schema(form.schema(schema)))
        return DecodingPlan(sent, schema=schema)
    return DecodingPlan(bare, schema=_ANY_OBJECT if _is_json_object(bare) else None)


def _is_json_object(request: ChatRequest) -> bool:
    return request.response_format is not None and request.response_format.get("type") == "json_object"


def _envelope_plan(
    request: ChatRequest,
    tools: tuple[ToolSpec, ...],
    envelope: Envelope,
    schema: Mapping[str, Any] | None,
    compiled: Mapping[str, Any],
    *,
    is_shown: bool,
) -> DecodingPlan:
    messages = request.messages
    has_result = envelope.result_schema is not None and schema is not None
    if not is_shown:
        prompt = tool_prompt(tools, arguments_key=envelope.arguments_key, has_answer=envelope.has_answer)
        messages = with_system_text(messages, prompt)
        if envelope.has_answer:
            messages = with_result_hints(messages, form='{"answer": <text>}')
    if has_result and schema is not None:
        how = f'When you have all that you need, give it as {{"result": <value>}}. {schema_prompt(schema)}'
        messages = with_result_hints(with_system_text(messages, how), form='{"result": <value>}')
    sent = replace(
        request,
        messages=messages,
        tools=tools if is_shown else (),
        tool_choice=None,
        parallel_tool_calls=None,
        response_format=_json_schema(compiled),
    )
    return DecodingPlan(sent, envelope, schema if has_result else None, tools)


def _json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    # Of the spellings that llama-server takes without complaint, two are ignored; this one is enforced.
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}}


def enforced_schema(request: ChatRequest) -> Mapping[str, Any] | None:
    """The schema in the response format of a plan, for endpoints that have no such field."""
    return response_schema(request) or (_ANY_OBJECT if _is_json_object(request) else None)


def _allowed_tools(request: ChatRequest) -> tuple[ToolSpec, ...]:
    choice = request.tool_choice
    if choice == "none" or (not request.tools and choice in (None, "auto")):
        return ()
    if not request.tools:
        raise ConfigurationError(f"tool_choice={choice!r}, but there are no tools", hint="Give tools, or leave it out.")
    tools = _distinct(request.tools)
    if choice in (None, "auto", "required"):
        return tools
    chosen = tuple(tool for tool in tools if tool.name == choice)
    if not chosen:
        names = ", ".join(repr(tool.name) for tool in request.tools)
        raise ConfigurationError(f"tool_choice={choice!r} is none of the tools {names}")
    return chosen


def _distinct(tools: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
    """The tools, each once: a call says which one is meant by the name alone."""
    found: dict[str, ToolSpec] = {}
    for tool in tools:
        if found.setdefault(tool.name, tool) != tool:
            raise ConfigurationError(
                f"two different tools are named {tool.name!r}, and a call could mean either",
                hint="Give each tool a name of its own.",
            )
    return tuple(found.values())


def response_schema(request: ChatRequest) -> Mapping[str, Any] | None:
    """The schema that a `response_format` asks for, in any spelling that is in use; None if it asks for none.

    Raises:
        ConfigurationError: It asks for something that nobody knows.
    """
    form = request.response_format
    if form is None or form.get("type") in (None, "text"):
        return None
    kind, inner = form.get("type"), form.get("json_schema")
    if kind == "json_schema":
        schema = inner.get("schema", inner) if isinstance(inner, Mapping) else form.get("schema")
        if not isinstance(schema, Mapping):
            raise ConfigurationError(
                "response_format of type 'json_schema' has no schema",
                hint='Give {"type": "json_schema", "json_schema": {"schema": {...}}}.',
            )
        return schema
    if kind == "json_object":
        schema = form.get("schema")
        return schema if isinstance(schema, Mapping) else None
    raise ConfigurationError(
        f"response_format of type {kind!r} is not known", hint="Use 'json_schema', 'json_object' or 'text'."
    )
