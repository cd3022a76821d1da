"""Every content block and role of LlamaIndex: what the core is sent for it, or by which name it is refused."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)

from llamaindex_localllama._messages import needs_reading, to_messages
from localllama import AudioPart, ImagePart, Message, TextPart, ToolCall, UnsupportedFeatureError

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PNG_TEXT = base64.b64encode(PNG).decode()
WAV = (
    b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00data"
)


def converted(*blocks: object, role: str = "user", **additional_kwargs: object) -> Message:
    message = ChatMessage(role=role, blocks=list(blocks), additional_kwargs=additional_kwargs)
    before = message.model_copy(deep=True)
    (result,) = to_messages([message])
    assert [str(block) for block in message.blocks] == [str(block) for block in before.blocks]
    assert message.additional_kwargs == before.additional_kwargs
    return result


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (MessageRole.SYSTEM, "system"),
        (MessageRole.DEVELOPER, "system"),
        (MessageRole.USER, "user"),
        (MessageRole.ASSISTANT, "assistant"),
        (MessageRole.CHATBOT, "assistant"),
        (MessageRole.MODEL, "assistant"),
        (MessageRole.TOOL, "tool"),
        (MessageRole.FUNCTION, "tool"),
    ],
)
def test_every_role(role: MessageRole, expected: str) -> None:
    (message,) = to_messages([ChatMessage(role=role, content="x")])
    assert (message.role, message.content) == (expected, "x")


def test_all_roles_are_in_the_table_above() -> None:
    assert len(to_messages([ChatMessage(role=role, content="x") for role in MessageRole])) == len(MessageRole)


def test_text_blocks_join_as_llamaindex_joins_them() -> None:
    message = ChatMessage(blocks=[TextBlock(text="a"), TextBlock(text="b")])
    assert to_messages([message])[0].content == message.content == "a\nb"


@pytest.mark.parametrize("text", ["", " ", "\u2028", "a\x00b", "😀"])
def test_text_is_sent_as_it_is(text: str) -> None:
    assert converted(TextBlock(text=text)).content == text


def test_a_message_without_blocks_is_empty() -> None:
    assert converted(role="assistant").content == ""


def test_image_of_bytes_path_and_data_url(tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(PNG)
    for block in (
        ImageBlock(image=PNG),
        ImageBlock(image=base64.b64encode(PNG)),
        ImageBlock(path=file),
        ImageBlock(url=f"data:image/png;base64,{PNG_TEXT}"),
    ):
        assert converted(TextBlock(text="look"), block).content == (TextPart("look"), ImagePart(PNG_TEXT, "image/png"))


def test_image_of_a_file_object_can_be_sent_twice() -> None:
    block = ImageBlock(image=io.BytesIO(PNG), image_mimetype="image/png")
    for _ in range(2):
        assert to_messages([ChatMessage(blocks=[block])])[0].content == (ImagePart(PNG_TEXT, "image/png"),)


def test_images_of_the_old_place_are_sent() -> None:
    from llama_index.core.schema import ImageDocument

    message = ChatMessage("look", additional_kwargs={"images": [ImageDocument(image=PNG_TEXT)]})
    assert to_messages([message])[0].content == (TextPart("look"), ImagePart(PNG_TEXT, "image/png"))


def test_audio_of_a_known_format() -> None:
    assert converted(AudioBlock(audio=WAV)).content == (AudioPart(base64.b64encode(WAV).decode(), "wav"),)


def test_audio_of_another_format_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFeatureError, match=r"AudioBlock.*'flac'"):
        converted(AudioBlock(audio=b"fLaC\x00\x00\x00\x22", format="flac"))


def test_video_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFeatureError, match="VideoBlock"):
        converted(VideoBlock(video=b"\x00\x00\x00\x18ftypmp42", video_mimetype="video/mp4"))


def test_document_of_text_is_sent_as_text(tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_text("# Grüße", encoding="utf-8")
    assert converted(DocumentBlock(data="naïve".encode())).content == "naïve"
    assert converted(DocumentBlock(path=file, title="Notes")).content == "Notes:\n# Grüße"
    assert converted(DocumentBlock(data=b'{"a": 1}', document_mimetype="application/json")).content == '{"a": 1}'


@pytest.mark.parametrize(
    "block",
    [
        DocumentBlock(data=b"%PDF-1.4 x", document_mimetype="application/pdf"),
        DocumentBlock(data=b"\xff\xfe\x00\x01"),
        DocumentBlock(data=b"a\x00b"),
    ],
)
def test_document_that_is_no_text_is_refused_by_name(block: DocumentBlock) -> None:
    with pytest.raises(UnsupportedFeatureError, match="DocumentBlock"):
        converted(block)


def test_cache_point_is_left_out_because_llama_cpp_caches_anyway() -> None:
    assert converted(TextBlock(text="a"), CachePoint(cache_control=CacheControl(type="ephemeral"))).content == "a"


def test_citable_and_citation_keep_their_source_and_content() -> None:
    citable = CitableBlock(title="Atlas", source="p. 4", content=[TextBlock(text="Oslo"), ImageBlock(image=PNG)])
    assert converted(citable).content == (
        TextPart("Atlas (p. 4):"),
        TextPart("Oslo"),
        ImagePart(PNG_TEXT, "image/png"),
    )
    citation = CitationBlock(
        title="Atlas", source="p. 4", cited_content=TextBlock(text="Oslo"), additional_location_info={}
    )
    assert converted(citation, role="assistant").content == "Atlas (p. 4):\nOslo"


def test_thinking_goes_back_as_reasoning_and_not_as_text() -> None:
    message = converted(ThinkingBlock(content="hm"), TextBlock(text="4"), role="assistant")
    assert (message.reasoning, message.content) == ("hm", "4")


@pytest.mark.parametrize("block", [ThinkingBlock(content="hm"), ToolCallBlock(tool_name="add")])
@pytest.mark.parametrize("role", ["user", "system", "tool"])
def test_what_only_a_model_says_is_refused_elsewhere(block: object, role: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=type(block).__name__):
        converted(block, role=role)


@pytest.mark.parametrize("arguments", [{"a": "ü"}, '{"a": "ü"}'])
def test_tool_call_with_arguments_as_dict_or_text(arguments: dict[str, str] | str) -> None:
    message = converted(
        ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs=arguments), TextBlock(text=""), role="assistant"
    )
    assert message.tool_calls == (ToolCall("c1", "add", '{"a": "ü"}'),)
    assert message.content == ""


def test_tool_calls_of_the_old_place_dict_or_object() -> None:
    @dataclass
    class Call:
        def model_dump(self) -> dict[str, object]:
            return {"id": "c2", "type": "function", "function": {"name": "sub", "arguments": "{}"}}

    as_dict = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    message = converted(TextBlock(text=""), role="assistant", tool_calls=[as_dict, Call()])
    assert message.tool_calls == (ToolCall("c1", "add", '{"a": 1}'), ToolCall("c2", "sub", "{}"))


@pytest.mark.parametrize("call", ["add", {"tool_name": "add"}, 7])
def test_tool_calls_of_an_unknown_form_are_refused(call: object) -> None:
    with pytest.raises(UnsupportedFeatureError, match="tool_calls"):
        converted(role="assistant", tool_calls=[call])


def test_blocks_win_over_the_old_place_so_that_no_call_is_sent_twice() -> None:
    old = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    message = converted(ToolCallBlock(tool_call_id="c1", tool_name="add"), role="assistant", tool_calls=[old])
    assert message.tool_calls == (ToolCall("c1", "add", "{}"),)


def test_results_are_linked_to_their_calls_even_where_nothing_has_an_id() -> None:
    history = [
        ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_name="add"), ToolCallBlock(tool_name="sub")]),
        ChatMessage("3", role="function", additional_kwargs={"name": "add"}),
        ChatMessage("1", role="tool"),
    ]
    assistant, first, second = to_messages(history)
    assert [call.id for call in assistant.tool_calls] == [first.tool_call_id, second.tool_call_id]
    assert len({call.id for call in assistant.tool_calls}) == 2
    assert first.name == "add"
    assert to_messages(history) == (assistant, first, second), "the same ids in each turn, or the prompt cache is lost"


def test_a_result_keeps_its_id_and_any_content() -> None:
    message = converted(TextBlock(text="a cat"), ImageBlock(image=PNG), role="tool", tool_call_id="c9")
    assert message.tool_call_id == "c9"
    assert message.content == (TextPart("a cat"), ImagePart(PNG_TEXT, "image/png"))


def test_only_blocks_that_may_name_a_file_are_read_in_a_thread(tmp_path: Path) -> None:
    assert not needs_reading([ChatMessage("a"), ChatMessage(role="assistant", blocks=[ThinkingBlock(content="b")])])
    assert needs_reading([ChatMessage("a"), ChatMessage(blocks=[ImageBlock(image=PNG)])])
