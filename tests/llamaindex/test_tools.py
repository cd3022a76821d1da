"""Tools: calls that must happen do, in one form, whole and streamed, whichever model and template is behind."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, TextBlock, ToolCallBlock
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.tools import FunctionTool, ToolMetadata
from pydantic import BaseModel, Field

from llamaindex.test_answers import tool_call_deltas
from llamaindex_localllama import LocalLlama
from localllama import BadRequestError, ConfigurationError
from support.scripted_server import ScriptedServer


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def shout(text: str) -> str:
    """Say it loud."""
    return text.upper()


def fail(reason: str) -> str:
    """Always fails."""
    raise RuntimeError(reason)


ADD, SHOUT, FAIL = (FunctionTool.from_defaults(function) for function in (add, shout, fail))

Ask = Callable[..., ChatResponse]
"""Makes one call with tools and returns its last response."""


async def _last(stream: Any) -> ChatResponse:
    last: ChatResponse | None = None
    async for response in await stream:
        last = response
    assert last is not None
    return last


ASKS: dict[str, Ask] = {
    "chat": lambda llm, *a, **k: llm.chat_with_tools(*a, **k),
    "achat": lambda llm, *a, **k: asyncio.run(llm.achat_with_tools(*a, **k)),
    "stream_chat": lambda llm, *a, **k: list(llm.stream_chat_with_tools(*a, **k))[-1],
    "astream_chat": lambda llm, *a, **k: asyncio.run(_last(llm.astream_chat_with_tools(*a, **k))),
}
each_way = pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)


@pytest.fixture
def llm(micro_model: Path) -> Iterator[LocalLlama]:
    with LocalLlama(model=str(micro_model), n_ctx=4096, n_threads=1, max_tokens=1024, seed=1) as llm:
        yield llm


def arguments_of_calls(llm: LocalLlama) -> list[tuple[list[ChatMessage], dict[str, Any]]]:
    """A list that fills with what the calls to come are made with: the micro model would call a tool unasked too."""
    heard: list[tuple[list[ChatMessage], dict[str, Any]]] = []
    make_call = llm._call

    def listen(messages: Any, arguments: Any) -> Any:
        heard.append((list(messages), dict(arguments)))
        return make_call(messages, arguments)

    object.__setattr__(llm, "_call", listen)
    return heard


def assert_last_response_holds_all(response: ChatResponse) -> None:
    calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    assert all(call.tool_call_id for call in calls)
    assert len({call.tool_call_id for call in calls}) == len(calls)
    assert response.message.additional_kwargs["tool_calls"] == [
        {
            "id": call.tool_call_id,
            "type": "function",
            "function": {"name": call.tool_name, "arguments": call.tool_kwargs},
        }
        for call in calls
    ]
    assert response.message.content is not None
    assert response.raw is not None
    assert response.raw["finish_reason"] == "tool_calls"
    assert response.raw["usage"]["completion_tokens"] > 0


class TestChoice:
    @each_way
    def test_a_required_call_is_a_call(self, llm: LocalLlama, ask: Ask) -> None:
        response = ask(llm, [ADD, SHOUT], "Hello.", tool_required=True)
        assert_last_response_holds_all(response)
        (call,) = llm.get_tool_calls_from_response(response)
        assert call.tool_name in {"add", "shout"}
        tool = {"add": ADD, "shout": SHOUT}[call.tool_name]
        assert tool.metadata.fn_schema is not None
        tool.metadata.fn_schema.model_validate(call.tool_kwargs)

    @each_way
    @pytest.mark.parametrize(
        "choice", ["shout", {"type": "function", "function": {"name": "shout"}}, {"type": "tool", "name": "shout"}]
    )
    def test_a_named_call_is_of_that_tool(self, llm: LocalLlama, ask: Ask, choice: Any) -> None:
        response = ask(llm, [ADD, SHOUT, FAIL], "Hello.", tool_choice=choice)
        assert [call.tool_name for call in llm.get_tool_calls_from_response(response)] == ["shout"]

    @each_way
    def test_none_allowed(self, llm: LocalLlama, ask: Ask) -> None:
        response = ask(llm, [ADD], "Hello.", tool_choice="none", max_tokens=8)
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        assert response.message.content
        with pytest.raises(ValueError, match="Expected at least one tool call"):
            llm.get_tool_calls_from_response(response)

    @each_way
    def test_no_tools_is_a_plain_chat(self, scripted_llm: LocalLlama, script: ScriptedServer, ask: Ask) -> None:
        assert ask(scripted_llm, [], "Hello.", tool_choice=None, tool_required=True).message.content == "Hello there"
        assert "tools" not in script.requests[0]

    def test_choices_that_mean_nothing_are_refused(self, llm: LocalLlama) -> None:
        for choice in ("subtract", {"name": "subtract"}, {"type": "function"}, 1):
            with pytest.raises(ConfigurationError, match="tool_choice"):
                llm.chat_with_tools([ADD], "Hello.", tool_choice=choice)

    @each_way
    def test_a_name_with_letters_that_openai_forbids(self, llm: LocalLlama, ask: Ask) -> None:
        tool = FunctionTool(add, ToolMetadata("Adds.", name='sum of "two" [ü]', fn_schema=ADD.metadata.fn_schema))
        response = ask(llm, [tool, SHOUT], "Hello.", tool_choice=tool.metadata.name)
        assert [call.tool_name for call in llm.get_tool_calls_from_response(response)] == [tool.metadata.name]
        assert not llm.predict_and_call([tool], "Hello.").sources[0].is_error

    def test_nothing_of_the_callers_is_changed(self, scripted_llm: LocalLlama) -> None:
        history = [ChatMessage("Hi."), ChatMessage("Hello.", role="assistant")]
        before = [message.model_copy(deep=True) for message in history]
        tools = [ADD]
        list(scripted_llm.stream_chat_with_tools(tools, "Add.", chat_history=history))
        scripted_llm.chat_with_tools(tools, "Add.", chat_history=history)
        assert history == before
        assert tools == [ADD]


class TestSeveralCalls:
    CALLS = tool_call_deltas(("one", "add", ['{"a": 1,', ' "b": 2}']), ("two", "add", ['{"a": 1, "b": 2}']))

    @each_way
    def test_equal_calls_are_two_calls(self, scripted_llm: LocalLlama, script: ScriptedServer, ask: Ask) -> None:
        script.deltas, script.finish_reason = self.CALLS, "tool_calls"
        response = ask(scripted_llm, [ADD], "Add twice.", allow_parallel_tool_calls=True)
        assert_last_response_holds_all(response)
        calls = scripted_llm.get_tool_calls_from_response(response)
        assert [(call.tool_id, call.tool_kwargs) for call in calls] == [(i, {"a": 1, "b": 2}) for i in ("one", "two")]

    @pytest.mark.parametrize("name", ["chat", "achat"])
    def test_one_is_kept_where_one_is_allowed(
        self, scripted_llm: LocalLlama, script: ScriptedServer, name: str
    ) -> None:
        script.deltas, script.finish_reason = self.CALLS, "tool_calls"
        response = ASKS[name](scripted_llm, [ADD], "Add twice.")
        assert [call.tool_id for call in scripted_llm.get_tool_calls_from_response(response)] == ["one"]
        assert len(response.message.additional_kwargs["tool_calls"]) == 1

    @each_way
    def test_required_calls_may_be_several(self, llm: LocalLlama, ask: Ask) -> None:
        response = ask(llm, [ADD, SHOUT], "Hello.", tool_required=True, allow_parallel_tool_calls=True)
        assert_last_response_holds_all(response)
        assert llm.get_tool_calls_from_response(response)


class TestStreams:
    def test_every_chunk_can_be_read(self, llm: LocalLlama) -> None:
        seen: list[dict[str, Any]] = []
        ids = set()
        for response in llm.stream_chat_with_tools([SHOUT], "Hello.", tool_required=True):
            for call in llm.get_tool_calls_from_response(response, error_on_no_tool_call=False):
                assert call.tool_name == "shout"
                ids.add(call.tool_id)
                seen.append(call.tool_kwargs)
        assert len(ids) == 1
        texts = [kwargs["text"] for kwargs in seen if "text" in kwargs]
        assert texts == sorted(texts, key=len)
        assert len(set(texts)) > 3, "the arguments come as they are written"

    @pytest.mark.parametrize(
        "arguments", ["", "{", '{"a', '{"a": ', '{"a": 1', '{"a": 1,', '{"b": "\\u00', "[1", "{]", "x"]
    )
    def test_arguments_cut_anywhere_are_no_error(self, scripted_llm: LocalLlama, arguments: str) -> None:
        block = ToolCallBlock(tool_call_id="one", tool_name="add", tool_kwargs=arguments)
        response = ChatResponse(message=ChatMessage(role="assistant", blocks=[block]))
        (call,) = scripted_llm.get_tool_calls_from_response(response)
        assert call.tool_id == "one"
        assert set(call.tool_kwargs) <= {"a", "b"}

    def test_text_before_a_call_is_streamed(self, scripted_llm: LocalLlama, script: ScriptedServer) -> None:
        script.deltas = [{"content": "Let me "}, {"content": "add."}, *TestSeveralCalls.CALLS[:3]]
        script.finish_reason = "tool_calls"
        responses = list(scripted_llm.stream_chat_with_tools([ADD], "Add."))
        assert "".join(response.delta or "" for response in responses) == "Let me add."
        kinds = [type(block) for block in responses[-1].message.blocks]
        assert kinds == [TextBlock, ToolCallBlock]


class TestPredictAndCall:
    @pytest.mark.parametrize("is_async", [False, True])
    def test_the_call_is_made(self, llm: LocalLlama, is_async: bool) -> None:
        heard = arguments_of_calls(llm)
        answer = (
            asyncio.run(llm.apredict_and_call([ADD], "Hello.")) if is_async else llm.predict_and_call([ADD], "Hello.")
        )
        (output,) = answer.sources
        assert not output.is_error
        assert output.raw_output == sum(output.raw_input["kwargs"].values())
        assert answer.response == str(output.raw_output)
        assert [arguments["tool_choice"] for _, arguments in heard] == ["required"]

    def test_a_tool_that_fails_is_flagged_or_raised(self, llm: LocalLlama) -> None:
        assert llm.predict_and_call([FAIL], "Hello.").sources[0].is_error
        with pytest.raises(ValueError, match="Encountered error"):
            llm.predict_and_call([FAIL], "Hello.", error_on_tool_error=True)

    def test_words_are_allowed_where_no_call_is_an_error(
        self, scripted_llm: LocalLlama, script: ScriptedServer
    ) -> None:
        answer = scripted_llm.predict_and_call([ADD], "Hello.", error_on_no_tool_call=False)
        assert answer.response == "Hello there"
        assert "response_format" not in script.requests[0], "the model was free"


class Colour(BaseModel):
    """A colour."""

    name: str = Field(max_length=8)
    red: int = Field(ge=0, le=255)


class TestPrograms:
    """`FunctionCallingProgram`, which selectors and synthesizers use, in all its ways."""

    @pytest.mark.parametrize("way", ["call", "acall", "stream", "astream"])
    @pytest.mark.parametrize("is_parallel", [False, True])
    def test_it_makes_objects_and_keeps_the_system_prompt(self, llm: LocalLlama, way: str, is_parallel: bool) -> None:
        llm.system_prompt = "Be a painter."
        heard = arguments_of_calls(llm)
        program = FunctionCallingProgram.from_defaults(
            Colour, prompt_template_str="Name {what}.", llm=llm, allow_parallel_tool_calls=is_parallel
        )

        async def stream() -> list[Any]:
            return [output async for output in await program.astream_call(what="red")]

        output = {
            "call": lambda: program(what="red"),
            "acall": lambda: asyncio.run(program.acall(what="red")),
            "stream": lambda: list(program.stream_call(what="red"))[-1],
            "astream": lambda: asyncio.run(stream())[-1],
        }[way]()
        for colour in output if isinstance(output, list) else [output]:
            assert type(colour) is Colour
        ((messages, arguments),) = heard
        assert [message.content for message in messages] == ["Be a painter.", "Name red."]
        assert arguments["tool_choice"] == "required", "words would be no object"


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class TestResults:
    def test_results_go_back_beside_their_calls(self, scripted_llm: LocalLlama, script: ScriptedServer) -> None:
        script.deltas, script.finish_reason = TestSeveralCalls.CALLS, "tool_calls"
        first = scripted_llm.chat_with_tools([ADD], "Add twice.", allow_parallel_tool_calls=True)
        results = [
            ChatMessage(role="tool", content=text, additional_kwargs={"tool_call_id": call.tool_id})
            for call, text in zip(
                scripted_llm.get_tool_calls_from_response(first), ("3", "Encountered error: x"), strict=True
            )
        ]
        scripted_llm.chat_with_tools([ADD], chat_history=[ChatMessage("Add twice."), first.message, *results])
        sent = script.requests[-1]["messages"]
        assert [call["id"] for call in sent[1]["tool_calls"]] == ["one", "two"]
        assert [(m["tool_call_id"], m["content"]) for m in sent[2:]] == [("one", "3"), ("two", "Encountered error: x")]

    def test_a_result_with_an_image_is_refused_by_name_where_the_model_sees_none(self, llm: LocalLlama) -> None:
        history = [
            ChatMessage("Draw."),
            ChatMessage(
                role="assistant",
                blocks=[ToolCallBlock(tool_call_id="one", tool_name="shout", tool_kwargs={"text": "x"})],
            ),
            ChatMessage(
                role="tool",
                blocks=[TextBlock(text="Here."), ImageBlock(image=PIXEL, image_mimetype="image/png")],
                additional_kwargs={"tool_call_id": "one"},
            ),
        ]
        with pytest.raises(BadRequestError, match="image input is not supported"):
            llm.chat_with_tools([SHOUT], chat_history=history)
