"""What comes back: thinking, tool calls, usage, probabilities, in whole answers and in streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import FunctionTool

from llamaindex_localllama import LocalLlama
from localllama import ConfigurationError, ContextOverflowError
from support.scripted_server import TIMINGS, USAGE, ScriptedServer

QUESTION = [ChatMessage("2+2?")]

THINKING_TEMPLATE = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% else %}<think>
{% endif %}{% endif %}"""
# The micro model's words are senseless, so a grammar gives them: it thinks, then answers.
THOUGHT = 'root ::= "two and two\\n</think>\\n\\nfour"'


@pytest.fixture
def thinking_llm(micro_model: Path) -> Iterator[LocalLlama]:
    with LocalLlama(model=str(micro_model), n_ctx=512, max_tokens=64, chat_template=THINKING_TEMPLATE) as llm:
        yield llm


def tool_call_deltas(*calls: tuple[str, str, list[str]]) -> list[dict[str, object]]:
    """The deltas of `(id, name, pieces of the arguments)`, as llama-server streams them."""
    deltas: list[dict[str, object]] = []
    for index, (call_id, name, pieces) in enumerate(calls):
        head = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [head]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces]
    return deltas


class TestThinking:
    def test_it_is_a_block_of_its_own_and_never_in_the_text(self, thinking_llm: LocalLlama) -> None:
        response = thinking_llm.chat(QUESTION, grammar=THOUGHT)
        thinking, text = response.message.blocks
        assert isinstance(thinking, ThinkingBlock)
        assert thinking.content is not None
        assert thinking.content.strip() == "two and two"
        assert text == TextBlock(text="four")
        assert response.message.content == "four"

    def test_a_stream_gives_it_piece_by_piece(self, thinking_llm: LocalLlama) -> None:
        responses = list(thinking_llm.stream_chat(QUESTION, grammar=THOUGHT))
        thinking = "".join(response.additional_kwargs.get("thinking_delta", "") for response in responses)
        last = responses[-1].message
        assert isinstance(last.blocks[0], ThinkingBlock)
        assert thinking == last.blocks[0].content
        assert thinking.strip() == "two and two"
        assert "".join(response.delta or "" for response in responses) == last.content == "four"
        assert len([response for response in responses if response.additional_kwargs]) > 3, "not all at once"

    def test_a_completion_keeps_it_beside_the_text(self, thinking_llm: LocalLlama) -> None:
        response = thinking_llm.complete("2+2?", grammar=THOUGHT)
        assert response.text == "four"
        assert response.additional_kwargs["thinking"].strip() == "two and two"
        last = list(thinking_llm.stream_complete("2+2?", grammar=THOUGHT))[-1]
        assert last.additional_kwargs["thinking"] == response.additional_kwargs["thinking"]

    def test_the_switch_of_one_call_and_of_the_object(self, thinking_llm: LocalLlama) -> None:
        answer = 'root ::= "four"'
        assert thinking_llm.chat(QUESTION, grammar=answer, reasoning="off").message.content == "four"
        quiet = thinking_llm.model_copy(update={"reasoning": "off"})
        assert quiet.chat(QUESTION, grammar=answer).message.content == "four"
        assert quiet._client.server_pid == thinking_llm._client.server_pid, "one server for both"
        loud = quiet.chat(QUESTION, grammar=THOUGHT, reasoning="on").message
        assert isinstance(loud.blocks[0], ThinkingBlock)

    def test_it_goes_back_into_the_history(self, thinking_llm: LocalLlama, script: ScriptedServer) -> None:
        answer = thinking_llm.chat(QUESTION, grammar=THOUGHT).message
        with LocalLlama(base_url=script.url) as llm:
            llm.chat([*QUESTION, answer, ChatMessage("and 3+3?")])
        sent = script.requests[-1]["messages"][1]
        assert (sent["reasoning_content"].strip(), sent["content"]) == ("two and two", "four")


