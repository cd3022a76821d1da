"""What an asynchronous client is asked beside generations: the same answers as from its synchronous twin."""

from __future__ import annotations

from collections.abc import Callable

from localllama import AsyncLocalLlamaClient, ChatRequest, LocalLlamaClient, Message, ServerSettings, ToolSpec
from support.scripted_server import ScriptedServer

MakeSettings = Callable[..., ServerSettings]

HELLO = ChatRequest((Message("system", "Be short."), Message("user", "Hello")))


async def test_every_question_has_the_answer_of_the_twin(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings()) as twin:
        async with AsyncLocalLlamaClient(make_settings()) as client:
            tokens = await client.tokenize("Hello there", add_special=True)
            assert tokens == twin.tokenize("Hello there", add_special=True)
            assert len(tokens) == len(await client.tokenize("Hello there")) + 1
            text = await client.detokenize(tokens[1:])
            assert text == twin.detokenize(tokens[1:])
            assert text.startswith("Hello")
            assert await client.count_tokens(HELLO) == twin.count_tokens(HELLO) > 0
            prompt = await client.render_prompt(HELLO)
            assert prompt == twin.render_prompt(HELLO)
            assert "Be short." in prompt
            assert await client.server_info() == twin.server_info()
            assert (await client.server_info()).n_ctx > 0


async def test_tokens_are_counted_where_the_server_is_too_old_to_count(script: ScriptedServer) -> None:
    script.answers = [{"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}]
    async with AsyncLocalLlamaClient(ServerSettings(base_url=script.url)) as client:
        count = await client.count_tokens(HELLO)
        assert script.paths == ["/v1/chat/completions/input_tokens"]
        assert count == len((await client.render_prompt(HELLO)).encode())  # a byte is a token there


async def test_tools_that_the_template_breaks_on_are_counted_in_our_own_words(script: ScriptedServer) -> None:
    broken = {"code": 400, "message": "While executing CallExpression: no such filter", "type": "invalid_request_error"}
    script.answers = [{"error": broken}, {"error": {"code": 404, "message": "", "type": "not_found_error"}}]
    tools = (ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}}),)
    async with AsyncLocalLlamaClient(ServerSettings(base_url=script.url)) as client:
        assert await client.count_tokens(ChatRequest(HELLO.messages, tools=tools)) > 0
    first, second = script.requests
    assert first["tools"]
    assert "tools" not in second
    assert "Adds." in str(second["messages"])
