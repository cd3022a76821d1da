"""The search for a rewriting, against templates written as Python functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from localllama import (
    APIStatusError,
    AuthenticationError,
    ChatRequest,
    ChatTemplateError,
    EndpointNotFoundError,
    FeatureDisabledError,
    ImagePart,
    LocalLlamaError,
    Message,
    ServerBusyError,
    ServerFaultError,
    TextPart,
    ToolCall,
    ToolSpec,
)
from localllama._protocol.adapt import (
    Shape,
    adapt_messages,
    is_rendered,
    rewritings,
    search_rewriting,
    sentinel_messages,
    shape,
)
from localllama._protocol.rewrite import AS_IS, Rewriting, apply_rewriting

Template = Callable[[list[dict[str, Any]]], str]
S, U, A = Message("system", "be brief"), Message("user", "question"), Message("assistant", "answer")
CALL = Message("assistant", "", tool_calls=(ToolCall("call_long_id_0001", "get", '{"x": 1}'),))
RESULT = Message("tool", "42", tool_call_id="call_long_id_0001")


class RefusedError(Exception):
    """What `raise_exception` does in a template."""


def everything(messages: list[dict[str, Any]]) -> str:
    return json.dumps(messages)


def without_tools(messages: list[dict[str, Any]]) -> str:
    return "".join(f"<{one['role']}>{one['content']}" for one in messages)


def drops_tools(messages: list[dict[str, Any]]) -> str:
    return without_tools([one for one in messages if one["role"] != "tool"])


def no_system(messages: list[dict[str, Any]]) -> str:
    if any(one["role"] == "system" for one in messages):
        raise RefusedError
    return everything(messages)


def drops_system(messages: list[dict[str, Any]]) -> str:
    return everything([one for one in messages if one["role"] != "system"])


def system_in_front_only(messages: list[dict[str, Any]]) -> str:
    if any(one["role"] == "system" for one in messages[1:]):
        raise RefusedError
    return everything(messages)


def last_system_wins(messages: list[dict[str, Any]]) -> str:
    system = [one for one in messages if one["role"] == "system"][-1:]
    return everything(system + [one for one in messages if one["role"] != "system"])


def alternates(messages: list[dict[str, Any]]) -> str:
    turns = [one["role"] for one in messages if one["role"] in ("user", "assistant") and "tool_calls" not in one]
    if any((role == "user") != (index % 2 == 0) for index, role in enumerate(turns)):
        raise RefusedError
    return everything(messages)


def gemma_like(messages: list[dict[str, Any]]) -> str:
    no_system(messages)
    alternates(messages)
    return without_tools(messages)


def single_calls(messages: list[dict[str, Any]]) -> str:
    if any(len(one.get("tool_calls", ())) > 1 for one in messages):
        raise RefusedError
    return everything(messages)


def short_ids(messages: list[dict[str, Any]]) -> str:
    ids = [one["tool_call_id"] for one in messages if "tool_call_id" in one]
    if any(len(one) != 9 for one in ids):
        raise RefusedError
    return everything(messages)


def strings_only(messages: list[dict[str, Any]]) -> str:
    return "".join("<" + one["role"] + ">" + one["content"] for one in messages)


def system_before_the_last_question(messages: list[dict[str, Any]]) -> str:
    return everything(sorted(messages[:-1], key=lambda one: one["role"] == "system") + messages[-1:])


def call_without_its_text(messages: list[dict[str, Any]]) -> str:
    return everything([{**one, "content": ""} if "tool_calls" in one else one for one in messages])


def search(template: Template, *messages: Message) -> tuple[Rewriting, int]:
    """The rewriting found, and the number of trials."""
    steps = search_rewriting(shape(messages, has_tools=False))
    count = 0
    try:
        body = next(steps)
        while True:
            count += 1
            try:
                body = steps.send(template(body["messages"]))
            except (RefusedError, TypeError):
                body = steps.send(None)
    except StopIteration as end:
        return end.value, count


CASES: list[tuple[Template, tuple[Message, ...], Rewriting]] = [
    (everything, (S, U, A, S, U, CALL, RESULT), AS_IS),
    (no_system, (U, A, U), AS_IS),
    (no_system, (S, U), Rewriting(folds_system=True)),
    (drops_system, (S, U), Rewriting(folds_system=True)),
    (no_system, (S,), Rewriting(folds_system=True)),
    (system_in_front_only, (S, U), AS_IS),
    (system_in_front_only, (U, A, S, U), Rewriting(hoists_system=True)),
    (last_system_wins, (S, S, U), Rewriting(hoists_system=True)),
    (last_system_wins, (S, U, S), Rewriting(hoists_system=True)),
    (alternates, (U, U), Rewriting(merges_adjacent=True)),
    (alternates, (A, U), Rewriting(opens_with_user=True)),
    (alternates, (A, A, U, U), Rewriting(opens_with_user=True, merges_adjacent=True)),
    (alternates, (S, U, CALL, RESULT, A, U), AS_IS),
    (gemma_like, (S, U, U), Rewriting(folds_system=True, merges_adjacent=True)),
    (gemma_like, (S, A, U), Rewriting(folds_system=True, opens_with_user=True)),
    (gemma_like, (U, CALL, RESULT), Rewriting(writes_tools_as_text=True)),
    (
        gemma_like,
        (S, U, CALL, RESULT, U),
        Rewriting(writes_tools_as_text=True, folds_system=True, merges_adjacent=True),
    ),
    (without_tools, (U, CALL, RESULT), Rewriting(writes_tools_as_text=True)),
    (drops_tools, (U, CALL, RESULT), Rewriting(writes_tools_as_text=True)),
    (drops_tools, (U, A), AS_IS),
    (single_calls, (U, CALL, RESULT), AS_IS),
    (
        single_calls,
        (U, Message("assistant", "", tool_calls=CALL.tool_calls * 2), RESULT, RESULT),
        Rewriting(splits_parallel_calls=True),
    ),
    (short_ids, (U, CALL, RESULT), Rewriting(shortens_ids=True)),
    (strings_only, (Message("user", (TextPart("a"), TextPart("b"))),), Rewriting(joins_text_parts=True)),
    (system_before_the_last_question, (S, U, A, U), AS_IS),
    (call_without_its_text, (U, CALL, RESULT), AS_IS),
    (call_without_its_text, (U, Message("assistant", "so", tool_calls=CALL.tool_calls), RESULT), AS_IS),
]


@pytest.mark.parametrize(
    ("template", "messages", "expected"),
    [
        pytest.param(*case, id=case[0].__name__ + "-" + "".join("C" if m.tool_calls else m.role[0] for m in case[1]))
        for case in CASES
    ],
)
def test_the_least_rewriting_that_shows_everything(
    template: Template, messages: tuple[Message, ...], expected: Rewriting
) -> None:
    found, trials = search(template, *messages)
    assert found == expected
    assert trials <= 40


def test_what_the_template_takes_costs_one_trial() -> None:
    assert search(everything, S, U, CALL, RESULT) == (AS_IS, 1)


def test_a_template_that_refuses_everything_gets_the_history_as_it_is() -> None:
    def never(_: list[dict[str, Any]]) -> str:
        raise RefusedError

    found, trials = search(never, S, U, Message("assistant", "", tool_calls=CALL.tool_calls * 2), RESULT)
    assert found == AS_IS
    assert trials < 200


def test_rewritings_begin_with_none_and_prefer_native_tools() -> None:
    every = list(rewritings())
    assert every[0] == AS_IS
    assert len(set(every)) == len(every)
    first_text = next(index for index, one in enumerate(every) if one.writes_tools_as_text)
    assert not any(not one.writes_tools_as_text for one in every[first_text:])


def test_a_growing_conversation_keeps_its_shape() -> None:
    long = (S, *(U, A) * 50, U)
    assert shape(long, has_tools=False) == shape((S, *(U, A) * 3, U), has_tools=False)
    loop = (S, U, *(CALL, RESULT) * 50)
    assert shape(loop, has_tools=True) == shape((S, U, *(CALL, RESULT) * 3), has_tools=True)
    assert len(shape(long, has_tools=False).turns) < 8


def test_shapes_tell_apart_what_matters() -> None:
    parts = Message("user", (TextPart("a"), ImagePart("A")))
    talk = Message("assistant", "so", tool_calls=CALL.tool_calls)
    two = Message("assistant", "", tool_calls=CALL.tool_calls * 2)
    histories = [(U,), (U, U), (S, U), (U, S), (parts,), (U, A), (U, CALL), (U, talk), (U, two), (U, CALL, RESULT)]
    assert len({shape(one, has_tools=False) for one in histories}) == len(histories)
    assert shape((U,), has_tools=True) != shape((U,), has_tools=False)
    assert shape((U,), has_tools=False) == shape((Message("user", "other words"),), has_tools=False)


def test_sentinels_have_the_shape_and_words_of_their_own() -> None:
    history = (S, U, Message("assistant", "so", tool_calls=CALL.tool_calls * 2), RESULT, RESULT, A, U)
    sentinels = sentinel_messages(shape(history, has_tools=False))
    assert shape(sentinels, has_tools=False) == shape(history, has_tools=False)
    ids = [call.id for message in sentinels for call in message.tool_calls]
    assert [message.tool_call_id for message in sentinels if message.role == "tool"] == ids
    assert is_rendered(sentinels, json.dumps([str(message) for message in sentinels]))
    assert not is_rendered(sentinels, json.dumps([str(message) for message in reversed(sentinels)]))
    for index in range(len(sentinels)):
        assert not is_rendered(sentinels, json.dumps([str(one) for i, one in enumerate(sentinels) if i != index]))


def test_words_beyond_ten_messages_stay_apart() -> None:
    history = (*(Message("user" if index % 3 else "assistant", "x") for index in range(7)), S, U, A, S, U, U, A, S)
    sentinels = sentinel_messages(Shape(tuple(shape(history, has_tools=False).turns), has_tools=False))
    words = [message.text for message in sentinels]
    assert not [(one, other) for one in words for other in words if one != other and one in other]


def drive(
    answer: Callable[[dict[str, Any]], Any], request: ChatRequest, known: dict[Shape, Rewriting]
) -> tuple[tuple[Message, ...], list[dict[str, Any]]]:
    """Run `adapt_messages` as a client does: send answers in, throw errors in."""
    steps = adapt_messages(request, known)
    bodies: list[dict[str, Any]] = []
    try:
        method, path, body = next(steps)
        while True:
            assert (method, path) == ("POST", "/apply-template")
            bodies.append(body)
            try:
                reply = answer(body)
            except LocalLlamaError as error:
                method, path, body = steps.throw(error)
            else:
                method, path, body = steps.send(reply)
    except StopIteration as end:
        return end.value, bodies


SECRET = ChatRequest(
    (Message("system", "secret-a"), Message("user", "secret-b"), Message("assistant", "", tool_calls=(ToolCall("i", "secret_c", '{"secret": "d"}'),))),
    tools=(ToolSpec("secret_tool"),),
)  # fmt: skip


def test_trials_never_hold_the_conversation() -> None:
    def answer(body: dict[str, Any]) -> Any:
        raise ChatTemplateError("no", status_code=400)

    _, bodies = drive(answer, SECRET, {})
    assert bodies
    assert all("tools" in body for body in bodies)
    assert "secret" not in json.dumps(bodies)


def test_a_rewriting_is_looked_for_once_for_each_shape() -> None:
    def answer(body: dict[str, Any]) -> Any:
        if body["messages"][0]["role"] == "system":
            raise ServerFaultError("System role not supported", status_code=500)
        return {"prompt": everything(body["messages"])}

    known: dict[Shape, Rewriting] = {}
    messages, bodies = drive(answer, ChatRequest((S, U)), known)
    assert messages == (Message("user", "be brief\n\nquestion"),)
    assert bodies
    messages, bodies = drive(answer, ChatRequest((S, Message("user", "again"))), known)
    assert messages == (Message("user", "be brief\n\nagain"),)
    assert not bodies


def test_the_very_same_messages_where_the_template_takes_them() -> None:
    request = ChatRequest((S, U, A, U))
    messages, bodies = drive(lambda body: {"prompt": everything(body["messages"])}, request, {})
    assert messages is request.messages
    assert len(bodies) == 1


@pytest.mark.parametrize("error", [EndpointNotFoundError, FeatureDisabledError, AuthenticationError])
def test_without_the_endpoint_nothing_is_changed(error: type[APIStatusError]) -> None:
    def answer(_: dict[str, Any]) -> Any:
        raise error("no", status_code=404)

    messages, bodies = drive(answer, ChatRequest((S, S, U)), {})
    assert (messages, len(bodies)) == ((S, S, U), 1)


@pytest.mark.parametrize("reply", [None, [], {}, {"prompt": 7}])
def test_odd_answers_are_no_rendering(reply: Any) -> None:
    messages, _ = drive(lambda _: reply, ChatRequest((S, U)), {})
    assert messages == (S, U)


def test_other_failures_are_not_swallowed_and_not_remembered() -> None:
    def answer(_: dict[str, Any]) -> Any:
        raise ServerBusyError("loading", status_code=503)

    known: dict[Shape, Rewriting] = {}
    with pytest.raises(ServerBusyError):
        drive(answer, ChatRequest((U,)), known)
    assert not known


def test_every_rewriting_keeps_every_word() -> None:
    history = (S, A, U, U, Message("assistant", "so", tool_calls=CALL.tool_calls * 2), RESULT, RESULT, S, A, U)
    sentinels = sentinel_messages(shape(history, has_tools=False))
    for rewriting in rewritings():
        text = json.dumps([str(message) for message in apply_rewriting(rewriting, sentinels)])
        for message in sentinels:
            assert message.text in text
            assert all(call.name in text for call in message.tool_calls)
