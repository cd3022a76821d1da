"""Structured prediction: an object of the class or an error, in every way that LlamaIndex asks for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import ChatPromptTemplate, PromptTemplate
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.prompts import SelectorPromptTemplate
from llama_index.core.prompts.utils import is_chat_model
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field, RootModel, field_validator

from llamaindex.contract import RecordedEvents
from llamaindex_localllama import LocalLlama
from localllama import LengthLimitError, LocalLlamaError, StructuredOutputError
from support.scripted_server import ScriptedServer


class Size(str, Enum):
    SMALL = "small"
    LARGE = "large"


class District(BaseModel):
    name: str = Field(max_length=8)
    area: float | None = None


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=12)
    size: Size
    founded: date
    n_bridges: int = Field(alias="bridges", ge=0, le=99)
    districts: list[District] = Field(max_length=2)


PROMPT = PromptTemplate("Describe {city}.")


@pytest.fixture(autouse=True)
def fresh_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """LlamaIndex's text programs put their output parser into the caller's template, and the next caller would have it."""
    monkeypatch.setattr(PROMPT, "output_parser", None)


Predict = Callable[..., list[Any]]
"""Makes one call and returns its objects: one, or those of the stream."""


async def _collected(stream: Any) -> list[Any]:
    return [output async for output in await stream]


PREDICTIONS: dict[str, Predict] = {
    "structured_predict": lambda llm, *a, **k: [llm.structured_predict(*a, **k)],
    "astructured_predict": lambda llm, *a, **k: [asyncio.run(llm.astructured_predict(*a, **k))],
    "stream_structured_predict": lambda llm, *a, **k: list(llm.stream_structured_predict(*a, **k)),
    "astream_structured_predict": lambda llm, *a, **k: asyncio.run(_collected(llm.astream_structured_predict(*a, **k))),
}
each_prediction = pytest.mark.parametrize("predict", PREDICTIONS.values(), ids=PREDICTIONS)


@pytest.fixture
def llm(micro_model: Path) -> Iterator[LocalLlama]:
    with LocalLlama(model=str(micro_model), n_ctx=4096, n_threads=1, max_tokens=1024, seed=1) as llm:
        yield llm


class TestObjects:
    @each_prediction
    def test_senseless_words_still_make_an_object(self, llm: LocalLlama, predict: Predict) -> None:
        for seed in range(3):
            city = predict(llm, City, PROMPT, {"seed": seed, "temperature": 2.0}, city="Oslo")[-1]
            assert type(city) is City
            assert City.model_validate_json(city.model_dump_json(by_alias=True)) == city

    @each_prediction
    def test_a_class_that_refers_to_itself_and_one_that_is_a_list(self, llm: LocalLlama, predict: Predict) -> None:
        assert type(predict(llm, Tree, PROMPT, city="Oslo")[-1]) is Tree
        assert type(predict(llm, Names, PROMPT, city="Oslo")[-1]) is Names

    def test_a_streamed_object_grows(self, script: ScriptedServer, scripted_llm: LocalLlama) -> None:
        text = '{"name":"Oslo","size":"large","founded":"1048-01-01","bridges":42,"districts":[{"name":"Frogner"},{"name":"Sagene"}]}'
        script.deltas = [{"content": text[start : start + 3]} for start in range(0, len(text), 3)]
        outputs = list(scripted_llm.stream_structured_predict(City, PROMPT, city="Oslo"))
        assert len(outputs) > 20
        assert [type(output) is City for output in outputs[-1:]] == [True]
        assert [len(output.districts or []) for output in outputs] == sorted(len(o.districts or []) for o in outputs)
        assert {output.name for output in outputs} >= {"Osl", "Oslo"}
        bridges = [output.n_bridges for output in outputs if output.n_bridges is not None]
        assert bridges[-1] == 42
        assert outputs[-1].districts == [District(name="Frogner"), District(name="Sagene")]

    def test_partial_objects_have_the_fields_of_the_class(self, llm: LocalLlama) -> None:
        outputs = list(llm.stream_structured_predict(City, PROMPT, city="Oslo"))
        assert len(outputs) > 5
        for output in outputs:
            for name in City.model_fields:
                getattr(output, name)


class Tree(BaseModel):
    name: str = Field(max_length=4)
    children: list[Tree] = Field(max_length=1)


class Names(RootModel[list[str]]):
    root: list[str] = Field(max_length=2)


class Picky(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def _is_oslo(cls, name: str) -> str:
        if name != "Oslo":
            raise ValueError("only Oslo will do")
        return name


class TestRefusals:
    @each_prediction
    def test_what_only_the_class_can_check_is_an_error(
        self, script: ScriptedServer, scripted_llm: LocalLlama, predict: Predict
    ) -> None:
        script.deltas = [{"content": '{"name": "Paris"}'}]
        with pytest.raises(StructuredOutputError, match=r"no Picky: name: .*only Oslo will do") as caught:
            predict(scripted_llm, Picky, PROMPT, city="Oslo")
        assert caught.value.result is not None
        assert caught.value.result.text == '{"name": "Paris"}'

    @each_prediction
    @pytest.mark.parametrize("answer", ["Oslo is a city.", "", '{"name": 1}', "null"])
    def test_prose_is_an_error_and_never_an_object(
        self, script: ScriptedServer, scripted_llm: LocalLlama, predict: Predict, answer: str
    ) -> None:
        script.deltas = [{"content": answer}] if answer else []
        with pytest.raises(StructuredOutputError):
            predict(scripted_llm, District, PROMPT, city="Oslo")

    @each_prediction
    def test_a_cut_answer_says_so(self, llm: LocalLlama, predict: Predict) -> None:
        with pytest.raises(LengthLimitError, match="max_tokens"):
            predict(llm, City, PROMPT, {"max_tokens": 5}, city="Oslo")

    def test_failures_of_the_server_stay_what_they_are(self) -> None:
        with LocalLlama(base_url="http://127.0.0.1:9", max_retries=0) as llm:
            with pytest.raises(LocalLlamaError) as caught:
                llm.structured_predict(City, PROMPT, city="Oslo")
        assert not isinstance(caught.value, StructuredOutputError)


class TestTheCall:
    @each_prediction
    def test_one_call_one_record_and_the_events_of_a_prediction(
        self, llm: LocalLlama, predict: Predict, recorded_events: RecordedEvents
    ) -> None:
        counter = TokenCountingHandler()
        llm.callback_manager = CallbackManager([counter])
        outputs = predict(llm, City, PROMPT, city="Oslo")
        counts = recorded_events.counts()
        assert counts["LLMStructuredPredictStartEvent"] == counts["LLMStructuredPredictEndEvent"] == 1
        assert counts["LLMChatStartEvent"] == counts["LLMChatEndEvent"] == 1
        assert len(counter.llm_token_counts) == 1
        assert counts["LLMStructuredPredictInProgressEvent"] == (len(outputs) if len(outputs) > 1 else 0)
        end = next(e for e in recorded_events.events if type(e).__name__ == "LLMStructuredPredictEndEvent")
        assert end.output == outputs[-1]  # type: ignore[attr-defined]

    @each_prediction
    def test_system_prompt_arguments_and_schema_are_sent(
        self, script: ScriptedServer, scripted_llm: LocalLlama, predict: Predict
    ) -> None:
        script.deltas = [{"content": '{"name": "Oslo"}'}]
        scripted_llm.system_prompt = "Be a geographer."
        arguments = {"temperature": 0.5, "tool_required": True, "tool_choice": None}
        predict(scripted_llm, District, PROMPT, arguments, city="Oslo")
        assert arguments == {"temperature": 0.5, "tool_required": True, "tool_choice": None}
        (sent,) = script.requests
        assert sent["temperature"] == 0.5
        assert "tools" not in sent
        assert sent["messages"][0]["role"] == "system"
        assert sent["messages"][0]["content"].startswith("Be a geographer.")
        assert sent["messages"][-1]["content"] == "Describe Oslo."
        assert sent["response_format"]["type"] == "json_schema"

    @pytest.mark.parametrize(
        "prompt",
        [
            ChatPromptTemplate([ChatMessage("Be {tone}.", role="system"), ChatMessage('Describe {city}: {"a": {}}')]),
            SelectorPromptTemplate(PromptTemplate("no chat"), [(is_chat_model, PromptTemplate("Describe {city}."))]),
        ],
        ids=["chat", "selector"],
    )
    def test_prompts_of_every_kind(self, script: ScriptedServer, scripted_llm: LocalLlama, prompt: Any) -> None:
        script.deltas = [{"content": '{"name": "Oslo"}'}]
        assert scripted_llm.structured_predict(District, prompt, city="Oslo", tone="brief") == District(name="Oslo")
        assert script.requests[0]["messages"][-1]["content"].startswith("Describe Oslo")

    def test_a_closed_stream_frees_the_server(self, llm: LocalLlama) -> None:
        stream = llm.stream_structured_predict(City, PROMPT, city="Oslo")
        next(stream)
        stream.close()

        async def close_early() -> None:
            outputs: AsyncGenerator[Any, None] = await llm.astream_structured_predict(City, PROMPT, city="Oslo")
            await outputs.__anext__()
            await outputs.aclose()

        asyncio.run(close_early())
        assert type(llm.structured_predict(City, PROMPT, city="Oslo")) is City

    @pytest.mark.parametrize("mode", [PydanticProgramMode.FUNCTION, PydanticProgramMode.LLM])
    def test_other_modes_are_the_programs_of_llamaindex(
        self, script: ScriptedServer, scripted_llm: LocalLlama, mode: PydanticProgramMode
    ) -> None:
        scripted_llm.pydantic_program_mode = mode
        is_called = mode is PydanticProgramMode.FUNCTION
        call = '{"name": "District", "arguments": {"name": "Oslo"}}'
        script.deltas = [{"content": call if is_called else '{"name": "Oslo"}'}]
        assert scripted_llm.structured_predict(District, PROMPT, city="Oslo") == District(name="Oslo")
        assert ("response_format" in script.requests[0]) is is_called


class TestStructuredLLM:
    def test_whole_and_streamed(self, llm: LocalLlama) -> None:
        structured = llm.as_structured_llm(City)
        question = [ChatMessage("Describe Oslo.")]
        assert City.model_validate_json(structured.complete("Oslo?").text.replace("n_bridges", "bridges"))
        assert type(structured.chat(question).raw) is City
        assert type(asyncio.run(structured.achat(question)).raw) is City
        assert type(list(structured.stream_chat(question))[-1].raw) is City


def test_a_stream_without_a_word_is_an_error(scripted_llm: LocalLlama) -> None:
    """As of a subclass, or of a callback, that keeps the responses to itself."""
    object.__setattr__(scripted_llm, "stream_chat", lambda *_, **__: (response for response in ()))
    with pytest.raises(StructuredOutputError, match="no District: the stream was empty"):
        list(scripted_llm.stream_structured_predict(District, PROMPT, city="Oslo"))


def test_a_failed_prediction_is_a_value_error_as_llamaindex_expects(
    script: ScriptedServer, scripted_llm: LocalLlama
) -> None:
    """Its synthesizers go on to the next document after a `ValueError`, and end with any other."""
    script.deltas = [{"content": "No."}]
    with pytest.raises(StructuredOutputError) as caught:
        scripted_llm.structured_predict(District, PROMPT, city="Oslo")
    assert isinstance(caught.value, ValueError)
