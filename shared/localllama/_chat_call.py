"""A chat completion, from its first plan to an answer of the form that was asked for.

plan ── sent ── answer ── checked ─┬─ right: the caller's
├─ breaks its schema: the model is told what is wrong (`chat` only)
├─ cut, with free strings: once more with strings that must fit (`chat` only)
├─ a number that no double holds: raw, where our own grammar bounds its digits (`chat` only)
└─ none of these: an error with the raw text

llama.cpp's parser dropped the answer ── raw text, read for calls ── still a call unread ── an envelope
llama.cpp's parser dropped the rest of a stream of words ── raw text from there on
the template broke on the tools ── they go into our own prompt
llama.cpp refused the grammar of a schema ── raw text, under the schema alone
llama.cpp refused the grammar of many tools ── the name of a tool first, then its arguments
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any

from ._call import Call, Exchange, Notes, PlanForm, Sending, is_refusal_of_tools, learn_server, planned, rendered
from ._protocol.decoding import DecodingPlan, enforced_schema
from ._protocol.gbnf import grammar_of
from ._protocol.leaked_calls import MARKERS, LeakedCallReader
from ._protocol.request import build_chat_body, build_completion_body
from ._protocol.schemas import strip_code_fence
from ._protocol.stream import ChatStreamParser, CompletionStreamParser
from ._protocol.thinking import says_how_to_think, with_bounded_thinking, without_thinking
from ._protocol.verification import Fault, find_fault, sum_of_usages
from .errors import (
    AnswerParseError,
    BadRequestError,
    ConfigurationError,
    ContextOverflowError,
    LocalLlamaError,
    LocalLlamaWarning,
    MalformedResponseError,
)
from .settings import SamplingSettings, ServerSettings, TimeoutSettings
from .types import ChatChunk, ChatRequest, ChatResult, Message, TextPart, Usage

__all__ = ["ChatCall"]

_GRAMMAR_REFUSED = re.compile(r"grammar|initialize samplers|generate parser", re.IGNORECASE)

_JSON_BEGINS = re.compile(r'\s*(?:```[a-z]*\s*)?[\[{"\-0-9tfn]')
_DRY_MULTIPLIER_AGAINST_CIRCLES = 0.8  # with it SmolLM2-135M leaves the circles that it runs in at temperature 0
_GRAMMAR_IS_LEFT = "grammar is left"
"""Noted of a server whose template lets answers of a fixed form escape the grammar: they are raw completions from then on."""
_FEWEST_TOKENS = 64  # below that not even short strings fit


class ChatCall(Call):
    """A chat completion.

    Args:
        request: What is asked.
        sampling: All sampling settings of the call.
        timeouts: Its limits.
        settings: How the server was started: what they say of thinking is the caller's word too.

    Raises:
        ConfigurationError: The request has no messages, or a grammar beside tools or a schema.
    """

    def __init__(
        self, request: ChatRequest, sampling: SamplingSettings, timeouts: TimeoutSettings, settings: ServerSettings
    ) -> None:
        super().__init__(sampling, timeouts)
        if not request.messages:
            raise ConfigurationError("messages is empty: give at least one message")
        _refuse_two_forms(request, sampling)
        self._request = request
        self._form = PlanForm(max_tokens=sampling.max_tokens)
        self._thinks_as_it_likes = says_how_to_think(
            settings.reasoning, settings.reasoning_budget, settings.chat_template_kwargs, None
        )
        self._plan = DecodingPlan(request)
        self._notes: Notes = {}
        self._n_ctx = 0
        self._is_raw = False
        self._shown_text = ""  # of an attempt that broke off; the next one goes on from there
        self._n_repairs = 0
        self._turns_of_repair: tuple[Message, ...] = ()
        self._fault: Fault | None = None
        self._spent: Usage | None = None
        self._held: list[ChatChunk] = []

    # -- sending ----------------------------------------------------------------------------------------------------

    def _prepare(self, notes: Notes) -> Generator[Exchange, Any, Sending]:
        request = replace(self._request, messages=self._request.messages + self._turns_of_repair)
        self._notes = notes
        self._plan = plan = yield from planned(request, notes, self._form)
        sampling = self._sampling
        if plan.envelope is not None or plan.schema is not None or plan.tools:
            server = yield from learn_server(notes)
            self._n_ctx = server.n_ctx
            if plan.has_fixed_form:
                # A stop string inside of JSON would only break it; the grammar knows the end.
                sampling = sampling.with_changes({"stop": None})
                sampling = sampling if self._thinks_as_it_likes else with_bounded_thinking(sampling, server)
        if self._form.is_tight and sampling.dry_multiplier is None:
            # The first attempt ran until it was cut, most often in a circle, which the same sampling would enter again.
            sampling = sampling.with_changes({"dry_multiplier": _DRY_MULTIPLIER_AGAINST_CIRCLES})
        new_reader = self._new_reader(plan)
        if plan.has_fixed_form and notes.get(_GRAMMAR_IS_LEFT) and self._may_turn_raw:
            self._is_raw = True
        if self._is_raw:
            prompt = yield from rendered(replace(plan.request, response_format=None))
            schema = enforced_schema(plan.request)
            body = build_completion_body(prompt if schema is None else without_thinking(prompt), sampling)
            if schema is not None:
                body["grammar"] = grammar_of(schema)
            elif new_reader is not None:
                body["preserved_tokens"] = list(MARKERS)  # special tokens in most vocabularies, and not shown else
            parser = CompletionStreamParser(new_reader=new_reader)
            if self._shown_text:
                yield from self._go_on(body, parser)
            return Sending("/completion", body, parser)
        body = build_chat_body(plan.request, sampling)
        return Sending("/v1/chat/completions", body, ChatStreamParser(new_reader=new_reader))

    @property
    def _may_turn_raw(self) -> bool:
        """Whether a raw completion may take the place of the chat completion; it has no room for images and sounds."""
        return not self._is_raw and not _has_media(self._request)

    def _go_on(self, body: dict[str, Any], parser: CompletionStreamParser) -> Generator[Exchange, Any, None]:
        """Begin a raw completion behind the text that was shown, whose tokens count too."""
        body["prompt"] += self._shown_text
        parser.go_on_from(self._shown_text)
        limit = body.get("n_predict", -1)
        if limit > 0:
            answer = yield "POST", "/tokenize", {"content": self._shown_text}
            body["n_predict"] = max(1, limit - len(answer["tokens"]))

    def _new_reader(self, plan: DecodingPlan) -> Any:
        if plan.envelope is not None:
            return plan.envelope.reader
        if plan.tools and (plan.request.finds_leaked_calls or self._is_raw):
            return partial(LeakedCallReader, plan.tools)
        return None

    # -- the answer -------------------------------------------------------------------------------------------------

    def show(self, chunk: ChatChunk) -> tuple[ChatChunk, ...]:
        """What the caller sees of a chunk: of a choice among tools the words only, until it is known what was chosen."""
        if self._form.is_choice:
            if chunk.finish_reason is not None or chunk.usage is not None:
                self._held.append(chunk)
                return ()
            if chunk.tool_calls:
                chunk = replace(chunk, tool_calls=())
                return (chunk,) if chunk.text or chunk.reasoning else ()
        if chunk.usage is not None and self._spent is not None:
            chunk = replace(chunk, usage=sum_of_usages(self._spent, chunk.usage))
        if self._plan.has_fixed_form and (chunk.finish_reason is not None or chunk.usage is not None):
            # The caller adds up what it is shown: an end and its tokens must not come once for each attempt.
            self._held.append(replace(chunk, text="", reasoning="", tool_calls=(), logprobs=()))
            chunk = replace(chunk, finish_reason=None, usage=None, timings=None)
            return (chunk,) if chunk.text or chunk.reasoning or chunk.tool_calls else ()
        return (chunk,)

    def held(self) -> tuple[ChatChunk, ...]:
        """Chunks that were held back until the answer was judged."""
        return tuple(self._held)

    def result(self) -> ChatResult:
        """All that has come so far, with the tokens of all generations."""
        result = super().result()
        text = result.text
        if self._plan.schema is not None and not self.is_shown and text.lstrip().startswith("```"):
            # A server at base_url may not hold to the schema by a grammar; what is right inside of a fence is right.
            text = strip_code_fence(text)
        return replace(result, text=text, usage=sum_of_usages(self._spent, result.usage))

    def is_finished(self) -> bool:
        """Judge the whole answer; see `Call.is_finished`."""
        if self._form.is_choice:
            return self._is_choice_finished()
        if self._is_raw and self._plan.envelope is None and self._has_unread_call():
            self._is_raw = False
            return not self._again(replace(self._form, is_enveloped=True))
        fault = self._find_fault()
        if fault is None or self._is_asked_again(fault):
            return fault is None
        if self._request.on_invalid == "return":
            return True
        raise fault.error(max_tokens=self._sampling.max_tokens, n_ctx=self._n_ctx)

    def _is_choice_finished(self) -> bool:
        calls = self.result().tool_calls
        if not calls or not calls[0].name:
            self._form = replace(self._form, is_choice=False)
            return self._is_words_or_fault()
        self._request = replace(self._request, tool_choice=calls[0].name, parallel_tool_calls=False)
        return not self._again(replace(self._form, is_choice=False, is_enveloped=True))

    def _is_words_or_fault(self) -> bool:
        fault = self._find_fault()
        if fault is None or self._request.on_invalid == "return":
            return True
        raise fault.error(max_tokens=self._sampling.max_tokens, n_ctx=self._n_ctx)

    def _find_fault(self) -> Fault | None:
        fault = find_fault(super().result(), self._plan)
        return fault and replace(fault, spent=self._spent)

    def _has_unread_call(self) -> bool:
        readers = self._parser.readers if self._parser is not None else ()
        is_unread = any(isinstance(reader, LeakedCallReader) and reader.has_unread_marker for reader in readers)
        return is_unread and not self.is_shown and not self.result().tool_calls

    def _again(self, form: PlanForm) -> bool:
        self._spent = self.result().usage
        self._held.clear()
        self._form = form
        return True

    def _is_asked_again(self, fault: Fault) -> bool:
        """Whether one more attempt is made: told what is wrong, or with strings that must fit if it only was too long."""
        if self._is_outside_grammar(fault):
            self._is_raw = self._notes[_GRAMMAR_IS_LEFT] = True
            return self._again(self._form)
        is_hopeless = fault.is_cut and not _may_end_sooner(fault.result)
        if self.is_shown or is_hopeless or self._n_repairs >= self._request.max_repairs:
            return False
        self._n_repairs += 1
        self._fault = fault
        # Newer builds of llama.cpp write numbers without an end; our own grammar has one.
        self._is_raw |= fault.has_endless_number and self._may_turn_raw
        if fault.is_cut:
            return self._again(replace(self._form, is_tight=True))
        self._turns_of_repair += (Message("assistant", fault.raw_text), Message("user", fault.repair_request()))
        return self._again(replace(self._form, is_for_repair=True))

    def _is_outside_grammar(self, fault: Fault) -> bool:
        """Whether the grammar never came into force: the template's thinking did not end, or hid it from llama.cpp."""
        result = fault.result
        if not self._may_turn_raw or not self._plan.has_fixed_form or result.tool_calls:
            return False
        if not result.text:
            return bool(result.reasoning) and fault.is_cut and not self._is_thinking_wanted()
        return not self.is_shown and not _JSON_BEGINS.match(result.text)

    def _is_thinking_wanted(self) -> bool:
        sampling = self._sampling
        return self._thinks_as_it_likes or says_how_to_think(
            sampling.reasoning, sampling.reasoning_budget, sampling.chat_template_kwargs, sampling.extra_body
        )

    # -- failures ---------------------------------------------------------------------------------------------------

    def _after_refusal(self, error: LocalLlamaError) -> None:
        if isinstance(error, MalformedResponseError):
            self._after_unread_envelope(error)
        elif isinstance(error, AnswerParseError):
            self._after_lost_answer(error)
        elif isinstance(error, ContextOverflowError) and self._fault is not None:
            # The attempt to repair does not fit the window: what was wrong before is the news.
            raise self._fault.error(max_tokens=self._sampling.max_tokens, n_ctx=self._n_ctx) from error
        elif is_refusal_of_tools(error, self._plan, self._notes):
            return
        elif isinstance(error, BadRequestError) and self._plan.tools and _GRAMMAR_REFUSED.search(error.message):
            self._after_refused_grammar(error)
        elif self._is_parser_refused(error):
            self._is_raw = True
        else:
            raise error

    def _is_parser_refused(self, error: LocalLlamaError) -> bool:
        """Whether the grammar of a schema may do without the template's parser, whose part of it was refused."""
        is_refused = isinstance(error, BadRequestError) and bool(_GRAMMAR_REFUSED.search(error.message))
        return is_refused and self._plan.schema is not None and self._may_turn_raw

    def _after_lost_answer(self, error: AnswerParseError) -> None:
        """Generate again without llama.cpp's parser, if that is what failed: better the raw text than none.

        The parser of a template drops an answer that it cannot read as a whole (llama.cpp issues 26381, 27733). Where words
        were shown, the raw text goes on behind them; where thinking or a call was, what the model wrote is not known.
        """
        came = self.result()
        is_seen = self.has_begun and self.is_shown
        is_free = self._plan.envelope is None and self._plan.schema is None
        is_words = is_free and bool(came.text) and not (came.reasoning or came.tool_calls)
        if not self._may_turn_raw or (is_seen and not is_words):
            error.partial = self._parser.give_up() if self._parser is not None and self.has_begun else None
            raise error
        if not self._plan.tools:
            warnings.warn(
                f"{error.message}. The answer is generated once more and given as the model writes it.",
                LocalLlamaWarning,
                stacklevel=2,
            )
        self._shown_text = came.text if is_seen else ""
        self._is_raw = True

    def _after_unread_envelope(self, error: MalformedResponseError) -> None:
        """Text that is not JSON where a grammar was asked for: the template's parser has its own idea of the text."""
        is_seen = self.has_begun and self.is_shown
        if self._plan.envelope is None or not self._may_turn_raw or is_seen:
            raise error
        self._is_raw = True
        if self._plan.has_fixed_form:
            self._notes[_GRAMMAR_IS_LEFT] = True

    def _after_refused_grammar(self, error: BadRequestError) -> None:
        """Ask for less at once.

        Our envelope instead of the template's grammar; then without the template's parser, whose part of the grammar may be
        what is refused; then the name of the tool before its arguments.
        """
        if self._plan.envelope is None and not self._form.is_enveloped:
            self._form = replace(self._form, is_enveloped=True)
        elif self._plan.envelope is not None and self._may_turn_raw:
            self._is_raw = True
        elif self._plan.envelope is not None and not self._form.is_choice and len(self._plan.tools) > 1:
            self._form = replace(self._form, is_choice=True)
        else:
            raise error


