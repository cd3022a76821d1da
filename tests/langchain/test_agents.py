"""Agents of LangChain and LangGraph on a real server: two tools, several turns, streamed, remembered.

The micro model's words are random, but what it may write is not: each step is a call of a tool, or the answer. Middleware
takes the tools away after two results, as programs do that fear for their model's end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel, Field

from langchain_localllama import ChatLocalLlama
from localllama import ChatChunk, ModelInfo, ToolCallDelta, Usage
from support.scripted_server import scripted_server


class Report(BaseModel):
    """The weather in a city."""

    city: str = Field(min_length=1, max_length=12)
    weather: Literal["sunny", "rainy", "snowy"]


@tool
def weather(city: Literal["rome", "paris"]) -> str:
    """The weather in a city."""
    return f"It is rainy in {city}."


@tool
def clock(zone: Literal["utc", "cet"]) -> str:
    """The time of day in a zone."""
    return f"It is 12:30 in {zone}."


@wrap_model_call
def two_results_are_enough(request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
    last_question = max(n for n, message in enumerate(request.messages) if isinstance(message, HumanMessage))
    results = [message for message in request.messages[last_question:] if isinstance(message, ToolMessage)]
    return handler(request.override(tools=[]) if len(results) == 2 else request)


@pytest.fixture(scope="module")
def llm(micro_model: Path) -> Iterator[ChatLocalLlama]:
    with ChatLocalLlama(model=str(micro_model), temperature=0, max_tokens=200, n_threads=1) as llm:
        llm.start()
        yield llm


@pytest.fixture
def versioned(llm: ChatLocalLlama, request: pytest.FixtureRequest) -> Iterator[ChatLocalLlama]:
    """The model with content in the form of v0 or v1."""
    # A graph is a ring of references: what it holds is closed here, not left to the garbage collector.
    with llm.model_copy(update={"output_version": request.param}) as copied:
        yield copied


def kinds(messages: list[Any]) -> list[str]:
    return ["call" if getattr(message, "tool_calls", ()) else message.type for message in messages]


TURN = ["human", "call", "tool", "call", "tool", "ai"]


@pytest.mark.parametrize("versioned", ["v0", "v1"], indirect=True)
@pytest.mark.parametrize("response_format", [None, Report], ids=["words", "object"])
def test_an_agent_calls_tools_and_answers_turn_after_turn(versioned: ChatLocalLlama, response_format: Any) -> None:
    agent = create_agent(
        versioned,
        [weather, clock],
        response_format=response_format,
        middleware=[two_results_are_enough],
        checkpointer=InMemorySaver(),
    )
    thread = {"configurable": {"thread_id": "1"}}
    for turn in (1, 2):
        question = {"messages": [HumanMessage("What is the weather?")]}
        state: dict[str, Any] = {}
        pieces: list[AIMessageChunk] = []
        for mode, part in agent.stream(question, thread, stream_mode=["messages", "values"]):
            if mode == "values":
                state = part
            elif isinstance(part[0], AIMessageChunk):
                pieces.append(part[0])
        assert kinds(state["messages"]) == TURN * turn
        ids = [call["id"] for message in state["messages"] if message.type == "ai" for call in message.tool_calls]
        assert ids == [message.tool_call_id for message in state["messages"] if message.type == "tool"]
        assert not [count for count in Counter(ids).values() if count > 1]
        streamed = [call["id"] for piece in pieces for call in piece.tool_call_chunks if call["id"]]
        assert streamed == ids[-2:], "each call is streamed, with the id that it keeps"
        assert "".join(piece.text for piece in pieces) == state["messages"][-1].text
        if response_format:
            assert isinstance(state["structured_response"], Report)
        else:
            assert state["messages"][-1].text


def test_an_agent_may_give_the_object_while_it_still_has_tools(llm: ChatLocalLlama) -> None:
    # The branches of a step begin with "name" and "result".
    with llm.model_copy(update={"logit_bias": {"r": 50.0}}) as eager:
        agent = create_agent(eager, [weather, clock], response_format=ProviderStrategy(Report))
        state = agent.invoke({"messages": "What is the weather?"})
    assert kinds(state["messages"]) == ["human", "ai"]
    assert isinstance(state["structured_response"], Report)


@pytest.mark.parametrize("size", [1, 1000], ids=["letters", "whole"])
def test_a_call_that_the_server_missed_is_streamed_as_one_call(size: int) -> None:
    call = '<tool_call>{"name": "weather", "arguments": {"city": "rome"}}</tool_call>'
    with scripted_server() as server, ChatLocalLlama(base_url=server.url) as llm:
        server.answers = [
            [{"content": call[start : start + size]} for start in range(0, len(call), size)],
            [{"content": "Rain."}],
        ]
        agent = create_agent(llm, [weather], checkpointer=InMemorySaver())
        thread: Any = {"configurable": {"thread_id": "1"}}
        pieces = [part for part, _ in agent.stream({"messages": "hi"}, thread, stream_mode="messages")]
        messages = agent.get_state(thread).values["messages"]
    assert kinds(messages) == ["human", "call", "tool", "ai"]
    (made,) = messages[1].tool_calls
    assert (made["name"], made["args"]) == ("weather", {"city": "rome"})
    assert messages[2].tool_call_id == made["id"]
    assert [chunk["id"] for piece in pieces if isinstance(piece, AIMessageChunk) for chunk in piece.tool_call_chunks] == [made["id"]]  # fmt: skip


def test_the_object_as_arguments_of_a_tool(llm: ChatLocalLlama) -> None:
    agent = create_agent(llm, [], response_format=ToolStrategy(Report))
    assert isinstance(agent.invoke({"messages": "What is the weather?"})["structured_response"], Report)


def test_agents_take_the_way_that_needs_no_tool_for_the_object(script) -> None:
    script.info = ModelInfo("M", "/m.gguf", 2048)
    script.chunks = [
        ChatChunk(text='{"city": "rome", "weather": "rainy"}'),
        ChatChunk(finish_reason="stop", usage=Usage(1, 1, 2)),
    ]
    agent = create_agent(ChatLocalLlama(model="m.gguf"), [weather], response_format=Report)
    assert agent.invoke({"messages": "hi"})["structured_response"] == Report(city="rome", weather="rainy")
    request = script.last.request
    assert [spec.name for spec in request.tools] == ["weather"]
    assert request.response_format["json_schema"]["name"] == "Report"
    assert request.tool_choice is None


def test_a_loop_of_langgraph(llm: ChatLocalLlama) -> None:
    bound = llm.bind_tools([weather, clock], tool_choice="any")

    def ask(state: MessagesState) -> dict[str, Any]:
        has_result = any(isinstance(message, ToolMessage) for message in state["messages"])
        return {"messages": [(llm if has_result else bound).invoke(state["messages"])]}

    def after(state: MessagesState) -> str:
        return "tools" if state["messages"][-1].tool_calls else "__end__"

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([weather, clock]))
    graph.add_edge("__start__", "ask")
    graph.add_conditional_edges("ask", after)
    graph.add_edge("tools", "ask")
    state = graph.compile().invoke({"messages": [HumanMessage("What is the weather?")]})
    assert kinds(state["messages"]) == ["human", "call", "tool", "ai"]
    assert state["messages"][2].status == "success"


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_a_native_call_that_is_no_json_is_invalid_and_not_lost(script, version: str) -> None:
    delta = (ToolCallDelta(0, "c1", "weather"), ToolCallDelta(0, arguments='{"city": '))
    script.chunks = [
        ChatChunk(text="I look."),
        *(ChatChunk(tool_calls=(one,)) for one in delta),
        ChatChunk(finish_reason="tool_calls", usage=Usage(1, 1, 2)),
    ]
    bound = ChatLocalLlama(model="m.gguf", output_version=version).bind_tools([weather])
    answer = bound.invoke("hi")
    assert (answer.tool_calls, answer.text) == ([], "I look.")
    assert [(call["id"], call["name"], call["args"]) for call in answer.invalid_tool_calls] == [
        ("c1", "weather", '{"city": ')
    ]


def test_tools_are_counted_as_they_are_sent(llm: ChatLocalLlama) -> None:
    messages = [HumanMessage("What is the weather?")]
    counted = llm.get_num_tokens_from_messages(messages, tools=[weather, clock])
    answer = llm.bind_tools([weather, clock]).invoke(messages)
    assert isinstance(answer, AIMessage)
    assert counted == answer.usage_metadata["input_tokens"]
    assert counted > llm.get_num_tokens_from_messages(messages) + len(weather.description + clock.description)
