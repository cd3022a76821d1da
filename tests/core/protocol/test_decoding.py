"""How each kind of request is decoded, and envelopes whose tools bring definitions of their own."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from localllama import ChatRequest, ConfigurationError, Message, ServerInfo, TemplateCapabilities, TextPart, ToolSpec
from localllama._protocol.decoding import DecodingPlan, plan_decoding
from localllama._protocol.prepared import PreparedSchemas
from localllama._protocol.schemas import GenerationBounds

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
PING = ToolSpec("ping")
OBJECT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": OBJECT}}


def server(*, has_tools: bool, template: str = "") -> ServerInfo:
    caps = TemplateCapabilities(supports_tools=has_tools, supports_tool_calls=has_tools)
    return ServerInfo(n_ctx=4096, template=caps, chat_template=template)


def plan(request: ChatRequest, info: ServerInfo, memo: PreparedSchemas | None = None) -> DecodingPlan:
    return plan_decoding(request, info, (memo or PreparedSchemas()).form(GenerationBounds()))


def ask(**fields: Any) -> ChatRequest:
    return ChatRequest((Message("user", "Hi"),), **fields)


def schema_of(made: DecodingPlan) -> dict[str, Any]:
    assert made.request.response_format is not None
    found: dict[str, Any] = made.request.response_format["json_schema"]["schema"]
    return found


# what is asked; is there an envelope; are the tools sent; does the system prompt show them: without and with a tool template
TABLE: list[tuple[str, dict[str, Any], tuple[bool, bool, bool], tuple[bool, bool, bool]]] = [
    ("words", {}, (False, False, False), (False, False, False)),
    ("auto", {"tools": (ADD,)}, (True, False, True), (False, True, False)),
    ("none", {"tools": (ADD,), "tool_choice": "none"}, (False, False, False), (False, False, False)),
    ("required", {"tools": (ADD,), "tool_choice": "required"}, (True, False, True), (True, True, False)),
    ("named", {"tools": (ADD, PING), "tool_choice": "ping"}, (True, False, True), (True, True, False)),
    ("object", {"response_format": FORMAT}, (False, False, False), (False, False, False)),
    ("both", {"tools": (ADD,), "response_format": FORMAT}, (True, False, True), (True, True, False)),
    ("any object", {"tools": (ADD,), "response_format": {"type": "json_object"}}, (True, False, True), (True, True, False)),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "without", "with_tools"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
@pytest.mark.parametrize("has_tools", [False, True])
def test_the_table(fields: dict[str, Any], without: Any, with_tools: Any, has_tools: bool) -> None:
    made = plan(ask(**fields), server(has_tools=has_tools))
    system = made.request.messages[0].text if made.request.messages[0].role == "system" else ""
    seen = (made.envelope is not None, bool(made.request.tools), "# Tools" in system)
    assert seen == (with_tools if has_tools else without)
    assert made.request.tool_choice is None or made.envelope is None


@pytest.mark.parametrize("fields", [{"tool_choice": "add"}, {"tools": (PING,), "tool_choice": "add"}])
def test_a_choice_of_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="add"):
        plan(ask(**fields), server(has_tools=True))


def test_two_tools_of_one_name_are_refused_unless_they_are_one() -> None:
    other = ToolSpec("add", "Adds texts.", {"type": "object", "properties": {"b": {"type": "string"}}})
    for choice in (None, "auto", "required", "add"):
        with pytest.raises(ConfigurationError, match="two different tools are named 'add'"):
            plan(ask(tools=(ADD, PING, other), tool_choice=choice), server(has_tools=True))
        assert plan(ask(tools=(ADD, PING, ADD), tool_choice=choice), server(has_tools=True)).tools in (
            (ADD, PING),
            (ADD,),
        )


def test_what_the_envelope_lets_through() -> None:
    both = ask(tools=(ADD, PING), response_format=FORMAT, parallel_tool_calls=True)
    schema = schema_of(plan(both, server(has_tools=False)))
    add, ping = {"name": "add", "arguments": {"a": 1}}, {"name": "ping", "arguments": {}}
    for right in (add, ping, [add, ping, add], {"result": {"x": 1}}):
        jsonschema.validate(right, schema)
    for wrong in (
        {"name": "ping", "arguments": {"a": 1}},
        {"name": "add", "arguments": {}},
        [],
        {"answer": "x"},
        {"result": {}},
        {"name": "ping", "arguments": {}, "result": {"x": 1}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.mark.parametrize("choice", ["required", "add"])
@pytest.mark.parametrize("has_tools", [False, True])
def test_where_a_call_must_happen_words_are_no_answer(choice: str, has_tools: bool) -> None:
    made = plan(ask(tools=(ADD,), tool_choice=choice), server(has_tools=has_tools))
    assert made.has_fixed_form
    jsonschema.validate({"name": "add", "arguments": {"a": 1}}, schema_of(made))
    for wrong in ({"answer": "No."}, {"result": {}}, "No."):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema_of(made))


def test_a_template_that_shows_tools_and_no_calls_has_its_calls_in_an_envelope() -> None:
    caps = TemplateCapabilities(supports_tools=True, supports_tool_calls=False)
    made = plan(ask(tools=(ADD,)), ServerInfo(n_ctx=4096, template=caps))
    assert made.envelope is not None
    assert made.request.tools == (ADD,)


def test_the_model_is_told_the_schema_that_holds_it() -> None:
    made = plan(ask(response_format=FORMAT), server(has_tools=True))
    assert made.request.messages[0].role == "system"
    assert json.dumps(OBJECT["required"]) in made.request.messages[0].text


def test_arguments_are_called_parameters_in_the_llama_3_family() -> None:
    info = server(
        has_tools=True, template='{"name": function name, "parameters": dictionary of argument name and its value}'
    )
    jsonschema.validate(
        {"name": "ping", "parameters": {}}, schema_of(plan(ask(tools=(PING,), tool_choice="ping"), info))
    )


def test_definitions_of_equal_names_do_not_meet() -> None:
    def tool(name: str, inner: dict[str, Any]) -> ToolSpec:
        node = {
            "type": "object",
            "properties": {"v": inner, "next": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]}},
            "required": ["v", "next"],
        }
        return ToolSpec(
            name,
            "",
            {"$defs": {"N": node}, "type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"]},
        )

    tools = (tool("one", {"type": "integer"}), tool("two", {"type": "string"}))
    schema = schema_of(plan(ask(tools=tools, tool_choice="required"), server(has_tools=False)))
    for name, value, other in (("one", 1, "s"), ("two", "s", 1)):
        nested = {"v": value, "next": {"v": value, "next": None}}
        jsonschema.validate({"name": name, "arguments": {"n": nested}}, schema)
        nested["next"]["v"] = other  # type: ignore[index]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"name": name, "arguments": {"n": nested}}, schema)


def test_free_text_is_one_piece_of_grammar_for_all_tools() -> None:
    tools = tuple(
        ToolSpec(
            f"t{n}", "", {"type": "object", "properties": {"text": {"type": "string"}, str(n): {"type": "string"}}}
        )
        for n in range(30)
    )
    text = json.dumps(schema_of(plan(ask(tools=tools, tool_choice="required"), server(has_tools=False))))
    assert text.count('"pattern"') == 1


def test_a_compiled_envelope_is_used_again() -> None:
    memo = PreparedSchemas()
    request = ask(tools=(ADD, PING), tool_choice="required")
    first, second = (plan(request, server(has_tools=False), memo) for _ in range(2))
    assert schema_of(first)["anyOf"] is schema_of(second)["anyOf"]
    assert schema_of(plan(ask(tools=(ADD,), tool_choice="add"), server(has_tools=False), memo)) != schema_of(first)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"type": "json_schema"}, "has no schema"),
        ({"type": "json_schema", "json_schema": "text"}, "has no schema"),
        ({"type": "xml"}, "'xml' is not known"),
    ],
)
def test_a_response_format_that_asks_for_nothing_known_is_refused(form: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        plan(ask(response_format=form), server(has_tools=False))
    assert caught.value.hint


def test_a_schema_may_stand_where_any_server_of_the_kind_takes_it() -> None:
    forms: list[dict[str, Any]] = [
        FORMAT,
        {"type": "json_schema", "json_schema": OBJECT},
        {"type": "json_schema", "schema": OBJECT},
        {"type": "json_object", "schema": OBJECT},
    ]
    made = [plan(ask(response_format=form), server(has_tools=False)) for form in forms]
    assert [each.schema for each in made] == [OBJECT] * 4


def test_many_schemas_do_not_fill_the_memory_and_none_is_mistaken_for_another() -> None:
    memo = PreparedSchemas()
    for n in (*range(700), *range(700)):
        form = memo.form(GenerationBounds())
        assert form.schema({"const": n}) == {"$ref": "#/$defs/d1x", "$defs": {"d1x": {"enum": [n]}}}
    assert len(memo._schemas) < 700


def test_what_a_model_is_told_goes_behind_what_a_system_message_has() -> None:
    parts = Message("system", (TextPart("Be brief."),))
    request = ChatRequest((parts, Message("user", "Hi")), response_format=FORMAT)
    told = plan(request, server(has_tools=False)).request.messages
    assert [message.role for message in told] == ["system", "user"]
    assert told[0].text.startswith("Be brief.")
    assert "JSON" in told[0].text
