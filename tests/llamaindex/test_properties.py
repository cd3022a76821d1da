"""Any answer through LlamaIndex's messages and back into the next prompt, and any history through the mapper: nothing is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock

from llamaindex_localllama._messages import to_messages
from llamaindex_localllama._responses import StreamedAnswer, to_chat_response
from localllama import ChatResult, Usage
from support.made_answers import CALLS, TEXTS, assert_same, in_pieces, made_calls


@given(TEXTS | st.just(""), TEXTS | st.just(""), CALLS)
def test_an_answer_goes_into_the_next_prompt_as_it_came(
    text: str, reasoning: str, calls: list[tuple[str, dict[str, object]]]
) -> None:
    result = ChatResult(text=text, reasoning=reasoning, tool_calls=made_calls(calls))
    message = to_chat_response(result).message
    (back,) = to_messages([message])
    assert_same(back, text=text, reasoning=reasoning, calls=result.tool_calls)
    (stored,) = to_messages([ChatMessage.model_validate_json(message.model_dump_json())])
    assert_same(stored, text=text, reasoning=reasoning, calls=result.tool_calls)


@given(st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=3), CALLS, st.integers(1, 5), st.integers(0, 99))
def test_a_streamed_answer_adds_up_to_the_whole_one(
    texts: list[str], thoughts: list[str], calls: list[tuple[str, dict[str, object]]], size: int, n_tokens: int
) -> None:
    made = made_calls(calls)
    usage = Usage(7, n_tokens, 7 + n_tokens, cached_tokens=3)
    chunks = in_pieces(texts, thoughts, made, size=size, usage=usage)
    answer = StreamedAnswer()
    responses = [answer.chat_response(chunk) for chunk in chunks]
    (back,) = to_messages([responses[-1].message])
    assert_same(back, text="".join(texts), reasoning="".join(thoughts), calls=made)
    assert "".join(response.delta or "" for response in responses) == "".join(texts)
    raw = responses[-1].raw
    assert raw is not None
    assert (raw["usage"]["prompt_tokens"], raw["usage"]["completion_tokens"]) == (7, n_tokens)


@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant"]), st.lists(TEXTS, min_size=1, max_size=3)),
        min_size=1,
        max_size=4,
    )
)
def test_no_turn_and_no_word_is_lost(turns: list[tuple[str, list[str]]]) -> None:
    messages = [
        ChatMessage(role=MessageRole(role), blocks=[TextBlock(text=text) for text in texts]) for role, texts in turns
    ]
    made = to_messages(messages)
    assert [one.role for one in made] == [role for role, _ in turns]
    assert [one.text for one in made] == ["\n".join(texts) for _, texts in turns]
