"""Agents, selectors, routers and synthesizers over `LocalLlama`: loops of tools live, words from a script where they matter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, Settings, SummaryIndex
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ToolCallResult
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.selectors import (
    LLMSingleSelector,
    PydanticMultiSelector,
    PydanticSingleSelector,
)
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata
from pydantic import BaseModel, Field

from llamaindex.test_answers import tool_call_deltas
from llamaindex_localllama import LocalLlama
from support.scripted_server import ScriptedServer


class Report(BaseModel):
    """A report."""

    text: str = Field(max_length=8)
    n_words: int = Field(ge=0, le=9)


@pytest.fixture(autouse=True)
def settings(scripted_llm: LocalLlama) -> None:
    """LlamaIndex's engines read its global settings even where they get an LLM."""
    Settings.llm, Settings.embed_model = scripted_llm, MockEmbedding(embed_dim=4)


@pytest.fixture
def llm(micro_model: Path) -> Iterator[LocalLlama]:
    with LocalLlama(model=str(micro_model), n_ctx=4096, n_threads=1, max_tokens=512, seed=1) as llm:
        Settings.llm = llm
        yield llm


class Conversation:
    """Two tools, of which each tells the script what the model says next."""

    def __init__(self, script: ScriptedServer) -> None:
        self.script = script
        self.heard: list[Any] = []
        self._say_calls()

    def _say_calls(self) -> None:
        self.script.finish_reason = "tool_calls"
        self.script.deltas = [
            {"reasoning_content": "I must add."},
            *tool_call_deltas(("one", "add", ['{"a": 1, ', '"b": 2}']), ("two", "add", ['{"a": 1, "b": 2}'])),
        ]

    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        self.heard.append((a, b))
        self.script.finish_reason = "stop"
        self.script.deltas = [{"content": "It is "}, {"content": str(a + b)}]
        return a + b

    def fail(self) -> int:
        """Fail."""
        raise RuntimeError("broken")


@pytest.fixture
def conversation(script: ScriptedServer) -> Conversation:
    return Conversation(script)


class TestFunctionAgent:
    @pytest.mark.parametrize("is_streaming", [True, False])
    def test_a_loop_with_equal_parallel_calls_and_several_turns(
        self, scripted_llm: LocalLlama, conversation: Conversation, is_streaming: bool
    ) -> None:
        agent = FunctionAgent(tools=[conversation.add], llm=scripted_llm, system_prompt="Add.", streaming=is_streaming)

        async def run() -> tuple[str, list[ToolCallResult], list[AgentStream], str]:
            memory = ChatMemoryBuffer.from_defaults(llm=scripted_llm)
            run = agent.run("1+2, twice?", memory=memory)
            events = [event async for event in run.stream_events()]
            first = str(await run)
            results = [event for event in events if isinstance(event, ToolCallResult)]
            streamed = [event for event in events if isinstance(event, AgentStream)]
            return first, results, streamed, str(await agent.run("And again?", memory=memory))

        first, results, streamed, second = asyncio.run(run())
        assert first == second == "It is 3"
        assert conversation.heard == [(1, 2), (1, 2)]
        assert sorted(result.tool_id for result in results) == ["one", "two"]
        if is_streaming:
            assert "".join(event.thinking_delta or "" for event in streamed) == "I must add."
            assert "".join(event.delta for event in streamed) == "It is 3"
            assert any(event.tool_calls for event in streamed)
        requests = conversation.script.requests
        sent = requests[1]["messages"]
        assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "tool"]
        assert sorted(message["tool_call_id"] for message in sent[3:]) == ["one", "two"]
        assert requests[2]["messages"][: len(sent)] == sent, "what was said before is sent as it was: the cache holds"
        assert all(request["tools"] == requests[0]["tools"] for request in requests)

    def test_a_tool_that_fails_is_told_to_the_model(self, scripted_llm: LocalLlama, conversation: Conversation) -> None:
        script = conversation.script
        script.deltas = tool_call_deltas(("one", "fail", ["{}"]), ("two", "add", ['{"a": 1, "b": 2}']))
        agent = FunctionAgent(tools=[conversation.fail, conversation.add], llm=scripted_llm)
        assert str(asyncio.run(_run(agent))) == "It is 3"
        contents = {m["tool_call_id"]: m["content"] for m in script.requests[1]["messages"] if m["role"] == "tool"}
        assert "broken" in contents["one"]
        assert contents["two"] == "3"

    def test_arguments_that_do_not_fit_are_for_the_tool_to_refuse(
        self, scripted_llm: LocalLlama, conversation: Conversation
    ) -> None:
        script = conversation.script
        script.deltas = tool_call_deltas(("one", "add", ['{"a": "x"}']), ("two", "add", ['{"a": 1, "b": 2}']))
        agent = FunctionAgent(tools=[conversation.add], llm=scripted_llm)
        assert str(asyncio.run(_run(agent))) == "It is 3"
        contents = {m["tool_call_id"]: m["content"] for m in script.requests[1]["messages"] if m["role"] == "tool"}
        assert "missing 1 required" in contents["one"]

    def test_a_named_first_call_on_a_model_without_tools(self, llm: LocalLlama) -> None:
        heard: list[Any] = []

        def add(a: int, b: int) -> int:
            """Add two numbers."""
            heard.append((a, b))
            return a + b

        direct = FunctionTool.from_defaults(add, return_direct=True)
        agent = FunctionAgent(tools=[direct], llm=llm, initial_tool_choice="add")
        output = asyncio.run(_run(agent))
        assert heard
        assert str(output) == str(sum(heard[0]))

    def test_an_output_class(self, llm: LocalLlama) -> None:
        output = asyncio.run(_run(FunctionAgent(llm=llm, output_cls=Report)))
        assert Report.model_validate(output.structured_response)

    def test_workflows_choose_it_and_hand_over(self, scripted_llm: LocalLlama, conversation: Conversation) -> None:
        assert isinstance(
            next(iter(AgentWorkflow.from_tools_or_functions([conversation.add], llm=scripted_llm).agents.values())),
            FunctionAgent,
        )
        script = conversation.script
        adder = FunctionAgent(name="adder", description="Adds.", tools=[conversation.add], llm=scripted_llm)
        greeter = FunctionAgent(name="greeter", description="Greets.", llm=scripted_llm, can_handoff_to=["adder"])
        workflow = AgentWorkflow(agents=[greeter, adder], root_agent="greeter")
        arguments = json.dumps({"to_agent": "adder", "reason": "numbers"})
        script.deltas = tool_call_deltas(("zero", "handoff", [arguments]))

        async def run() -> str:
            run = workflow.run("1+2?")
            async for event in run.stream_events():
                if isinstance(event, ToolCallResult) and event.tool_name == "handoff":
                    conversation._say_calls()
            return str(await run)

        assert asyncio.run(run()) == "It is 3"


