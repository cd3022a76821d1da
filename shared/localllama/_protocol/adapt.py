"""Finds out how a history must be written so that the model's chat template renders all of it.

Templates differ: some raise on a system message, on two user turns in a row or on an assistant who speaks first; others drop
tool calls, tool results or a second system message without a word. No list of models would be complete, so the template
itself is asked: a conversation of the same *shape*, with a made-up word in each place, goes to `/apply-template`, and the
first rewriting of which all words come back, in order, is used. The real conversation is never part of a trial.

    history ──shape()──> shape ──search_rewriting()──> bodies of trials ──> Rewriting ──apply_rewriting()──> messages

The history as it is comes first, so where the template takes it, it is sent as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, MutableMapping, Sequence
from typing import Any, NamedTuple

from localllama.errors import (
    AuthenticationError,
    BadRequestError,
    EndpointNotFoundError,
    FeatureDisabledError,
    ServerFaultError,
)
from localllama.settings import SamplingSettings
from localllama.types import ChatRequest, Message, Role, TextPart, ToolCall, ToolSpec

from .request import build_chat_body
from .rewrite import AS_IS, Rewriting, apply_rewriting

__all__ = [
    "Shape",
    "Turn",
    "adapt_messages",
    "is_rendered",
    "rewritings",
    "search_rewriting",
    "sentinel_messages",
    "shape",
]

_LONGEST_CYCLE = 6
_COSTS = {  # how far each step takes the history from what the caller wrote; sums order the rewritings
    "joins_text_parts": 1,
    "shortens_ids": 1,
    "merges_adjacent": 2,
    "hoists_system": 2,
    "opens_with_user": 3,
    "folds_system": 5,
    "splits_parallel_calls": 6,
    "writes_tools_as_text": 40,
}


class Turn(NamedTuple):
    """The form of one message.

    Attributes:
        role: Its role.
        n_calls: Tool calls in it; 2 stands for any larger number.
        has_text: Whether there is text; only told apart beside tool calls.
        has_parts: Whether its content is a list of parts.
    """

    role: Role
    n_calls: int = 0
    has_text: bool = True
    has_parts: bool = False


class Shape(NamedTuple):
    """The form of a conversation, without its words; the key under which a rewriting is remembered.

    Attributes:
        turns: Its messages; what repeats in a cycle (user, assistant, user, assistant, ...) is kept twice, so that a growing
            conversation keeps its shape.
        has_tools: Whether tools are offered.
    """

    turns: tuple[Turn, ...]
    has_tools: bool


def shape(messages: Sequence[Message], *, has_tools: bool) -> Shape:
    """The shape of a conversation."""
    turns = [
        Turn(
            role=message.role,
            n_calls=min(len(message.tool_calls), 2),
            has_text=not message.tool_calls or bool(message.text),
            has_parts=not isinstance(message.content, str) and bool(message.content),
        )
        for message in messages
    ]
    for length in range(1, _LONGEST_CYCLE + 1):
        turns = _without_third_cycles(turns, length)
    return Shape(tuple(turns), has_tools)


def _without_third_cycles(turns: list[Turn], length: int) -> list[Turn]:
    kept: list[Turn] = []
    for turn in turns:
        kept.append(turn)
        if len(kept) >= 3 * length and kept[-length:] == kept[-2 * length : -length] == kept[-3 * length : -2 * length]:
            del kept[-length:]
    return kept


def sentinel_messages(form: Shape) -> tuple[Message, ...]:
    """Messages of that shape with a made-up word in each place.

    Images and sounds are left out: a trial is about roles, and a server without a projector refuses them anyway.
    """
    messages = []
    open_ids: list[str] = []
    for index, turn in enumerate(form.turns):
        word = _word(index, "t") if turn.has_text else ""
        calls = tuple(
            ToolCall(f"call_{_word(index, f'i{n}')}", _word(index, f"f{n}"), f'{{"value": "{_word(index, f"a{n}")}"}}')
            for n in range(turn.n_calls)
        )
        open_ids += [call.id for call in calls]
        messages.append(
            Message(
                role=turn.role,
                content=(TextPart(word), TextPart(_word(index, "p"))) if turn.has_parts else word,
                tool_calls=calls,
                # Longer than nine characters, so that templates which refuse such ids show it.
                tool_call_id=(open_ids.pop(0) if open_ids else f"call_{_word(index, 'i')}")
                if turn.role == "tool"
                else None,
            )
        )
    return tuple(messages)


def _word(index: int, kind: str) -> str:
    # Letters and digits only, since templates quote, trim and escape; ends in a letter, so that none begins another.
    return f"Qx{index}{kind}z"


def rewritings() -> Iterator[Rewriting]:
    """All ways to write a history, the least invasive first; the first is the history as it is."""
    names = tuple(_COSTS)
    choices = [
        tuple(name for name, is_on in zip(names, flags, strict=True) if is_on)
        for flags in itertools.product((False, True), repeat=len(names))
    ]
    for chosen in sorted(choices, key=lambda chosen: (sum(_COSTS[name] for name in chosen), chosen)):
        if not {"hoists_system", "folds_system"} <= set(chosen):  # the second includes the first
            yield Rewriting(**dict.fromkeys(chosen, True))


def is_rendered(messages: Sequence[Message], prompt: str, *, is_strict: bool = True) -> bool:
    """Whether a prompt shows each word of these sentinel messages, message after message.

    System messages may stand anywhere: some templates put them before the last question, as their models were trained.
    Within one message the order is the template's. Thinking of earlier turns is not looked for: templates drop it on
    purpose.

    Args:
        messages: Sentinel messages, as they were sent.
        prompt: What the template made of them.
        is_strict: Also ask for the text beside tool calls. Several templates for tools have no place for it.
    """
    position = 0
    for message in messages:
        words = _words(message, is_strict=is_strict)
        if message.role == "system":
            if any(word not in prompt for word in words):
                return False
            continue
        found = [prompt.find(word, position) for word in words]
        if any(place < 0 for place in found):
            return False
        position = max(found, default=position)
    return True


def _words(message: Message, *, is_strict: bool) -> list[str]:
    words = []
    if is_strict or not message.tool_calls:
        texts = (message.content,) if isinstance(message.content, str) else message.content
        for text in texts:
            content = text if isinstance(text, str) else text.text if isinstance(text, TextPart) else ""
            words += [word for word in _split_words(content) if word]
    for call in message.tool_calls:
        words += [call.name, *_split_words(call.arguments)]
    return words


def _split_words(text: str) -> list[str]:
    return [word for word in "".join(c if c.isalnum() else " " for c in text).split() if word.startswith("Qx")]


def search_rewriting(form: Shape) -> Generator[dict[str, Any], str | None, Rewriting]:
    """Try rewritings until one is rendered whole.

    Yields the body of each trial for `/apply-template`; must be sent the prompt that came back, or None if the template
    refused. Returns the rewriting; `AS_IS` if none helps, so that the template's own complaint reaches the caller.
    """
    sentinels = sentinel_messages(form)
    tools = (ToolSpec("Qxtoolz", "Qxaboutz"),) if form.has_tools else ()
    seen: dict[tuple[Message, ...], str | None] = {}
    # The text beside a call is worth less than the call in the model's own language, so before calls become text, a
    # rendering without that text is accepted.
    native = [rewriting for rewriting in rewritings() if not rewriting.writes_tools_as_text]
    as_text = [rewriting for rewriting in rewritings() if rewriting.writes_tools_as_text]
    for candidates, is_strict in ((native, True), (native, False), (as_text, True)):
        for rewriting in candidates:
            messages = apply_rewriting(rewriting, sentinels)
            if messages not in seen:
                request = ChatRequest(messages=messages, tools=tools)
                seen[messages] = yield build_chat_body(request, SamplingSettings(), stream=False)
            prompt = seen[messages]
            if prompt is not None and is_rendered(messages, prompt, is_strict=is_strict):
                return rewriting
    return AS_IS


def adapt_messages(
    request: ChatRequest, known: MutableMapping[Shape, Rewriting]
) -> Generator[tuple[str, str, dict[str, Any]], Any, tuple[Message, ...]]:
    """The messages of a request, written as the server's template takes them.

    Yields JSON exchanges (method, path, body); must be sent the decoded answer, or have the error thrown in.

    Args:
        request: What is to be sent.
        known: The rewritings found so far for this server; a new one is added.
    """
    form = shape(request.messages, has_tools=bool(request.tools) and request.tool_choice != "none")
    if form not in known:
        known[form] = yield from _ask_template(form)
    rewriting = known[form]
    return request.messages if rewriting == AS_IS else apply_rewriting(rewriting, request.messages)


def _ask_template(form: Shape) -> Generator[tuple[str, str, dict[str, Any]], Any, Rewriting]:
    search = search_rewriting(form)
    body = next(search)
    while True:
        prompt: Any = None
        try:
            answer = yield "POST", "/apply-template", body
            prompt = answer.get("prompt") if isinstance(answer, dict) else None
        except (EndpointNotFoundError, FeatureDisabledError, AuthenticationError):
            return AS_IS  # an old build or another server: there is nobody to ask
        except (BadRequestError, ServerFaultError):
            prompt = None  # some templates answer a history that they refuse with status 500
        try:
            body = search.send(prompt if isinstance(prompt, str) else None)
        except StopIteration as end:
            result: Rewriting = end.value
            return result
