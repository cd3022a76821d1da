"""`with_structured_output`: schemas in every spelling, answers that hold or raise, objects that grow in a stream."""

from __future__ import annotations

import datetime as dt
import enum
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from langchain_core.exceptions import ModelError, OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel, Field, RootModel, field_validator
from pydantic import v1 as pydantic_v1
from typing_extensions import NotRequired, TypedDict

from langchain_localllama import ChatLocalLlama
from localllama import (
    ChatChunk,
    ChatResult,
    ConfigurationError,
    LengthLimitError,
    StructuredOutputError,
    ToolCallDelta,
    Usage,
)

METHODS = ["json_schema", "function_calling", "json_mode"]


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Address(BaseModel):
    street: str = Field(max_length=8)
    number: int = Field(ge=1, le=99)


class Person(BaseModel):
    """Someone."""

    name: str = Field(min_length=1, max_length=8)
    born: dt.date
    mood: Mood
    size: Literal["S", "M", "L"] = "M"
    address: Address | None = None


class Tree(BaseModel):
    """A tree."""

    leaf: bool
    branches: list[Tree] = Field(default=[], max_length=2)


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    is_loud: bool


class Zoo(BaseModel):
    animals: list[Cat | Dog] = Field(min_length=1, max_length=3)
    stock: dict[str, Address] = Field(max_length=2)


class Strict(BaseModel, strict=True):
    day: dt.date


class Pair(RootModel[tuple[int, bool]]):
    pass


class OldAddress(pydantic_v1.BaseModel):
    number: int = pydantic_v1.Field(gt=0, lt=100)


class OldPerson(pydantic_v1.BaseModel):
    """Someone, long ago."""

    is_old: bool
    address: OldAddress


@dataclass
class Event:
    day: dt.date
    seats: Annotated[int, Field(ge=0, le=9)] = 1


class Note(TypedDict):
    """A note."""

    is_read: Annotated[bool, ..., "whether it was read"]
    stars: Annotated[int | None, None, "how good it is"]


class Thread(TypedDict):
    """Notes upon notes."""

    is_open: bool
    replies: NotRequired[list[Thread]]


JSON_SCHEMA = {
    "title": "Item",
    "type": "object",
    "properties": {"kind": {"enum": ["a", "b"]}, "count": {"type": "integer", "minimum": 3, "maximum": 5}},
    "required": ["kind", "count"],
}
DICTS = {
    "json_schema": JSON_SCHEMA,
    "without_title": {key: value for key, value in JSON_SCHEMA.items() if key != "title"},
    "response_format": {"type": "json_schema", "json_schema": {"name": "Item", "schema": JSON_SCHEMA, "strict": True}},
    "openai_tool": {"type": "function", "function": {"name": "Item", "description": "One.", "parameters": JSON_SCHEMA}},
    "openai_function": {"name": "Item", "description": "One.", "parameters": JSON_SCHEMA},
    "anthropic_tool": {"name": "Item", "description": "One.", "input_schema": JSON_SCHEMA},
}
CLASSES = [Person, Tree, Zoo, Strict, OldPerson, Event]
OBJECTS = [*CLASSES, Note, Thread, *DICTS.values()]
OTHERS = [Cat | Dog, list[Address], dict[str, Mood], Mood, Literal["yes", "no"], Pair]


def model(**parameters: Any) -> ChatLocalLlama:
    return ChatLocalLlama(model="m.gguf", **parameters)


def text_of(*pieces: str) -> list[ChatChunk]:
    """A stream of text."""
    return [*(ChatChunk(text=piece) for piece in pieces), ChatChunk(finish_reason="stop", usage=Usage(1, 1, 2))]


def call_of(name: str, *pieces: str) -> list[ChatChunk]:
    """A stream of one call."""
    first = ChatChunk(tool_calls=(ToolCallDelta(0, "c1", name),))
    rest = [ChatChunk(tool_calls=(ToolCallDelta(0, arguments=piece),)) for piece in pieces]
    return [first, *rest, ChatChunk(finish_reason="tool_calls", usage=Usage(1, 1, 2))]


# -- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", DICTS.values(), ids=DICTS)
def test_dicts_of_every_kind_ask_for_the_same(script, given: dict[str, Any]) -> None:
    script.chunks = text_of('{"kind": "a", "count": 4}')
    assert model().with_structured_output(given).invoke("hi") == {"kind": "a", "count": 4}
    schema = script.last.request.response_format["json_schema"]["schema"]
    assert {key: schema[key] for key in ("type", "properties", "required")} == {
        key: JSON_SCHEMA[key] for key in ("type", "properties", "required")
    }


def test_classes_that_contain_themselves_are_sent_whole(script) -> None:
    @tool
    def plant(tree: Tree) -> str:
        """Plant a tree."""
        return str(tree)

    def fell(tree: Tree) -> str:
        """Fell a tree."""
        return str(tree)

    script.chunks = call_of("plant", '{"tree": {"leaf": true}}')
    model().bind_tools([plant, fell, Tree, Thread], tool_choice="plant").invoke("hi")
    for spec in script.last.request.tools:
        name = "Thread" if spec.name == "Thread" else "Tree"
        inside = spec.parameters["$defs"][name]["properties"]["replies" if name == "Thread" else "branches"]
        assert inside["items"] == {"$ref": f"#/$defs/{name}"}
        assert spec.parameters["type"] == "object", "templates look at the properties of the root"


