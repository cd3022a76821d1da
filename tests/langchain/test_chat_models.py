"""One call: what it may be given, what it sends, what LangChain is told. The server is a script here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_localllama import ChatLocalLlama
from localllama import (
    ChatChunk,
    ClientClosedError,
    ConfigurationError,
    Message,
    ModelCorruptError,
    ModelInfo,
    ToolSpec,
    Usage,
)

INFO = ModelInfo(name="Test", path="/m.gguf", n_ctx=2048, fingerprint="f" * 8, chat_template="{{ messages }}")


def model(**arguments: Any) -> ChatLocalLlama:
    return ChatLocalLlama(**{"model": "m.gguf", **arguments})


# -- arguments of a call --------------------------------------------------------------------------------------------


async def test_the_four_ways_send_the_same(script) -> None:
    llm = model(temperature=0.5, stop=["a"], timeout=60).bind(temperature=0.1, top_k=3, timeout=5)
    messages = [("system", "Be brief."), ("user", "hi")]
    llm.invoke(messages, stop=["b"])
    await llm.ainvoke(messages, stop=["b"])
    list(llm.stream(messages, stop=["b"]))
    _ = [chunk async for chunk in llm.astream(messages, stop=["b"])]
    assert len(script.sent) == 4
    for sent in script.sent:
        assert sent.request.messages == (Message("system", "Be brief."), Message("user", "hi"))
        assert sent.sampling.temperature == 0.1
        assert sent.sampling.top_k == 3
        assert sent.sampling.stop == ("b",)
        assert sent.timeouts.total_seconds == 5
    assert script.closed_streams == 4
    assert script.clients == 2, "one client for sync calls, one for async ones"


def test_a_call_without_stop_strings_has_those_of_the_object(script) -> None:
    model(stop=["a"]).invoke("hi")
    assert script.last.sampling.stop == ("a",)


def test_one_stop_string_is_one_and_what_is_none_is_refused(script) -> None:
    model().invoke("hi", stop="ab")
    assert script.last.sampling.stop == ("ab",)
    assert model()._get_ls_params(stop="ab")["ls_stop"] == ["ab"]
    with pytest.raises(ConfigurationError, match="stop=5"):
        model().invoke("hi", stop=5)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({"temprature": 1}, "temprature", "Did you mean 'temperature'"),
        ({"tool_choise": "any"}, "tool_choise", "Did you mean 'tool_choice'"),
        ({"n_ctx": 10}, "n_ctx belongs to the server", "constructor"),
        ({"whatever_this_is": 1}, "whatever_this_is", "extra_body"),
        ({"temperature": -1}, "temperature=-1", None),
        ({"timeout": -1}, "total_seconds", None),
        ({"response_format": str}, "response_format", "with_structured_output"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
async def test_wrong_arguments_of_a_call_are_refused(
    script, arguments: dict[str, Any], message: str, hint: str | None
) -> None:
    llm = model()
    for refused in (lambda: llm.invoke("hi", **arguments), lambda: list(llm.stream("hi", **arguments))):
        with pytest.raises(ConfigurationError) as caught:
            refused()
        assert message in caught.value.message
        assert hint is None or hint in (caught.value.hint or "")
    assert not script.sent


def test_another_model_for_one_call(script) -> None:
    llm = model(n_ctx=512)
    answer = llm.invoke("hi", model="other.gguf")
    assert script.last.settings.model == "other.gguf"
    assert script.last.settings.n_ctx == 512
    assert answer.response_metadata["model_name"] == "other.gguf"
    assert llm._get_ls_params(model="other.gguf")["ls_model_name"] == "other.gguf"
    llm.invoke("hi")
    assert script.last.settings.model == "m.gguf"


def test_streaming_by_default_changes_nothing_in_the_answer(script) -> None:
    plain, streamed = model().invoke("hi"), model(streaming=True).invoke("hi")
    assert streamed.content == plain.content
    assert streamed.usage_metadata == plain.usage_metadata
    assert type(streamed) is AIMessage


# -- tools ----------------------------------------------------------------------------------------------------------


@tool
def weather(city: str) -> str:
    """Weather in a city."""
    return city


class Clock(BaseModel):
    """The time."""

    zone: str


def test_tools_are_sent_as_the_core_takes_them(script) -> None:
    anthropic = {"name": "search", "description": "Search.", "input_schema": {"type": "object", "properties": {}}}
    model().bind_tools([weather, Clock, anthropic]).invoke("hi")
    specs = script.last.request.tools
    assert [(spec.name, spec.description) for spec in specs] == [
        ("weather", "Weather in a city."),
        ("Clock", "The time."),
        ("search", "Search."),
    ]
    assert isinstance(specs[0], ToolSpec)
    assert specs[0].parameters["required"] == ["city"]
    assert script.last.request.tool_choice is None


@pytest.mark.parametrize("has_parameters", [True, False])
def test_a_tool_in_the_form_of_openai_responses_is_one(script, has_parameters: bool) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    flat = {"type": "function", "name": "search", "strict": True, **({"parameters": schema} if has_parameters else {})}
    model().bind_tools([flat]).invoke("hi")
    (spec,) = script.last.request.tools
    assert (spec.name, spec.parameters.get("required")) == ("search", ["city"] if has_parameters else None)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, None),
        (False, None),
        ("auto", "auto"),
        ("none", "none"),
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("weather", "weather"),
        ({"type": "function", "function": {"name": "weather"}}, "weather"),
        ({"type": "tool", "name": "weather"}, "weather"),
        ({"type": "any"}, "required"),
    ],
    ids=str,
)
def test_tool_choices(script, given: Any, sent: str | None) -> None:
    model().bind_tools([weather], tool_choice=given, parallel_tool_calls=False).invoke("hi")
    assert script.last.request.tool_choice == sent
    assert script.last.request.parallel_tool_calls is False


def test_a_tool_that_is_named_like_a_choice_can_be_chosen(script) -> None:
    any_tool = {"name": "any", "description": "Any.", "parameters": {"type": "object", "properties": {}}}
    model().bind_tools([weather, any_tool], tool_choice="any").invoke("hi")
    assert script.last.request.tool_choice == "any"


@pytest.mark.parametrize("strict", [True, None])
def test_strict_tools_take_no_property_that_they_do_not_name(script, strict: bool | None) -> None:
    model().bind_tools([weather], strict=strict).invoke("hi")
    (spec,) = script.last.request.tools
    assert spec.parameters.get("additionalProperties") is (False if strict else None)


def test_wrong_tools_are_refused_when_they_are_bound() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'weather'"):
        model().bind_tools([weather], tool_choice="wether")
    with pytest.raises(ConfigurationError, match="web_search_preview"):
        model().bind_tools([{"type": "web_search_preview"}])
    with pytest.raises(ConfigurationError, match="bash_20250124"):
        model().bind_tools([{"type": "bash_20250124", "name": "bash", "strict": True}])
    with pytest.raises(ConfigurationError, match="tool"):
        model().bind_tools([{"nonsense": 1}])


def test_no_messages_take_no_tokens(script) -> None:
    # LangChain's `trim_messages` asks what the messages before the first one take.
    assert model().get_num_tokens_from_messages([]) == 0
    assert script.sent == []


def test_no_tools_are_no_tools(script) -> None:
    response_format = {"type": "json_object"}
    model().bind_tools([], tool_choice="any", response_format=response_format).invoke("hi")
    assert script.last.request.tools == ()
    assert script.last.request.tool_choice is None
    assert script.last.request.response_format == response_format


# -- what LangChain is told -----------------------------------------------------------------------------------------


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.tokens: list[str] = []
        self.params: dict[str, Any] = {}

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.seen.append("start")
        self.params = kwargs["invocation_params"]
        self.metadata = kwargs["metadata"]

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.seen.append("end")

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.seen.append(type(error).__name__)


async def test_callbacks_fire_once_for_each_thing(script) -> None:
    llm = model()
    ways = [
        lambda config: list(llm.stream("hi", config)),
        lambda config: llm.invoke("hi", config, stream=True),
    ]
    for way in ways:
        recorder = Recorder()
        way({"callbacks": [recorder]})
        assert recorder.seen == ["start", "end"]
        assert [token for token in recorder.tokens if token] == ["Hel", "lo"]
    recorder = Recorder()
    _ = [chunk async for chunk in llm.astream("hi", {"callbacks": [recorder]})]
    assert [token for token in recorder.tokens if token] == ["Hel", "lo"]
    assert recorder.seen == ["start", "end"]
    events = [event async for event in llm.astream_events("hi", version="v2")]
    texts = [event["data"]["chunk"].content for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(texts) == "Hello"


def test_usage_is_counted_once_for_each_call(script) -> None:
    llm = model()
    with get_usage_metadata_callback() as counted:
        llm.invoke("hi")
        list(llm.stream("hi"))
        llm.batch(["hi", "hi"])
    assert counted.usage_metadata == {
        "m.gguf": {
            "input_tokens": 28,
            "output_tokens": 12,
            "total_tokens": 40,
            "input_token_details": {"cache_read": 8},
        }
    }


def test_traces_name_the_model_the_parameters_and_the_version(script) -> None:
    recorder = Recorder()
    model(temperature=0.5, stop=["x"], max_tokens=9, env={"TOKEN": "secret"}).invoke(
        "hi", {"callbacks": [recorder]}, top_k=3
    )
    assert recorder.metadata["ls_provider"] == "localllama"
    assert recorder.metadata["ls_model_name"] == "m.gguf"
    assert recorder.metadata["ls_temperature"] == 0.5
    assert recorder.metadata["ls_max_tokens"] == 9
    assert recorder.metadata["ls_stop"] == ["x"]
    assert "localllama" in recorder.metadata["lc_versions"]
    assert recorder.params["stop"] == ["x"]
    assert recorder.params["top_k"] == 3
    assert "secret" not in str(recorder.params)


def test_identity_is_the_model_and_every_parameter_and_nothing_volatile(script) -> None:
    script.info = INFO
    base = model()._identifying_params
    assert base["model_fingerprint"] == "ffffffff"
    for change in (
        {"temperature": 0.1},
        {"stop": ["x"]},
        {"n_ctx": 9},
        {"lora": ["a.gguf"]},
        {"chat_template": "chatml"},
        {"reasoning": "off"},
        {"extra_body": {"a": 1}},
        {"model": "other.gguf"},
    ):
        assert model(**change)._identifying_params != base, change
    for same in ({"timeout": 3}, {"env": {"A": "b"}}, {"start_timeout_seconds": 3}, {"listen": "tcp"}):
        assert model(**same)._identifying_params == base, same


def test_the_cache_answers_without_a_server_and_only_for_the_same_call(script) -> None:
    llm = model(cache=InMemoryCache())
    first = llm.invoke("hi")
    assert llm.invoke("hi").content == first.content
    assert len(script.sent) == 1
    llm.model_copy(update={"temperature": 0.3}).invoke("hi")
    llm.invoke("hi", stop=["x"])
    llm.invoke("hi", max_tokens=3)
    script.info = INFO
    llm.invoke("hi")
    assert len(script.sent) == 5


def test_the_profile_says_what_the_file_says(script) -> None:
    script.info = INFO
    profile = model().profile
    assert profile["max_input_tokens"] == 2048
    assert profile["image_inputs"] is False
    assert profile["tool_calling"] is True
    assert profile["structured_output"] is True
    assert profile["reasoning_output"] is False
    script.info = ModelInfo("T", "/m", 10, chat_template="{{ '<think>' }}", mmproj="/p.gguf")
    assert model().profile["image_inputs"] is True
    assert model().profile["reasoning_output"] is True
    assert model(profile={"max_input_tokens": 5}).profile == {"max_input_tokens": 5}


def test_a_damaged_file_is_an_error_of_the_call_not_of_the_object(script) -> None:
    script.info = ModelCorruptError("damaged")
    llm = model()
    assert llm.profile is None
    assert "model_fingerprint" not in llm._identifying_params


def test_own_tokenizers_are_asked_first(script) -> None:
    assert model(custom_get_token_ids=lambda text: [1] * len(text)).get_num_tokens("abc") == 3


# -- life -----------------------------------------------------------------------------------------------------------


async def test_closing(script) -> None:
    llm = model()
    llm.invoke("hi")
    await llm.ainvoke("hi")
    llm.close()
    llm.close()
    assert script.closed_clients == 2
    for call in (lambda: llm.invoke("hi"), lambda: list(llm.stream("hi")), lambda: llm.get_num_tokens("a")):
        with pytest.raises(ClientClosedError):
            call()
    with pytest.raises(ClientClosedError):
        await llm.ainvoke("hi")
    async with model() as other:
        await other.ainvoke("hi")
        other.invoke("hi")
    assert script.closed_clients == 4
    with model() as third:
        third.invoke("hi")
    assert script.closed_clients == 5
    third.bind_tools([weather])
    repr(third)


def test_a_stream_that_is_left_is_closed(script) -> None:
    stream = model().stream("hi")
    next(stream)
    stream.close()
    assert script.closed_streams == 1


async def test_an_async_stream_that_is_left_is_closed(script) -> None:
    stream = model().astream("hi")
    await anext(stream)
    await stream.aclose()
    # The inner generator ends when the loop comes to it.
    for _ in range(100):
        if script.closed_streams:
            break
        await asyncio.sleep(0)
    assert script.closed_streams == 1


def test_nothing_happens_before_the_first_call(script) -> None:
    llm = model()
    llm.bind_tools([weather])
    repr(llm)
    _ = llm.profile
    assert not script.sent


def test_an_empty_answer_is_an_answer(script) -> None:
    script.chunks = (ChatChunk(finish_reason="stop"), ChatChunk(usage=Usage(3, 0, 3)))
    llm = model()
    assert llm.invoke([HumanMessage("hi")]).content == ""
    chunks = list(llm.stream("hi"))
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    assert [chunk.chunk_position for chunk in chunks].count("last") == 1
