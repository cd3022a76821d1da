"""The forms of an answer in LangChain's many spellings: what the core is asked for, and the object that is made of it."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard, get_args, get_origin

from langchain_core.tools import BaseTool
from langchain_core.tools.base import create_schema_from_function
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, TypeAdapter
from pydantic import v1 as pydantic_v1
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import is_typeddict, override

from localllama import ConfigurationError

_DEFAULT_NAME = "answer"
_PARAMETER_KEYS = ("parameters", "input_schema", "schema")
"""Where the dicts of OpenAI (functions), Anthropic (tools) and OpenAI (response formats) have the schema."""


@dataclass(frozen=True)
class AnswerForm:
    """What an answer must be.

    Attributes:
        given: As the user gave it.
        name: Its name, for the model and for traces.
        schema: Its JSON Schema.
        is_plain: The answer is given as the JSON value that it is: dicts and typed dicts describe nothing else.
    """

    given: Any
    name: str
    schema: Mapping[str, Any]
    is_plain: bool = False

    def made_of(self, text: str) -> Any:
        """The object that a JSON text stands for.

        Raises:
            ValueError: The text is no JSON, or the class refuses what it says.
        """
        if self.is_plain:
            return json.loads(text)
        if _is_v1_model(self.given):
            return self.given.parse_obj(json.loads(text))
        return _adapter(self.given).validate_json(text)

    def traced(self) -> Any:
        """The schema for LangChain's `ls_structured_output_format`, in a form that core can convert."""
        if is_class(self.given) and (issubclass(self.given, BaseModel) or _is_v1_model(self.given)):
            return self.given
        if is_typeddict(self.given) and _typed_dict_function(self.given):
            return self.given
        return {"title": self.name, **self.schema}

    def as_json_schema(self, *, strict: bool | None = None) -> dict[str, Any]:
        """The `response_format` that names the schema."""
        inner = {"name": self.name, "schema": self.schema, **({} if strict is None else {"strict": strict})}
        return {"type": "json_schema", "json_schema": inner}

    def as_json_object(self) -> dict[str, Any]:
        """The `response_format` for some JSON object; the schema is in it if there is one."""
        return {"type": "json_object", **({} if self is ANY_OBJECT else {"schema": self.schema})}

    def as_tool(self) -> dict[str, Any]:
        """A tool whose arguments are the answer.

        Raises:
            ConfigurationError: The answer is no object, and arguments are.
        """
        if self.schema.get("type", "object") != "object":
            raise ConfigurationError(
                f"the arguments of a tool are an object, and {self.name!r} is of type {self.schema['type']!r}",
                hint='Use method="json_schema".',
            )
        description = self.schema.get("description", "")
        function = {"name": self.name, "description": description, "parameters": _without_names(self.schema)}
        return {"type": "function", "function": function}


ANY_OBJECT = AnswerForm(None, _DEFAULT_NAME, {"type": "object"}, is_plain=True)


def to_answer_form(schema: Any) -> AnswerForm:
    """The form that a schema describes.

    Args:
        schema: A pydantic class (v1 or v2), a typed dict, a dataclass or any other type that pydantic knows, such as
            `list[Person]` or `Cat | Dog`; or a dict: a JSON Schema, a whole `response_format`, a tool of OpenAI or Anthropic.

    Raises:
        ConfigurationError: It is none of these.
    """
    if isinstance(schema, Mapping):
        return _of_mapping(schema)
    if is_typeddict(schema) and (function := _typed_dict_function(schema)):
        return AnswerForm(schema, function["name"], _described(function), is_plain=True)
    if isinstance(schema, BaseTool) or is_function(schema):
        function = {**convert_to_openai_tool(schema)["function"], **_parameters_with_references(schema)}
        return AnswerForm(schema, function["name"], _described(function), is_plain=True)
    if _is_v1_model(schema):
        function = {**convert_to_openai_tool(schema)["function"], **_parameters_with_references(schema)}
        return AnswerForm(schema, function["name"], _described(function))
    try:
        if schema is BaseModel:
            raise TypeError("it is the class of all pydantic classes and has no fields")
        made = _rooted(_adapter(schema).json_schema(schema_generator=_Untitled))
    except (PydanticUserError, TypeError) as error:
        raise ConfigurationError(
            f"no schema can be made of {schema!r}: {error}",
            hint="Give a pydantic class, a typed dict, a dataclass or a JSON Schema.",
        ) from error
    name = made.get("title") or (schema.__name__ if inspect.isclass(schema) and not get_args(schema) else _DEFAULT_NAME)
    return AnswerForm(schema, name, made, is_plain=is_typeddict(schema))


