"""What LlamaIndex expects of any chat LLM, as tests: subclass `LLMContract` and give it an `llm` fixture.

    from contract import LLMContract

    class TestMyLLM(LLMContract):
        @pytest.fixture
        def llm(self) -> LLM:
            return MyLLM(model="tiny", max_tokens=24)

This file needs pytest and llama-index-core and nothing else of this repository, so the LLM of any other package can be held
to it: copy the file, or put its folder on pytest's `pythonpath`. Where one test asks for more than an LLM promises, mark it
in the subclass, with the reason:

        @pytest.mark.xfail(reason="the service counts no tokens in streams")
        @pytest.mark.parametrize("name", CALLS)
        def test_the_last_response_says_all(self, llm: LLM, name: str) -> None:
            super().test_the_last_response_says_all(llm, name)

What the LLM behind the fixture must do:

- answer, in more than one piece where it is streamed; the words need not make sense, and it ends by itself or at a limit;
- report `raw["usage"]` with the fields of OpenAI's API on the last response, as a plain dict in a plain dict;
- answer the same object from several threads and event loops, and from copies and pickles of it, whenever they are made;
- take "stop", and refuse a call argument that it does not know with a ValueError that names it;
- know its context window, and keep a part of it free for the prompt.

An LLM whose answers are recorded is as good as one with a server behind it. Events and token counts are checked as well, so
the methods must carry LlamaIndex's own callbacks (`llm_chat_callback`, `llm_completion_callback`).
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from llama_index.core import PromptTemplate, instrumentation
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms.llm import LLM

MESSAGES = [ChatMessage("Be brief.", role="system"), ChatMessage("Say hello.", role="user")]
PROMPT = "Say hello."

Response = ChatResponse | CompletionResponse
Call = Callable[[LLM], list[Response]]
"""Makes one call and returns its responses: one, or those of the stream."""


def _in_new_loop(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


async def _collected(stream: Any) -> list[Response]:
    return [response async for response in await stream]


CALLS: dict[str, Call] = {
    "chat": lambda llm: [llm.chat(MESSAGES)],
    "achat": lambda llm: [_in_new_loop(llm.achat(MESSAGES))],
    "stream_chat": lambda llm: list(llm.stream_chat(MESSAGES)),
    "astream_chat": lambda llm: _in_new_loop(_collected(llm.astream_chat(MESSAGES))),
    "complete": lambda llm: [llm.complete(PROMPT)],
    "acomplete": lambda llm: [_in_new_loop(llm.acomplete(PROMPT))],
    "stream_complete": lambda llm: list(llm.stream_complete(PROMPT)),
    "astream_complete": lambda llm: _in_new_loop(_collected(llm.astream_complete(PROMPT))),
}
STREAMS = [name for name in CALLS if "stream" in name]


class RecordedEvents(BaseEventHandler):
    """Keeps every instrumentation event."""

    events: list[BaseEvent] = []  # noqa: RUF012  # a pydantic field

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.events.append(event)

    def counts(self) -> Counter[str]:
        return Counter(type(event).__name__ for event in self.events)


@contextmanager
def recording_events() -> Iterator[RecordedEvents]:
    """All events of LlamaIndex's root dispatcher, while it is entered."""
    dispatcher = instrumentation.get_dispatcher()
    handler = RecordedEvents()
    dispatcher.add_event_handler(handler)
    try:
        yield handler
    finally:
        dispatcher.event_handlers.remove(handler)


