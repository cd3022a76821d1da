"""The mock: answers without a model, the same for the same request, in any form that is asked for, and says what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from localllama._protocol.minimal_value import minimal_value

from .endpoints import Answer, Events, usage_fields
from .job import RefusalError, chat_job, checked_messages, completion_job
from .options import Options
from .output import Counters, StopWatch
from .templates import ChatTemplate
from .vocabulary import Vocabulary

__all__ = ["MockAnswering"]

_BUILD = "mock"
_PIECE = re.compile(r"\s*\S+\s*?|\s+")
_EXCERPT_CHARACTERS = 80


class _EveryFlag(frozenset[str]):
    """What the mock takes: all that there is."""

    def __contains__(self, item: object) -> bool:
        return True


class MockAnswering:
    """What llama-server does, without a model.

    Args:
        options: The window and the name.
    """

    def __init__(self, options: Options) -> None:
        self._n_ctx = options.n_ctx
        self._parallel = options.parallel
        self._model = f"mock of {options.alias}"
        self._template = ChatTemplate(options.template or "chatml", Vocabulary(), options.variables)

    def properties(self) -> dict[str, Any]:
        """As llama-server's `/props`."""
        return {
            "default_generation_settings": {"n_ctx": self._n_ctx},
            "total_slots": self._parallel,
            "model_alias": self._model,
            "build_info": _BUILD,
            "chat_template": self._template.source or "",
        }

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Prompts and counts; a token is a word here.

        Raises:
            RefusalError: It is not known here.
        """
        if path == "/apply-template":
            return {"prompt": self._rendered(checked_messages(body), {})}
        if path == "/v1/chat/completions/input_tokens":
            return {"input_tokens": len(_PIECE.findall(self._rendered(checked_messages(body), {})))}
        if path == "/tokenize":
            return {"tokens": list(range(len(_PIECE.findall(str(body.get("content") or "")))))}
        raise RefusalError(f"the mock cannot do this: {path}", kind="feature_disabled", status=501)

    def answer(self, path: str, body: Mapping[str, Any]) -> Answer:
        """An answer, of the form that is asked for.

        Raises:
            RefusalError: It is to follow a grammar.
        """
        is_chat = path != "/completion"
        if is_chat:
            job = chat_job(body, self._rendered, None, (), _EveryFlag())
            said = str(checked_messages(body)[-1].get("content") or "")
        else:
            job = completion_job(body, _EveryFlag())
            said = job.prompt
        if job.grammar is not None:
            raise RefusalError("the mock cannot do this: a grammar", kind="feature_disabled", status=501)
        if job.schema is not None:
            text = json.dumps(minimal_value(json.loads(job.schema)), ensure_ascii=False)
        else:
            excerpt = " ".join(said.split())[:_EXCERPT_CHARACTERS]
            text = f"This is a mock, and no model was asked. You said: {excerpt}"
        return _MockAnswer(job.prompt, text, job.stops, job.n_predict, Events(self._model, _BUILD, is_chat=is_chat))

    def _rendered(self, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> str:
        return self._template.render(messages, variables)


class _MockAnswer:
    def __init__(self, prompt: str, text: str, stops: tuple[str, ...], n_predict: int, events: Events) -> None:
        self._prompt = prompt
        self._text = text
        self._stops = stops
        self._n_predict = n_predict
        self._events = events

    def events(self) -> Iterator[dict[str, Any]]:
        pieces = _PIECE.findall(self._text)
        is_cut = 0 <= self._n_predict < len(pieces)
        pieces = pieces[: self._n_predict] if is_cut else pieces
        watch = StopWatch(self._stops)
        for piece in pieces:
            shown = watch.feed(piece)
            if shown:
                yield self._events.text(shown)
        rest = watch.feed("", is_last=True)
        if rest:
            yield self._events.text(rest)
        counters = Counters(len(_PIECE.findall(self._prompt)), len(pieces))
        usage = {**usage_fields(self._prompt, self._text, counters), "is_estimated": True}
        yield from self._events.last("length" if is_cut and not watch.has_stopped else "stop", usage, None)

    def leave(self) -> None:
        """It is over before anyone can leave."""

    def close(self) -> None:
        """Nothing to end."""