def test_methods_ask_in_their_own_way(script) -> None:
    script.chunks = text_of('{"street": "x", "number": 1}')
    model().with_structured_output(Address, strict=True, temperature=0.5).invoke("hi")
    assert script.last.request.response_format["type"] == "json_schema"
    assert script.last.request.response_format["json_schema"]["strict"] is True
    assert script.last.sampling.temperature == 0.5
    model().with_structured_output(Address, method="json_mode").invoke("hi")
    assert script.last.request.response_format["type"] == "json_object"
    assert model().with_structured_output(method="json_mode").invoke("hi") == {"street": "x", "number": 1}
    assert script.last.request.response_format == {"type": "json_object"}
    script.chunks = call_of("Address", '{"street": "x", ', '"number": 1}')
    bound = model().with_structured_output(Address, method="function_calling", strict=False)
    assert bound.invoke("hi") == Address(street="x", number=1)
    assert script.last.request.tool_choice == "Address"
    assert script.last.request.parallel_tool_calls is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schema": None}, "needs a schema"),
        ({"schema": Address, "method": "json"}, "method='json'"),
        ({"schema": list[int], "method": "function_calling"}, "arguments of a tool"),
        ({"schema": {"type": "json_schema"}}, "no schema is in the dict"),
        ({"schema": object()}, "no schema can be made"),
        ({"schema": BaseModel}, "no schema can be made of <class 'pydantic.main.BaseModel'>"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_asked_for_is_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        model().with_structured_output(**arguments)


# -- what comes back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        (Strict, '{"day": "2024-02-29"}', Strict(day=dt.date(2024, 2, 29))),
        (Event, '{"day": "2024-02-29"}', Event(dt.date(2024, 2, 29), 1)),
        (OldAddress, '{"number": 3}', OldAddress(number=3)),
        (Note, '{"is_read": true}', {"is_read": True}),
        (list[Address], '[{"street": "x", "number": 1}]', [Address(street="x", number=1)]),
        (Cat | Dog, '{"kind": "dog", "is_loud": true}', Dog(kind="dog", is_loud=True)),
        (Mood, '"bad"', Mood.BAD),
    ],
    ids=str,
)
def test_an_answer_is_an_object_of_the_class(script, schema: Any, text: str, expected: Any) -> None:
    script.chunks = text_of(text)
    chain = model().with_structured_output(schema)
    assert chain.invoke("hi") == expected
    *_, last = chain.stream("hi")
    assert last == expected