class TestRaw:
    def test_usage_and_timings_are_plain_dicts(self, scripted_llm: LocalLlama) -> None:
        responses: list[ChatResponse | CompletionResponse] = [
            scripted_llm.chat(QUESTION),
            scripted_llm.complete("2+2?"),
            list(scripted_llm.stream_chat(QUESTION))[-1],
        ]
        for response in responses:
            assert response.raw is not None
            assert response.raw["usage"] == USAGE
            assert response.raw["timings"].items() >= TIMINGS.items()
            assert (response.raw["model"], response.raw["finish_reason"]) == ("scripted", "stop")

    def test_logprobs_of_each_token_the_chosen_one_first(self, micro_llm: LocalLlama) -> None:
        asked = {"logprobs": True, "top_logprobs": 3, "max_tokens": 4}
        whole = micro_llm.chat(QUESTION, **asked)
        streamed = list(micro_llm.stream_chat(QUESTION, **asked))
        completed = micro_llm.complete("2+2?", **asked)
        for response in (whole, streamed[-1], completed):
            assert response.logprobs is not None
            assert len(response.logprobs) == 4
            assert all(3 <= len(alternatives) <= 4 for alternatives in response.logprobs)
        assert whole.logprobs is not None
        assert whole.message.content == "".join(alternatives[0].token for alternatives in whole.logprobs)
        assert [len(response.logprobs or ()) for response in streamed][:4] == [1, 2, 3, 4]


class TestTools:
    CALLS = tool_call_deltas(("c1", "add", ['{"a": 1', ', "b": 2}']), ("c2", "add", ['{"a": 1, "b": 2}']))

    @pytest.fixture
    def tools(self) -> list[FunctionTool]:
        def add(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        return [FunctionTool.from_defaults(add)]

    @pytest.fixture(autouse=True)
    def calling(self, script: ScriptedServer) -> None:
        script.deltas = [{"reasoning_content": "hm"}, {"content": "Well"}, *self.CALLS]
        script.finish_reason = "tool_calls"

    @pytest.mark.parametrize(
        ("arguments", "choice"),
        [
            ({"tool_required": True, "tool_choice": None}, "required"),
            ({"tool_choice": None}, "auto"),
            ({"tool_choice": "add"}, "add"),
            ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, "add"),
        ],
    )
    def test_what_the_core_is_asked(
        self, scripted_llm: LocalLlama, tools: list[FunctionTool], arguments: dict[str, Any], choice: str
    ) -> None:
        history = [ChatMessage("You add.", role="system")]
        prepared = scripted_llm._prepare_chat_with_tools(tools, "1+2?", chat_history=history, **arguments)
        request, _ = scripted_llm._call(prepared.pop("messages"), prepared)
        assert [message.role for message in request.messages] == ["system", "user"]
        assert [tool.name for tool in request.tools] == ["add"]
        assert "Add two numbers." in request.tools[0].description
        assert set(request.tools[0].parameters["properties"]) == {"a", "b"}
        assert (request.tool_choice, request.parallel_tool_calls) == (choice, False)
        assert len(history) == 1, "the caller's list is left alone"

    def test_no_tools_are_not_sent(self, scripted_llm: LocalLlama, script: ScriptedServer) -> None:
        scripted_llm.chat_with_tools([], "1+2?", tool_choice=None)
        assert not {"tools", "tool_choice"} & set(script.requests[-1])

    def test_the_last_chunk_carries_every_block(self, scripted_llm: LocalLlama, tools: list[FunctionTool]) -> None:
        for last in (
            scripted_llm.chat_with_tools(tools, "1+2?", allow_parallel_tool_calls=True),
            list(scripted_llm.stream_chat_with_tools(tools, "1+2?", allow_parallel_tool_calls=True))[-1],
        ):
            assert last.message.blocks == [
                ThinkingBlock(content="hm"),
                TextBlock(text="Well"),
                ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs='{"a": 1, "b": 2}'),
                ToolCallBlock(tool_call_id="c2", tool_name="add", tool_kwargs='{"a": 1, "b": 2}'),
            ]
            selections = scripted_llm.get_tool_calls_from_response(last)
            assert [(one.tool_id, one.tool_kwargs) for one in selections] == [
                ("c1", {"a": 1, "b": 2}),
                ("c2", {"a": 1, "b": 2}),
            ]

    def test_every_chunk_can_be_asked_for_calls(self, scripted_llm: LocalLlama, tools: list[FunctionTool]) -> None:
        for response in scripted_llm.stream_chat_with_tools(tools, "1+2?"):
            scripted_llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)

    def test_only_the_first_call_where_one_is_allowed(
        self, scripted_llm: LocalLlama, tools: list[FunctionTool]
    ) -> None:
        message = scripted_llm.chat_with_tools(tools, "1+2?").message
        assert [block.tool_call_id for block in message.blocks if isinstance(block, ToolCallBlock)] == ["c1"]
        assert [call["id"] for call in message.additional_kwargs["tool_calls"]] == ["c1"]

    def test_no_call_is_a_value_error_with_the_answer(self, scripted_llm: LocalLlama, script: ScriptedServer) -> None:
        script.deltas = [{"content": "I will not."}]
        response = scripted_llm.chat(QUESTION)
        with pytest.raises(ValueError, match="I will not"):
            scripted_llm.get_tool_calls_from_response(response)
        assert scripted_llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []

    def test_the_answer_goes_back_with_its_results(
        self, scripted_llm: LocalLlama, script: ScriptedServer, tools: list[FunctionTool]
    ) -> None:
        answer = scripted_llm.chat_with_tools(tools, "1+2?", allow_parallel_tool_calls=True).message
        results = [ChatMessage("3", role="tool", additional_kwargs={"tool_call_id": name}) for name in ("c1", "c2")]
        scripted_llm.chat_with_tools(tools, chat_history=[ChatMessage("1+2?"), answer, *results])
        sent = script.requests[-1]["messages"]
        assert [call["id"] for call in sent[1]["tool_calls"]] == ["c1", "c2"]
        assert [message["tool_call_id"] for message in sent[2:]] == ["c1", "c2"]


