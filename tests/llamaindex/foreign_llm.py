"""An LLM that has nothing to do with localllama, to see that the contract is LlamaIndex's and not ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata, MessageRole
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM

_KNOWN_ARGUMENTS = {"stop", "formatted"}
_TURNS = 20  # of the event loop, as if there were a network


class ForeignLLM(LLM):
    """Says the same few words to everything, and counts words as tokens."""

    words: tuple[str, ...] = ("Hello", " to", " you", " all")

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=2048, num_output=24, is_chat_model=True, model_name="foreign")

    def _texts(self, prompt: str, arguments: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
        """Each step of a stream: what is new, all so far, and `raw`."""
        if unknown := arguments.keys() - _KNOWN_ARGUMENTS:
            raise ValueError(f"unknown arguments: {', '.join(sorted(unknown))}")
        n_prompt, n_words = len(prompt.split()), len(self.words)
        usage = {"prompt_tokens": n_prompt, "completion_tokens": n_words, "total_tokens": n_prompt + n_words}
        return [(word, "".join(self.words[: place + 1]), {"usage": usage}) for place, word in enumerate(self.words)]

    def _chat_responses(self, messages: Sequence[ChatMessage], arguments: dict[str, Any]) -> list[ChatResponse]:
        return [
            ChatResponse(message=ChatMessage(text, role=MessageRole.ASSISTANT), delta=new, raw=raw)
            for new, text, raw in self._texts(" ".join(str(message.content) for message in messages), arguments)
        ]

    def _responses(self, prompt: str, arguments: dict[str, Any]) -> list[CompletionResponse]:
        return [CompletionResponse(text=text, delta=new, raw=raw) for new, text, raw in self._texts(prompt, arguments)]

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._chat_responses(messages, kwargs)[-1]

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        return self._chat_responses(messages, kwargs)[-1]

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Generator[ChatResponse, None, None]:
        responses = self._chat_responses(messages, kwargs)
        return (response for response in responses)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncGenerator[ChatResponse, None]:
        return _awaited(self._chat_responses(messages, kwargs))

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self._responses(prompt, kwargs)[-1]

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self._responses(prompt, kwargs)[-1]

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        responses = self._responses(prompt, kwargs)
        return (response for response in responses)

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        return _awaited(self._responses(prompt, kwargs))


async def _awaited(responses: Sequence[Any]) -> AsyncGenerator[Any, None]:
    for response in responses:
        await asyncio.sleep(0)
        yield response