def _has_media(request: ChatRequest) -> bool:
    """Whether it holds what a raw completion cannot: an image, or a sound."""
    contents = [message.content for message in request.messages if not isinstance(message.content, str)]
    return any(not isinstance(part, TextPart) for content in contents for part in content)


def _refuse_two_forms(request: ChatRequest, sampling: SamplingSettings) -> None:
    """A grammar of the caller's own beside tools or a schema: either would be ignored, or llama-server refuses both.

    Raises:
        ConfigurationError: It is so; the message names both.
    """
    extra = sampling.extra_body or {}
    own = [
        name
        for name in ("grammar", "json_schema")
        if getattr(sampling, name) is not None or extra.get(name) is not None
    ]
    has_form = request.response_format is not None and request.response_format.get("type") not in (None, "text")
    has_tools = bool(request.tools) and request.tool_choice != "none"
    if own and (has_form or has_tools):
        other = "response_format" if has_form else "tools"
        way = "drop response_format" if has_form else "give tool_choice='none'"
        raise ConfigurationError(
            f"{own[0]} and {other} both say what may be generated",
            hint=f"Leave {own[0]} out, or {way} for this call.",
        )


def _may_end_sooner(result: ChatResult) -> bool:
    """Whether it was the answer that ran on, and not the thinking, with room enough for a shorter one."""
    has_begun = bool(result.text or result.tool_calls)
    return has_begun and result.usage is not None and result.usage.completion_tokens >= _FEWEST_TOKENS