def to_function_tool(tool: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """A tool as `{"type": "function", "function": {...}}`, the shape in which LangChain passes tools on.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        if is_class(tool):
            tool = to_answer_form(tool).as_tool()
        elif isinstance(tool, Mapping):
            tool = _own_tool(tool)
        shaped = convert_to_openai_tool(tool, strict=strict)
    except ValueError as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"cannot be used as a tool: {error}") from error
    if "function" not in shaped:
        raise _of_a_vendor(shaped.get("type"))
    shaped["function"].update(_parameters_with_references(tool))
    return shaped


def _own_tool(given: Mapping[str, Any]) -> dict[str, Any]:
    """A dict that describes a tool, in a form that core converts.

    Raises:
        ConfigurationError: It names a tool of a vendor's own.
    """
    kind = given.get("type")
    if kind == "function" and "function" not in given:  # as in OpenAI's Responses API
        return {"description": "", **{key: value for key, value in given.items() if key != "type"}}
    # What a vendor runs has a type of its own, a name and settings; core would take it for a function without arguments.
    is_ours = kind in (None, "function") or any(key in given for key in _PARAMETER_KEYS)
    if not is_ours and "name" in given:
        raise _of_a_vendor(kind)
    return dict(given)


def _of_a_vendor(kind: Any) -> ConfigurationError:
    return ConfigurationError(
        f"a tool of type {kind!r} is a vendor's own, known to its models alone",
        hint="Pass a function, a tool, a pydantic class or a JSON schema.",
    )


def is_function(value: Any) -> bool:
    """Whether it is a function or method, not a class or an object that can be called."""
    return inspect.isfunction(value) or inspect.ismethod(value)


def _parameters_with_references(tool: Any) -> dict[str, Any]:
    """`{"parameters": ...}` with the references as they are; {} where there are none and core's own form is the same.

    Core puts in place of a reference what it refers to, and `{}`, which allows anything, for one inside itself.
    """
    model: Any = tool
    if isinstance(tool, BaseTool):
        model = tool.tool_call_schema
    elif is_function(tool):
        model = create_schema_from_function(
            tool.__name__, tool, filter_args=(), parse_docstring=True, include_injected=False
        )
    elif isinstance(tool, Mapping):
        return {}
    if isinstance(model, Mapping):
        schema = model
    elif _is_v1_model(model):
        schema = model.schema()
    else:
        schema = TypeAdapter(model).json_schema(schema_generator=_Untitled)
    return {"parameters": _without_names(_rooted(schema))} if "$defs" in schema or "definitions" in schema else {}


def _rooted(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with what its root refers to in the root: classes that contain themselves are written the other way."""
    reference = str(schema.get("$ref", ""))
    for keyword in ("$defs", "definitions"):
        name = reference.removeprefix(f"#/{keyword}/")
        if name in schema.get(keyword, {}):
            return {**schema[keyword][name], keyword: schema[keyword]}
    return schema


def _without_names(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


class _Untitled(GenerateJsonSchema):
    """Without the titles that repeat each field's name: the model reads them, and each costs tokens."""

    @override
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@functools.lru_cache(maxsize=256)
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def is_class(value: Any) -> TypeGuard[type[Any]]:
    """Whether `value` is a class; on Python 3.10 `list[int]` is an instance of `type` and yet none."""
    return isinstance(value, type) and get_origin(value) is None


def _is_v1_model(schema: Any) -> bool:
    return is_class(schema) and issubclass(schema, pydantic_v1.BaseModel)


def _typed_dict_function(schema: Any) -> dict[str, Any] | None:
    # Core reads `Annotated[str, ..., "what it is"]`, which pydantic does not; but core knows neither `NotRequired`
    # nor typed dicts that contain themselves.
    try:
        function: dict[str, Any] = convert_to_openai_tool(schema)["function"]
    except (RecursionError, TypeError, RuntimeError):
        return None
    return function


def _of_mapping(given: Mapping[str, Any]) -> AnswerForm:
    kind = given.get("type")
    inner = given.get(kind) if kind in ("function", "json_schema") else given.get("toolSpec")
    named = inner if isinstance(inner, Mapping) else given
    schema: Any = next((named[key] for key in _PARAMETER_KEYS if key in named), None)
    if "toolSpec" in given:
        schema = named["inputSchema"]["json"]
    elif schema is None and kind in ("function", "json_object"):
        schema = {"type": "object"}
    elif schema is None and kind != "json_schema":
        schema = given
    if not isinstance(schema, Mapping):
        raise ConfigurationError(
            f"no schema is in the dict with the keys {', '.join(map(repr, given))}",
            hint='Give a JSON Schema, or {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}.',
        )
    name = str(named.get("name") or schema.get("title") or _DEFAULT_NAME)
    return AnswerForm(given, name, _described({**named, "parameters": schema}), is_plain=True)


def _described(function: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a function's arguments, with the function's description."""
    schema: Mapping[str, Any] = function.get("parameters") or {"type": "object", "properties": {}}
    description = function.get("description")
    return {"description": description, **schema} if description and "description" not in schema else schema