class TestRequests:
    def test_arguments_of_the_object_the_defaults_and_the_call(self, script: ScriptedServer) -> None:
        with LocalLlama(
            base_url=script.url, temperature=0.1, top_k=5, additional_kwargs={"top_k": 6, "min_p": 0.2, "seed": 3}
        ) as llm:
            llm.chat(QUESTION, seed=4, stop="x", temperature=None)
        sent = script.requests[-1]
        assert (sent["temperature"], sent["top_k"], sent["min_p"], sent["seed"]) == (0.1, 6, 0.2, 4)
        assert sent["stop"] == ["x"]

    def test_an_assigned_option_counts_from_then_on(self, scripted_llm: LocalLlama, script: ScriptedServer) -> None:
        scripted_llm.temperature = 0.7
        scripted_llm.complete("x")
        assert script.requests[-1]["temperature"] == 0.7

    def test_a_formatted_prompt_goes_past_the_chat_template(self, micro_llm: LocalLlama) -> None:
        raw = micro_llm.complete("<|im_start|>", formatted=True)
        chat = micro_llm.complete("<|im_start|>")
        assert raw.raw is not None
        assert chat.raw is not None
        assert raw.raw["usage"]["prompt_tokens"] < 4 < chat.raw["usage"]["prompt_tokens"]
        assert raw.text
        assert list(micro_llm.stream_complete("Once", formatted=True))[-1].text

        async def both() -> list[CompletionResponse]:
            stream = await micro_llm.astream_complete("<|im_start|>", formatted=True)
            responses = [response async for response in stream]
            return [await micro_llm.acomplete("<|im_start|>", formatted=True), responses[-1]]

        for response in asyncio.run(both()):
            assert response.text
            assert response.raw is not None
            assert response.raw["usage"]["prompt_tokens"] == raw.raw["usage"]["prompt_tokens"]

    @pytest.mark.parametrize("name", ["complete", "stream_complete"])
    def test_a_formatted_prompt_takes_nothing_that_only_a_template_can_show(
        self, scripted_llm: LocalLlama, name: str
    ) -> None:
        with pytest.raises(ConfigurationError, match="response_format"):
            getattr(scripted_llm, name)("Once", formatted=True, response_format={"type": "json_object"})

    def test_a_system_prompt_is_added_where_llamaindex_adds_it(self, script: ScriptedServer) -> None:
        from llama_index.core import PromptTemplate

        with LocalLlama(base_url=script.url, system_prompt="Be brief.") as llm:
            llm.predict(PromptTemplate("Hi"))
        assert [message["role"] for message in script.requests[-1]["messages"]] == ["system", "user"]

    def test_errors_of_the_core_pass_through(self, micro_llm: LocalLlama) -> None:
        with pytest.raises(ConfigurationError):
            micro_llm.chat([])
        with pytest.raises(ContextOverflowError) as caught:
            micro_llm.chat([ChatMessage("x" * 5000)])
        assert caught.value.n_ctx == 1024
        with pytest.raises(ContextOverflowError):
            asyncio.run(micro_llm.achat([ChatMessage("x" * 5000)]))