async def _run(agent: Any) -> Any:
    return await agent.run("Go.")


CHOICES = [ToolMetadata(name="cats", description="About cats."), ToolMetadata(name="dogs", description="About dogs.")]


class EchoEngine(CustomQueryEngine):
    answer: str

    def custom_query(self, query_str: str) -> str:
        return self.answer


def engine_tools() -> list[QueryEngineTool]:
    return [
        QueryEngineTool.from_defaults(EchoEngine(answer=f"All about {m.name}."), name=m.name, description=m.description)
        for m in CHOICES
    ]


class TestQueryEngines:
    @pytest.mark.parametrize("kind", [PydanticSingleSelector, PydanticMultiSelector])
    def test_pydantic_selectors_get_objects(self, llm: LocalLlama, kind: Any) -> None:
        selector = kind.from_defaults(llm=llm)
        program = selector._selector_program
        output = program(num_choices=2, max_outputs=2, context_list="(1) cats (2) dogs", query_str="Meow?")
        assert type(output).__name__ in {"SingleSelection", "MultiSelection"}

    @pytest.mark.parametrize("kind", [PydanticSingleSelector, LLMSingleSelector])
    def test_a_router_goes_where_the_selector_says(
        self, scripted_llm: LocalLlama, script: ScriptedServer, kind: Any
    ) -> None:
        choice = {"index": 2, "reason": "barks"}
        is_program = kind is PydanticSingleSelector
        said = {"name": "SingleSelection", "arguments": choice} if is_program else {"choice": 2, "reason": "barks"}
        script.deltas = [{"content": json.dumps(said)}]
        router = RouterQueryEngine(
            selector=kind.from_defaults(llm=scripted_llm),
            query_engine_tools=engine_tools(),
            llm=scripted_llm,
            summarizer=get_response_synthesizer(llm=scripted_llm, response_mode=ResponseMode.NO_TEXT),
        )
        assert str(router.query("Woof?")) == "All about dogs."

    def test_sub_questions(self, scripted_llm: LocalLlama, script: ScriptedServer) -> None:
        from llama_index.core.question_gen import LLMQuestionGenerator

        items = {"items": [{"sub_question": "Meow?", "tool_name": "cats"}]}
        script.deltas = [{"content": f"```json\n{json.dumps(items)}\n```"}]
        engine = SubQuestionQueryEngine.from_defaults(
            engine_tools(),
            llm=scripted_llm,
            question_gen=LLMQuestionGenerator.from_defaults(llm=scripted_llm),
            response_synthesizer=get_response_synthesizer(llm=scripted_llm),
            use_async=False,
            verbose=False,
        )
        assert "Meow?" in str(engine.query("What of cats?"))

    @pytest.mark.parametrize("is_streaming", [False, True])
    def test_refine_with_structured_filtering(self, llm: LocalLlama, is_streaming: bool) -> None:
        synthesizer = get_response_synthesizer(
            llm=llm,
            response_mode=ResponseMode.REFINE,
            structured_answer_filtering=True,
            streaming=is_streaming,
        )
        index = SummaryIndex.from_documents([Document(text="Oslo is in Norway."), Document(text="Paris is in France.")])
        response = index.as_query_engine(response_synthesizer=synthesizer).query("Where is Oslo?")
        text = "".join(response.response_gen) if is_streaming else str(response)
        assert isinstance(text, str)

    @pytest.mark.parametrize("mode", [ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE])
    def test_an_engine_with_an_output_class(self, llm: LocalLlama, mode: ResponseMode) -> None:
        index = SummaryIndex.from_documents([Document(text="Oslo is in Norway.")])
        engine = index.as_query_engine(output_cls=Report, response_mode=mode)
        assert type(engine.query("Where is Oslo?").response) is Report

    def test_an_engine_over_a_structured_llm(self, llm: LocalLlama) -> None:
        index = SummaryIndex.from_documents([Document(text="Oslo is in Norway.")])
        engine = index.as_query_engine(llm=llm.as_structured_llm(Report))
        assert Report.model_validate_json(str(engine.query("Where is Oslo?")))