class Even(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def is_even(cls, n: int) -> int:
        if n % 2:
            raise ValueError("n is odd")
        return n


@pytest.mark.parametrize("method", METHODS)
async def test_an_answer_that_the_class_refuses_is_an_error_of_both_names(script, method: str) -> None:
    script.chunks = call_of("Even", '{"n": 3}') if method == "function_calling" else text_of('{"n": 3}')
    chain = model().with_structured_output(Even, method=method)
    for parent in (StructuredOutputError, OutputParserException, ModelError):
        with pytest.raises(parent, match="n is odd") as caught:
            chain.invoke("hi")
        with pytest.raises(parent, match="n is odd"):
            list(chain.stream("hi"))
    assert caught.value.raw_text == caught.value.llm_output == '{"n": 3}'
    assert pickle.loads(pickle.dumps(caught.value)).llm_output == '{"n": 3}'
    with pytest.raises(StructuredOutputError):
        await chain.ainvoke("hi")
    with pytest.raises(StructuredOutputError):
        _ = [part async for part in chain.astream("hi")]
    retried = chain.with_retry(retry_if_exception_type=(OutputParserException,), wait_exponential_jitter=False)
    sent = len(script.sent)
    with pytest.raises(StructuredOutputError):
        retried.invoke("hi")
    assert len(script.sent) == sent + 3


@pytest.mark.parametrize("text", ["", "Sure!", '{"n": ', "null", "[]"])
def test_there_is_no_answer_that_is_none(script, text: str) -> None:
    script.chunks = text_of(text)
    for ask in (lambda chain: chain.invoke("hi"), lambda chain: list(chain.stream("hi"))):
        with pytest.raises(StructuredOutputError):
            ask(model().with_structured_output(Even))
        with pytest.raises(StructuredOutputError):
            ask(model().with_structured_output(Even, method="function_calling"))


# -- beside the message ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
async def test_include_raw_gives_the_message_the_object_and_the_error(script, is_async: bool) -> None:
    chain = model().with_structured_output(Even, include_raw=True)

    async def ask() -> tuple[dict[str, Any], dict[str, Any]]:
        """Of `invoke` and, added up, of `stream`."""
        if is_async:
            return await chain.ainvoke("hi"), add_up([part async for part in chain.astream("hi")])
        return chain.invoke("hi"), add_up(list(chain.stream("hi")))

    script.chunks = text_of('{"n"', ": 2}")
    for answer in await ask():
        assert answer["raw"].text == '{"n": 2}'
        assert (answer["parsed"], answer["parsing_error"]) == (Even(n=2), None)
        assert answer["raw"].usage_metadata["total_tokens"] == 2
    script.chunks = text_of('{"n"', ": 3}")
    for answer in await ask():
        assert answer["raw"].text == '{"n": 3}'
        assert answer["parsed"] is None
        assert isinstance(answer["parsing_error"], OutputParserException)
    script.chunks = text_of('{"n"')
    script.error = LengthLimitError("cut", result=ChatResult(text='{"n"', finish_reason="length"))
    for answer in await ask():
        assert answer["raw"].text == '{"n"'
        assert answer["parsed"] is None
        assert isinstance(answer["parsing_error"], LengthLimitError)


@pytest.mark.parametrize(("given", "name"), [({}, "m.gguf"), ({"model": "other.gguf"}, "other.gguf")])
async def test_the_raw_message_of_a_cut_answer_names_the_model_as_the_user_did(script, given, name: str) -> None:
    script.error = LengthLimitError("cut", result=ChatResult(text='{"n"', model="as the server calls it"))
    bound = model().with_structured_output(Even, include_raw=True, **given)
    called = model().with_structured_output(Even, include_raw=True)
    for answer in (bound.invoke("hi"), await bound.ainvoke("hi"), called.invoke("hi", **given)):
        assert answer["raw"].response_metadata["model_name"] == name


def add_up(parts: list[dict[str, Any]]) -> dict[str, Any]:
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


async def test_other_errors_are_raised_with_include_raw_too(script) -> None:
    script.error = ConfigurationError("wrong")
    chain = model().with_structured_output(Even, include_raw=True)
    with pytest.raises(ConfigurationError):
        chain.invoke("hi")
    with pytest.raises(ConfigurationError):
        _ = [part async for part in chain.astream("hi")]


# -- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("method", METHODS)
async def test_an_object_grows(script, method: str, version: str) -> None:
    pieces = ['{"kind"', ': "a', '", "count"', ": 4", "}"]
    script.chunks = call_of("Item", *pieces) if method == "function_calling" else text_of(*pieces)
    prompt = ChatPromptTemplate.from_messages([("user", "{x}")])
    chain = prompt | model(output_version=version).with_structured_output(JSON_SCHEMA, method=method)
    grown = [{}, {"kind": "a"}, {"kind": "a", "count": 4}]
    assert list(chain.stream({"x": "hi"})) == grown
    assert [part async for part in chain.astream({"x": "hi"})] == grown
    assert chain.invoke({"x": "hi"}) == grown[-1]


def test_streams_in_a_chain_of_steps(script) -> None:
    script.chunks = text_of('{"n": ', "2}")
    chain = model().with_structured_output(Even, include_raw=True) | RunnableLambda(lambda answer: answer["parsed"].n)
    assert chain.invoke("hi") == 2
    assert list(chain.stream("hi")) == [2]
    assert chain.batch(["a", "b"]) == [2, 2]


# -- on a real server -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llm(micro_model: Path) -> Iterator[ChatLocalLlama]:
    with ChatLocalLlama(model=str(micro_model), n_ctx=4096, n_threads=1, parallel=2, seed=7) as llm:
        llm.start()
        yield llm


def is_answer(schema: Any, answer: Any) -> bool:
    if schema in CLASSES:
        return isinstance(answer, schema)
    return answer is not None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "schema", [*CLASSES, Note, Thread, JSON_SCHEMA], ids=lambda schema: getattr(schema, "__name__", "dict")
)
def test_random_words_make_objects_of_every_form(llm: ChatLocalLlama, schema: Any, method: str) -> None:
    chain = llm.with_structured_output(schema, method=method)
    assert is_answer(schema, chain.invoke("Go on."))
    *_, last = chain.stream("Go on.")
    assert is_answer(schema, last)


@pytest.mark.parametrize("schema", OTHERS, ids=str)
def test_random_words_make_values_that_are_no_objects(llm: ChatLocalLlama, schema: Any) -> None:
    assert llm.with_structured_output(schema).invoke("Go on.") is not None


async def test_a_cut_answer_says_so(llm: ChatLocalLlama) -> None:
    chain = llm.with_structured_output(Zoo, max_tokens=5)
    with pytest.raises(LengthLimitError, match="max_tokens"):
        chain.invoke("Go on.")
    with pytest.raises(OutputParserException):
        _ = [part async for part in chain.astream("Go on.")]
    answer = llm.with_structured_output(Zoo, include_raw=True, max_tokens=5).invoke("Go on.")
    assert isinstance(answer["raw"], AIMessage)
    assert answer["raw"].text
    assert isinstance(answer["parsing_error"], LengthLimitError)