class LLMContract:
    """Inherit it; see the module's text."""

    @pytest.fixture
    def llm(self) -> LLM:
        raise NotImplementedError("the subclass makes the LLM that is tested")

    @pytest.fixture
    def recorded_events(self) -> Iterator[RecordedEvents]:
        with recording_events() as events:
            yield events

    # -- answers ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", CALLS)
    def test_the_last_response_says_all(self, llm: LLM, name: str) -> None:
        last = CALLS[name](llm)[-1]
        text = last.text if isinstance(last, CompletionResponse) else last.message.content
        assert text
        if isinstance(last, ChatResponse):
            assert last.message.role is MessageRole.ASSISTANT
        assert type(last.raw) is dict
        usage = last.raw["usage"]
        assert usage["prompt_tokens"] > 0 < usage["completion_tokens"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    @pytest.mark.parametrize("name", STREAMS)
    def test_streamed_responses_add_up(self, llm: LLM, name: str) -> None:
        responses = CALLS[name](llm)
        text = ""
        for response in responses:
            assert isinstance(response.delta, str)
            text += response.delta
            shown = response.text if isinstance(response, CompletionResponse) else response.message.content
            assert shown == text
        assert len(responses) > 1

    def test_async_streams_are_coroutines_that_return_async_generators(self, llm: LLM) -> None:
        async def kinds() -> list[bool]:
            found = []
            for coroutine in (llm.astream_chat(MESSAGES), llm.astream_complete(PROMPT)):
                assert inspect.iscoroutine(coroutine)
                stream = await coroutine
                found.append(isinstance(stream, AsyncGenerator))
                await stream.aclose()
            return found

        assert asyncio.run(kinds()) == [True, True]
        assert isinstance(llm.stream_chat(MESSAGES), Generator)
        assert isinstance(llm.stream_complete(PROMPT), Generator)

    def test_the_callers_messages_and_arguments_are_left_alone(self, llm: LLM) -> None:
        messages = [message.model_copy(deep=True) for message in MESSAGES]
        arguments: dict[str, Any] = {"stop": ["~~~"]}
        llm.chat(messages, **arguments)
        assert messages == MESSAGES
        assert arguments == {"stop": ["~~~"]}

    def test_predict_and_stream_go_through_chat(self, llm: LLM) -> None:
        prompt = PromptTemplate("Say {word}.")
        assert llm.predict(prompt, word="hello")
        assert "".join(llm.stream(prompt, word="hello"))
        assert asyncio.run(llm.apredict(prompt, word="hello"))

    # -- events -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", CALLS)
    def test_each_call_is_one_event_pair_and_one_token_count(
        self, llm: LLM, name: str, recorded_events: RecordedEvents
    ) -> None:
        counter = TokenCountingHandler(tokenizer=lambda text: [0] * 100_000)  # an estimate would be seen at once
        llm.callback_manager = CallbackManager([counter])
        last = CALLS[name](llm)[-1]
        kind = "Completion" if "complete" in name else "Chat"
        counts = recorded_events.counts()
        for event in ("Start", "End"):
            assert counts[f"LLM{kind}{event}Event"] == 1, counts
            assert counts[f"LLM{'Chat' if kind == 'Completion' else 'Completion'}{event}Event"] == 0, counts
        assert len(counter.llm_token_counts) == 1
        assert last.raw is not None
        assert counter.prompt_llm_token_count == last.raw["usage"]["prompt_tokens"]
        assert counter.completion_llm_token_count == last.raw["usage"]["completion_tokens"]

    @pytest.mark.parametrize("name", ["stream_chat", "stream_complete"])
    def test_a_closed_stream_tells_it_once(self, llm: LLM, name: str, recorded_events: RecordedEvents) -> None:
        stream = getattr(llm, name)(MESSAGES if name == "stream_chat" else PROMPT)
        next(stream)
        stream.close()
        assert recorded_events.counts()["ExceptionEvent"] == 1
        assert not any("End" in event for event in recorded_events.counts() if event.startswith("LLM"))

    # -- loops and threads ------------------------------------------------------------------------------------------

    def test_one_object_serves_loops_that_come_and_go(self, llm: LLM) -> None:
        for _ in range(3):
            assert asyncio.run(llm.achat(MESSAGES)).message.content
        results: list[str | None] = []
        thread = threading.Thread(target=lambda: results.append(asyncio.run(llm.achat(MESSAGES)).message.content))
        thread.start()
        assert asyncio.run(llm.achat(MESSAGES)).message.content
        thread.join()
        assert all(results)
        assert len(results) == 1

    def test_the_loop_goes_on_while_it_waits(self, llm: LLM) -> None:
        async def run() -> tuple[int, bool]:
            turns = 0
            task = asyncio.ensure_future(llm.achat(MESSAGES))
            while not task.done():
                turns += 1
                await asyncio.sleep(0)
            return turns, bool((await task).message.content)

        turns, has_content = asyncio.run(run())
        assert turns > 10
        assert has_content

    def test_many_at_once_wait_for_their_turn(self, llm: LLM) -> None:
        async def run() -> list[ChatResponse]:
            return await asyncio.gather(*(llm.achat(MESSAGES) for _ in range(12)))

        assert all(response.message.content for response in asyncio.run(run()))

    def test_a_stream_may_be_read_in_another_thread(self, llm: LLM) -> None:
        stream = llm.stream_chat(MESSAGES)
        responses: list[ChatResponse] = []
        thread = threading.Thread(target=lambda: responses.extend(stream))
        thread.start()
        thread.join()
        assert responses[-1].message.content

    # -- the object -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "duplicate",
        [copy.copy, copy.deepcopy, lambda llm: pickle.loads(pickle.dumps(llm)), lambda llm: llm.model_copy(deep=True)],
        ids=["copy", "deepcopy", "pickle", "model_copy"],
    )
    def test_copies_work_before_and_after_use(self, llm: LLM, duplicate: Callable[[LLM], LLM]) -> None:
        assert duplicate(llm).chat(MESSAGES).message.content
        assert llm.chat(MESSAGES).message.content
        twin = duplicate(llm)
        assert twin.chat(MESSAGES).message.content
        assert twin.to_dict() == llm.to_dict()

    def test_metadata_leaves_room_for_a_prompt(self, llm: LLM) -> None:
        metadata = llm.metadata
        assert metadata.is_chat_model
        assert 0 < metadata.num_output < metadata.context_window
        prompt = PromptTemplate("Context: {context_str}\nQuestion: {query_str}")
        assert PromptHelper.from_llm_metadata(metadata)._get_available_chunk_size(prompt, llm=llm) > 0

    def test_misspelt_call_arguments_are_refused(self, llm: LLM) -> None:
        for call in (llm.chat, llm.stream_chat):
            with pytest.raises(ValueError, match="temprature"):
                call(MESSAGES, temprature=0.5)
        for call in (llm.complete, llm.stream_complete):
            with pytest.raises(ValueError, match="temprature"):
                call(PROMPT, temprature=0.5)
