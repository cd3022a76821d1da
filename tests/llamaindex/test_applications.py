"""`Settings.llm` in what people build: query engines, synthesizers, chat engines, agents, live on a small real model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Document, PromptTemplate, Settings, SummaryIndex, VectorStoreIndex
from llama_index.core.agent.workflow import ReActAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.chat_engine import CondensePlusContextChatEngine, SimpleChatEngine
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool

from llamaindex_localllama import LocalLlama
from support.scripted_server import ScriptedServer

FACTS = [
    "Oslo is the capital of Norway.",
    "Paris is the capital of France. It lies on the Seine.",
    "The llama is a South American animal with soft wool.",
]


@pytest.fixture
def llm(smollm2_model: Path) -> Iterator[LocalLlama]:
    Settings.embed_model = MockEmbedding(embed_dim=4)
    with LocalLlama(model=str(smollm2_model), n_ctx=2048, max_tokens=16, temperature=0, seed=1) as llm:
        Settings.llm = llm
        yield llm


@pytest.mark.smollm2
class TestOnSmolLM2:
    def test_a_query_engine_answers_from_its_documents(self, llm: LocalLlama) -> None:
        index = VectorStoreIndex.from_documents([Document(text=FACTS[1])])
        assert "Paris" in str(index.as_query_engine().query("What is the capital of France?"))
        streamed = index.as_query_engine(streaming=True).query("What is the capital of France?")
        assert "Paris" in "".join(streamed.response_gen)

    @pytest.mark.parametrize("mode", ["tree_summarize", "refine", "accumulate"])
    def test_every_synthesizer(self, llm: LocalLlama, mode: str) -> None:
        index = SummaryIndex.from_documents([Document(text=fact) for fact in FACTS])
        counter = TokenCountingHandler()
        Settings.callback_manager = CallbackManager([counter])
        assert str(index.as_query_engine(response_mode=mode).query("What is said here?"))
        assert counter.total_llm_token_count > 0

    def test_many_async_questions_at_once(self, llm: LocalLlama) -> None:
        index = SummaryIndex.from_documents([Document(text=fact) for fact in FACTS])
        engine = index.as_query_engine(response_mode="tree_summarize", use_async=True)
        assert str(engine.query("What is said here?"))

        async def ask() -> list[str]:
            return [str(answer) for answer in await asyncio.gather(*(engine.aquery("What is said?") for _ in range(4)))]

        assert all(asyncio.run(ask()))

    def test_a_chat_engine_streams_from_another_thread_and_remembers(self, llm: LocalLlama) -> None:
        engine = SimpleChatEngine.from_defaults()
        streamed = engine.stream_chat("My name is Ada. Say hello to me.")
        text = "".join(streamed.response_gen)
        assert text.strip()
        assert str(engine.chat("What is my name?"))
        assert [message.role.value for message in engine.chat_history] == ["user", "assistant"] * 2
        assert engine.chat_history[1].content == text

        async def stream() -> str:
            answer = await engine.astream_chat("And what is 2+2?")
            return "".join([token async for token in answer.async_response_gen()])

        assert asyncio.run(stream()).strip()

    def test_a_chat_engine_over_documents(self, llm: LocalLlama) -> None:
        index = VectorStoreIndex.from_documents([Document(text=fact) for fact in FACTS])
        engine = CondensePlusContextChatEngine.from_defaults(
            index.as_retriever(similarity_top_k=2), memory=ChatMemoryBuffer.from_defaults(llm=llm)
        )
        assert str(engine.chat("What is the capital of Norway?"))
        assert str(engine.chat("And of France?")), "this one is condensed by complete() first"

    def test_a_model_whose_template_knows_no_tools_calls_one_that_fits(self, llm: LocalLlama) -> None:
        def get_weather(city: str) -> str:
            """Get the current weather of a city."""
            return f"It is sunny in {city}."

        def add(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        llm.max_tokens = 64
        tools = [FunctionTool.from_defaults(get_weather), FunctionTool.from_defaults(add)]
        assert str(llm.predict_and_call(tools, "What is the weather in Paris?")) == "It is sunny in Paris."


def test_the_models_own_tokenizer_plans_the_window(micro_llm: LocalLlama) -> None:
    Settings.embed_model = MockEmbedding(embed_dim=4)
    micro_llm.n_ctx = 4096
    Settings.llm = micro_llm
    Settings.tokenizer = micro_llm.tokenizer
    long = Document(text="The llama is a South American animal with soft wool. " * 100)
    engine = SummaryIndex.from_documents([long]).as_query_engine(response_mode="compact")
    assert str(engine.query("What is a llama?")), "a chunk that is too long for the window would raise"


def test_a_question_that_is_asked_twice_in_a_row(micro_llm: LocalLlama) -> None:
    """A ReActAgent does so when it tries again."""
    twice = [ChatMessage("Hello"), ChatMessage("Hello")]
    assert micro_llm.chat(twice).message.content
    assert micro_llm.chat([*twice, ChatMessage("Stop.", role="system")]).message.content


def test_a_react_agent_calls_its_tool(script: ScriptedServer) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        script.deltas = [{"reasoning_content": "Action: none"}, {"content": "Thought: I know.\nAnswer: It is 3."}]
        return a + b

    script.deltas = [{"content": 'Thought: I must add.\nAction: add\nAction Input: {"a": 1, "b": 2}'}]
    with LocalLlama(base_url=script.url) as llm:
        agent = ReActAgent(tools=[FunctionTool.from_defaults(add)], llm=llm)

        async def run() -> str:
            return str(await agent.run("What is 1+2?"))

        assert asyncio.run(run()) == "It is 3."


def test_predict_with_the_prompt_of_a_program(script: ScriptedServer) -> None:
    from pydantic import BaseModel

    class City(BaseModel):
        """A city."""

        name: str

    script.deltas = [{"content": '{"name": "Oslo"}'}]
    with LocalLlama(base_url=script.url) as llm:
        assert llm.structured_predict(City, PromptTemplate("Name a city.")) == City(name="Oslo")
