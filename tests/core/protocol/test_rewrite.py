"""Each way to write a history differently: what it changes, and that it loses nothing."""

from __future__ import annotations

import json

import pytest

from localllama import ImagePart, Message, TextPart, ToolCall
from localllama._protocol.rewrite import AS_IS, Rewriting, apply_rewriting


def system(text: str) -> Message:
    return Message("system", text)


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def call(*ids: str, text: str = "") -> Message:
    return Message("assistant", text, tool_calls=tuple(ToolCall(i, f"tool_{i}", '{"x": 1}') for i in ids))


def result(call_id: str, text: str = "42") -> Message:
    return Message("tool", text, tool_call_id=call_id)


def rewritten(messages: list[Message], **steps: bool) -> list[Message]:
    return list(apply_rewriting(Rewriting(**steps), messages))


HISTORY = [system("s"), user("a"), call("one", text="so"), result("one"), assistant("b"), user("c")]


def test_as_it_is() -> None:
    assert apply_rewriting(AS_IS, HISTORY) == tuple(HISTORY)


def test_the_input_is_not_changed() -> None:
    before = list(HISTORY)
    rewritten(HISTORY, writes_tools_as_text=True, folds_system=True, merges_adjacent=True)
    assert before == HISTORY


def test_system_messages_come_to_the_front() -> None:
    messages = [user("a"), system("1"), assistant("b"), system("2"), user("c")]
    assert rewritten(messages, hoists_system=True) == [system("1\n\n2"), user("a"), assistant("b"), user("c")]
    assert rewritten([user("a")], hoists_system=True) == [user("a")]


def test_system_goes_into_the_first_user_turn() -> None:
    messages = [system("1"), assistant("b"), user("a"), system("2")]
    assert rewritten(messages, folds_system=True) == [assistant("b"), user("1\n\n2\n\na")]
    assert rewritten([system("1")], folds_system=True) == [user("1")]


def test_neighbours_of_one_role_become_one() -> None:
    messages = [user("a"), user("b"), assistant("c"), assistant("d"), user("e")]
    assert rewritten(messages, merges_adjacent=True) == [user("a\n\nb"), assistant("c\n\nd"), user("e")]


def test_merging_keeps_parts_calls_and_thinking() -> None:
    image = ImagePart("AAAA")
    merged = rewritten([Message("user", (TextPart("a"), image)), user("b")], merges_adjacent=True)
    assert merged == [Message("user", (TextPart("a"), image, TextPart("b")))]
    first = Message("assistant", "a", reasoning="r1")
    (one,) = rewritten([first, Message("assistant", "b", reasoning="r2", tool_calls=call("x").tool_calls)], merges_adjacent=True)  # fmt: skip
    assert (one.content, one.reasoning, one.tool_calls) == ("a\n\nb", "r1\n\nr2", call("x").tool_calls)


def test_results_of_tools_are_never_merged() -> None:
    messages = [call("1", "2"), result("1"), result("2")]
    assert rewritten(messages, merges_adjacent=True) == messages


def test_an_empty_neighbour_adds_no_blank_line() -> None:
    assert rewritten([user("a"), user("")], merges_adjacent=True) == [user("a")]


def test_a_user_turn_is_put_in_front() -> None:
    assert rewritten([system("s"), assistant("a")], opens_with_user=True) == [system("s"), user(""), assistant("a")]
    assert rewritten([system("s")], opens_with_user=True) == [system("s"), user("")]
    assert rewritten([user("a")], opens_with_user=True) == [user("a")]


def test_tools_as_text() -> None:
    assert rewritten(HISTORY, writes_tools_as_text=True) == [
        system("s"),
        user("a"),
        assistant(
            'so\n\n{"name": "tool_one", "arguments": {"x": 1}}',
        ),
        user("Result of tool_one:\n42"),
        assistant("b"),
        user("c"),
    ]


def test_tools_as_text_keep_what_is_odd() -> None:
    image = ImagePart("AAAA")
    messages = [
        Message("assistant", "", tool_calls=(ToolCall("1", "f", "{broken"), ToolCall("2", "f", '{"é": "\u2028"}'))),
        Message("tool", (TextPart("see"), image), tool_call_id="1"),
        Message("tool", "lost"),
    ]
    calls, with_image, lost = rewritten(messages, writes_tools_as_text=True)
    assert '"arguments": "{broken"' in calls.text
    assert '"arguments": {"é": "\u2028"}' in calls.text
    assert with_image == Message("user", (TextPart("Result of f (call 1):"), TextPart("see"), image))
    assert lost == user("Result of a tool:\nlost")


def test_ids_are_shown_only_where_names_are_not_enough() -> None:
    messages = [call("1", "2"), result("1"), result("2"), result("9")]
    calls, first, second, stray = rewritten(messages, writes_tools_as_text=True)
    assert calls.text.splitlines() == [f'{{"name": "tool_{n}", "arguments": {{"x": 1}}}}' for n in (1, 2)]
    assert [first.text, second.text] == ["Result of tool_1:\n42", "Result of tool_2:\n42"]
    assert stray.text == "Result of a tool (call 9):\n42"
    twice = Message("assistant", tool_calls=(ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}")))
    calls, first = rewritten([twice, result("b")], writes_tools_as_text=True)
    assert [json.loads(line)["id"] for line in calls.text.splitlines()] == ["a", "b"]
    assert first.text == "Result of f (call b):\n42"


def test_parallel_calls_are_taken_apart_beside_their_results() -> None:
    messages = [user("a"), call("1", "2", text="so"), result("2", "two"), result("1", "one"), assistant("b")]
    assert rewritten(messages, splits_parallel_calls=True) == [
        user("a"),
        call("1", text="so"),
        result("1", "one"),
        call("2"),
        result("2", "two"),
        assistant("b"),
    ]


def test_a_result_without_its_call_is_not_lost() -> None:
    messages = [call("1", "2"), result("1"), result("3", "stray")]
    assert rewritten(messages, splits_parallel_calls=True) == [call("1"), result("1"), call("2"), result("3", "stray")]


def test_ids_get_nine_letters_and_still_match() -> None:
    messages = [call("call_0123456789", "abcdefghi"), result("call_0123456789"), result("abcdefghi")]
    calls, first, second = rewritten(messages, shortens_ids=True)
    ids = [one.id for one in calls.tool_calls]
    assert ids == [first.tool_call_id, second.tool_call_id]
    assert all(len(one) == 9 and one.isalnum() for one in ids)
    assert ids[1] == "abcdefghi"  # fits already
    assert rewritten(messages, shortens_ids=True) == [calls, first, second]


@pytest.mark.parametrize("content", ["a\nb", (TextPart("a"), TextPart("b"))])
def test_text_parts_become_one_string(content: str | tuple[TextPart, ...]) -> None:
    assert rewritten([Message("user", content)], joins_text_parts=True) == [user("a\nb")]
    picture = Message("user", (TextPart("a"), ImagePart("A")))
    assert rewritten([picture], joins_text_parts=True) == [picture]
