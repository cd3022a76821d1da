"""Answers of a fixed form as raw completions: where the chat template keeps llama.cpp's own grammar from the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from localllama import (
    AnswerParseError,
    AsyncLocalLlamaClient,
    ChatChunk,
    ChatRequest,
    ImagePart,
    LocalLlamaClient,
    LocalLlamaWarning,
    Message,
    SamplingSettings,
    ServerSettings,
    TextPart,
    ToolSpec,
)
from support.schema_cases import AWKWARD_NAMES
from support.scripted_server import ScriptedServer

MakeSettings = Callable[..., ServerSettings]

CHANNELS = (
    "{%- for message in messages -%}<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>{%- endfor -%}"
    "{#- <|channel|>analysis -#}{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"
)
"""llama.cpp knows this family by its `<|channel|>`; a model that writes no channels escapes the grammar of its parser."""
PARAMETERS = {
    "type": "object",
    "properties": {
        "city name": {"enum": ["New York", 'a "b"', "日 本"]},
        "n": {"type": "integer", "minimum": -5, "maximum": 50},
    },
    "required": ["city name"],
    "additionalProperties": False,
}

LOST = {"error": {"code": 500, "message": "The model produced output that does not match the expected peg-native format", "type": "server_error"}}  # fmt: skip
ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
ASK = ChatRequest((Message("user", "1?"),), tools=(ADD,))


def words(*texts: str) -> list[dict[str, Any]]:
    return [{"content": text} for text in texts]


def test_names_and_constants_with_blanks_and_quotes_hold(make_settings: MakeSettings, tmp_path: Path) -> None:
    # A llama.cpp with llguidance writes the byte 0xE2 for the blank, where /completion is given the schema itself.
    template = tmp_path / "channels.jinja"
    template.write_text(CHANNELS)
    tools = tuple(ToolSpec(name, "Does it.", PARAMETERS) for name in AWKWARD_NAMES)
    sampling = SamplingSettings(max_tokens=400, temperature=1.0, extra_body={"logit_bias": [[0, False], [1, False]]})
    with LocalLlamaClient(make_settings(chat_template_file=str(template)), sampling=sampling) as client:
        for seed, name in enumerate(AWKWARD_NAMES):
            request = ChatRequest((Message("user", f"Seed {seed}."),), tools=tools, tool_choice=name)
            (call,) = client.chat(request, sampling=sampling.merged({"seed": seed})).tool_calls
            assert call.name == name
            jsonschema.validate(json.loads(call.arguments), PARAMETERS)
        request = ChatRequest((Message("user", "Any."),), tools=tools, tool_choice="required", parallel_tool_calls=True)
        assert {call.name for call in client.chat(request).tool_calls} <= set(AWKWARD_NAMES)


@pytest.mark.parametrize("value", ["New York", 'a "b" \\', "日 本"])
def test_a_raw_completion_has_the_form_of_its_schema(make_settings: MakeSettings, value: str) -> None:
    schema = {"type": "object", "properties": {"is on": {"const": value}}, "required": ["is on"]}
    with LocalLlamaClient(make_settings()) as client:
        result = client.complete("Where? ", sampling=SamplingSettings(json_schema=schema, max_tokens=100))
    assert json.loads(result.text) == {"is on": value}


# -- a stream whose rest llama.cpp's parser refused -------------------------------------------------------------------


def texts(chunks: list[ChatChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_words_that_were_shown_go_on_raw(script: ScriptedServer, client: LocalLlamaClient) -> None:
    script.answers = [
        [*words("Let me ", "add. "), LOST],
        words("Now", ': <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'),
    ]
    with client.stream_chat(ASK) as stream:
        chunks = list(stream)
        result = stream.result()
    assert texts(chunks) == result.text == "Let me add. Now: "
    assert [(call.name, call.arguments) for call in result.tool_calls] == [("add", '{"a": 1}')]
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["tool_calls"]
    assert script.paths == ["/v1/chat/completions", "/completion"]
    body = script.requests[-1]
    assert body["prompt"].endswith("Let me add. ")
    assert body["n_predict"] == 500 - len("Let me add. ")  # a byte is a token there


async def test_words_that_were_shown_go_on_raw_in_async_code_too(script: ScriptedServer) -> None:
    script.answers = [[*words("Let me see"), LOST], words(", <tool_call>{broken")]
    async with AsyncLocalLlamaClient(ServerSettings(base_url=script.url)) as client:
        stream = client.stream_chat(ASK)
        chunks = [chunk async for chunk in stream]
    assert texts(chunks) == "Let me see, <tool_call>{broken"
    assert "n_predict" not in script.requests[-1]


def test_without_tools_a_warning_says_so(script: ScriptedServer, client: LocalLlamaClient) -> None:
    script.answers = [[*words("Well"), LOST], words(" then.")]
    with pytest.warns(LocalLlamaWarning, match="as the model writes it"):
        assert texts(list(client.stream_chat(ChatRequest(ASK.messages)))) == "Well then."


@pytest.mark.parametrize(
    "came",
    [
        [{"reasoning_content": "Hm."}, *words("Let me add. ")],
        [
            *words("Let me add. "),
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "add", "arguments": "{"}}]},
        ],
    ],
)
def test_where_more_than_words_was_shown_the_error_has_all_of_it(
    script: ScriptedServer, client: LocalLlamaClient, came: list[dict[str, Any]]
) -> None:
    script.answers = [[*came, *words('\n{"name": "ad'), LOST]]
    with client.stream_chat(ASK) as stream, pytest.raises(AnswerParseError) as caught:
        list(stream)
    partial = caught.value.partial
    assert partial is not None
    # The beginning of what may be a call was held back until more would come.
    assert partial.text == 'Let me add. \n{"name": "ad'
    assert partial.finish_reason is None
    assert [call.name for call in partial.tool_calls] == ["add"] * ("tool_calls" in came[-1])
    assert script.paths == ["/v1/chat/completions"]


def test_an_image_is_not_lost_to_a_raw_completion(script: ScriptedServer, client: LocalLlamaClient) -> None:
    # A raw prompt has no place for it; without it the model would answer about nothing.
    image = ImagePart(data="aGk=", mime_type="image/png")
    seen = ChatRequest((Message("user", (TextPart("What is it?"), image)),), tools=(ADD,))
    for sends in (client.chat, lambda request: list(client.stream_chat(request))):
        script.answers = [[*words("It is "), LOST]]
        with pytest.raises(AnswerParseError) as caught:
            sends(seen)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "It is "
    assert set(script.paths) == {"/v1/chat/completions"}
