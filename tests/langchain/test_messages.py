"""LangChain's messages become the core's, in every shape that users, other chat models and old code give them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_localllama._messages import to_core_messages
from localllama import (
    AudioPart,
    ConfigurationError,
    ImagePart,
    LocalLlamaError,
    Message,
    TextPart,
    ToolCall,
    UnsupportedFeatureError,
)


def one(message: BaseMessage) -> Message:
    (made,) = to_core_messages([message])
    return made


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (SystemMessage("Be brief."), Message("system", "Be brief.")),
        (HumanMessage("Hi", name="ann"), Message("user", "Hi", name="ann")),
        (AIMessage("Hello"), Message("assistant", "Hello")),
        (AIMessageChunk(content="Hello"), Message("assistant", "Hello")),
        (ToolMessage("21 C", tool_call_id="c1", name="t"), Message("tool", "21 C", name="t", tool_call_id="c1")),
        (ChatMessage("Be brief.", role="developer"), Message("system", "Be brief.")),
        (ChatMessage("Hi", role="User"), Message("user", "Hi")),
        (FunctionMessage("3", name="add"), Message("tool", "3", name="add", tool_call_id="call_add")),
        (HumanMessage([]), Message("user", "")),
        (HumanMessage(["a"]), Message("user", "a")),
        (HumanMessage(["a", {"type": "text", "text": "b"}]), Message("user", (TextPart("a"), TextPart("b")))),
        (HumanMessage([{"text": "no type"}]), Message("user", "no type")),
        (
            HumanMessage([{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]),
            Message("user", "x"),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_message(message: BaseMessage, expected: Message) -> None:
    assert one(message) == expected


PNG = "iVBORw0KGgo="


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": PNG, "mime_type": "image/png"},
        {"type": "image", "source_type": "base64", "data": PNG, "mime_type": "image/png"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "url": f"data:image/png;base64,{PNG}"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
        {"type": "image_url", "image_url": f"data:image/png;base64,{PNG}"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
    ],
    ids=["v1", "v0", "anthropic", "v1-data-url", "openai", "openai-string", "openai-responses"],
)
def test_images_in_every_shape(block: dict[str, Any]) -> None:
    assert one(HumanMessage(["Look:", block])).content == (TextPart("Look:"), ImagePart(PNG, "image/png"))
    assert one(ToolMessage([block], tool_call_id="c")).content == (ImagePart(PNG, "image/png"),)


@pytest.mark.parametrize(
    ("block", "expected_format"),
    [
        ({"type": "audio", "base64": "UklG", "mime_type": "audio/wav"}, "wav"),
        ({"type": "audio", "base64": "UklG", "mime_type": "audio/mpeg"}, "mp3"),
        ({"type": "audio", "source_type": "base64", "data": "UklG", "mime_type": "audio/x-wav"}, "wav"),
        ({"type": "input_audio", "input_audio": {"data": "UklG", "format": "mp3"}}, "mp3"),
    ],
    ids=["v1", "v1-mpeg", "v0", "openai"],
)
def test_audio_in_every_shape(block: dict[str, Any], expected_format: str) -> None:
    assert one(HumanMessage([block])).content == (AudioPart("UklG", expected_format),)


@pytest.mark.parametrize(
    ("block", "named"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png?token=abc"}}, "remote image"),
        ({"type": "image", "url": "https://example.com/a.png?token=abc"}, "remote image"),
        ({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png?token=abc"}}, "remote image"),
        ({"type": "image", "file_id": "f1"}, "image without data"),
        ({"type": "audio", "url": "https://example.com/a.wav?token=abc"}, "audio without data"),
        ({"type": "audio", "base64": "T2dn", "mime_type": "audio/ogg"}, "audio as ogg"),
        ({"type": "file", "base64": "JVBE", "mime_type": "application/pdf"}, "file"),
        ({"type": "document", "source": {}}, "document"),
        ({"type": "video", "base64": "AAAA", "mime_type": "video/mp4"}, "video"),
        ({"type": "server_tool_call", "id": "s", "name": "search", "args": {}}, "server_tool_call"),
        ({"type": "non_standard", "value": {}}, "non_standard"),
        ({"type": "text-plain", "url": "https://example.com/a.txt?token=abc"}, "text-plain without text"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_llama_server_cannot_take_is_refused_by_name(block: dict[str, Any], named: str) -> None:
    for message in (HumanMessage([block]), AIMessage([block])):
        with pytest.raises(UnsupportedFeatureError, match=named) as caught:
            one(message)
        assert caught.value.hint
        assert "token=abc" not in str(caught.value), "an address may hold a secret"


def test_results_of_tools_that_stand_in_a_users_turn_are_turns_of_their_own() -> None:
    """As Anthropic has them: several in one message, with text around them, which keeps its place."""
    message = HumanMessage(
        [
            {
                "type": "tool_result",
                "tool_use_id": "c1",
                "content": [{"type": "text", "text": "21 C"}],
                "is_error": False,
            },
            {"type": "tool_result", "tool_use_id": "c2", "content": "no such city", "is_error": True},
            {"type": "tool_result", "tool_use_id": "c3"},
            {"type": "text", "text": "And in Rome?", "cache_control": {"type": "ephemeral"}},
        ],
        name="ann",
    )
    assert to_core_messages([message]) == (
        Message("tool", "21 C", tool_call_id="c1"),
        Message("tool", "Error: no such city", tool_call_id="c2"),
        Message("tool", "", tool_call_id="c3"),
        Message("user", "And in Rome?", name="ann"),
    )
    last = HumanMessage(["Look:", {"type": "tool_result", "tool_use_id": "c1", "content": "21 C"}])
    assert to_core_messages([last]) == (Message("user", "Look:"), Message("tool", "21 C", tool_call_id="c1"))


def test_a_result_of_a_tool_in_another_place_is_refused_with_the_right_one() -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": "3"}
    for message in (AIMessage([result]), SystemMessage([result])):
        with pytest.raises(UnsupportedFeatureError, match="tool_result") as caught:
            one(message)
        assert "ToolMessage" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "empty"),
        ([RemoveMessage(id="1")], "RemoveMessage"),
        ([ChatMessage("x", role="critic")], "critic"),
    ],
    ids=["empty", "remove", "role"],
)
def test_what_a_model_cannot_be_told_is_refused(messages: list[BaseMessage], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        to_core_messages(messages)
    assert caught.value.hint


def test_a_misspelt_role_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(LocalLlamaError, match="Did you mean 'assistant'"):
        one(ChatMessage("x", role="asistant"))


CALL = {"name": "weather", "args": {"city": "Köln"}, "id": "c1", "type": "tool_call"}
CORE_CALL = ToolCall("c1", "weather", '{"city": "Köln"}')


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("", tool_calls=[CALL]),
        AIMessage(content_blocks=[CALL]),
        AIMessage([CALL]),
        AIMessage([{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Köln"}}]),
        AIMessage([{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Köln"}}], tool_calls=[CALL]),
        AIMessage(
            [{"type": "function_call", "id": "fc_9", "call_id": "c1", "name": "weather", "arguments": "{}"}],
            tool_calls=[CALL],
        ),
        AIMessage([{"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Köln"}'}]),
        AIMessageChunk(
            content=[{"type": "tool_call_chunk", "id": "c1", "name": "weather", "args": '{"city": "K', "index": 0}],
            tool_call_chunks=[{"name": "weather", "args": '{"city": "Köln"}', "id": "c1", "index": 0}],
        ),
    ],
    ids=[
        "field",
        "v1",
        "content-alone",
        "anthropic-alone",
        "anthropic",
        "openai-responses",
        "openai-responses-alone",
        "chunk",
    ],
)
def test_a_tool_call_is_sent_once_wherever_it_stands(message: AIMessage) -> None:
    assert one(message) == Message("assistant", "", tool_calls=(CORE_CALL,))


def test_a_malformed_call_keeps_what_the_model_wrote() -> None:
    message = AIMessage(
        "", invalid_tool_calls=[{"name": "weather", "args": '{"city": ', "id": "c1", "error": None}], tool_calls=[]
    )
    assert one(message).tool_calls == (ToolCall("c1", "weather", '{"city": '),)


@pytest.mark.parametrize("value", [object(), float("nan")], ids=["object", "nan"])
def test_arguments_that_are_not_json_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"'weather'.*not JSON"):
        one(AIMessage("", tool_calls=[{**CALL, "args": {"when": value}}]))


def test_calls_without_an_id_get_one() -> None:
    message = AIMessage("", tool_calls=[{**CALL, "id": None}, {**CALL, "id": None}])
    ids = [call.id for call in one(message).tool_calls]
    assert all(ids)
    assert len(set(ids)) == 2


def test_the_function_call_of_2023_and_its_answer_belong_together() -> None:
    call = AIMessage("", additional_kwargs={"function_call": {"name": "add", "arguments": '{"a": 1}'}})
    asked, answered = to_core_messages([call, FunctionMessage("2", name="add")])
    assert asked.tool_calls == (ToolCall("call_add", "add", '{"a": 1}'),)
    assert answered.tool_call_id == "call_add"


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("4", additional_kwargs={"reasoning_content": "2+2"}),
        AIMessage([{"type": "reasoning", "reasoning": "2+2"}, {"type": "text", "text": "4"}]),
        AIMessage([{"type": "thinking", "thinking": "2+2", "signature": "x"}, {"type": "text", "text": "4"}]),
        AIMessage(
            [{"type": "reasoning", "reasoning": "2+2"}, {"type": "text", "text": "4"}],
            additional_kwargs={"reasoning_content": "2+2"},
        ),
        AIMessage([{"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "2+2"}]}, "4"]),
        AIMessage([{"type": "redacted_thinking", "data": "?"}, {"type": "thinking", "thinking": "2+2"}, "4"]),
    ],
    ids=["v0", "v1", "anthropic", "both", "openai-responses", "redacted"],
)
def test_thinking_goes_back_apart_from_the_answer(message: AIMessage) -> None:
    assert one(message) == Message("assistant", "4", reasoning="2+2")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("not found", "Error: not found"),
        ("Error: not found", "Error: not found"),
        ("", "Error:"),
        ([{"type": "text", "text": "not found"}], "Error: not found"),
        ([], "Error:"),
        (
            [{"type": "image", "base64": PNG, "mime_type": "image/png"}],
            (TextPart("Error:"), ImagePart(PNG, "image/png")),
        ),
    ],
    ids=["text", "said-already", "empty", "block", "no-block", "image"],
)
def test_a_failed_tool_says_so(content: Any, expected: Any) -> None:
    assert one(ToolMessage(content, tool_call_id="c", status="error")).content == expected


def test_the_messages_of_the_caller_are_left_alone() -> None:
    message = AIMessage([{"type": "reasoning", "reasoning": "r"}, {"type": "text", "text": "t"}], tool_calls=[CALL])
    before = message.model_copy(deep=True)
    one(message)
    assert message == before
