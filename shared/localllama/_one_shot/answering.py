"""Answers requests by running the program."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .endpoints import Answer, Events, usage_fields
from .job import Job, RefusalError, chat_job, checked_messages, completion_job
from .output import Counters, Piece, StopWatch, ThoughtReader
from .program_runs import CallerLeftError, Outcome, Program, ProgramError, Run
from .templates import ChatTemplate, TemplateRefusalError

__all__ = ["MOST_RUNS", "ProgramAnswering"]

MOST_RUNS = 8
"""How often a program is run for one answer, if it loses the end of it; see `Program.is_whole`."""

_TURN_SECONDS = 0.1
_SEEDS = 2**31
_TOKEN_COUNT = re.compile(r"number of tokens in prompt = (\d+)")
_TOKEN = re.compile(r"^(?:\S+ [A-Z] )? *(\d+) -> '", re.MULTILINE)


class ProgramAnswering:
    """What llama-server does, with a program that answers once.

    Args:
        program: The program.
        template: The chat template.
        model: The model's name.
        build: What the program is, for people.
        n_ctx: The window in tokens.
        parallel: How many may run at once.
        adds_bos: Whether the program puts a token before each prompt.
    """

    def __init__(
        self,
        program: Program,
        template: ChatTemplate,
        *,
        model: str,
        build: str,
        n_ctx: int,
        parallel: int,
        adds_bos: bool,
    ) -> None:
        self._program = program
        self._template = template
        self._model = model
        self._build = build
        self._n_ctx = n_ctx
        self._parallel = parallel
        self._adds_bos = adds_bos
        self._slots = threading.BoundedSemaphore(parallel)

    def properties(self) -> dict[str, Any]:
        """As llama-server's `/props`. Tools are never shown by the template: nothing here reads calls in its syntax."""
        return {
            "default_generation_settings": {"n_ctx": self._n_ctx},
            "total_slots": self._parallel,
            "model_alias": self._model,
            "build_info": self._build,
            "modalities": {"vision": False, "audio": False},
            "chat_template": self._template.source or "",
            "chat_template_caps": {"supports_tools": False, "supports_tool_calls": False},
        }

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """`/apply-template` and the counting of tokens.

        Raises:
            RefusalError: It is not known here.
        """
        if path == "/apply-template":
            return {"prompt": self._prompt(body)}
        if path == "/v1/chat/completions/input_tokens":
            return {"input_tokens": len(self._tokens(self._prompt(body)))}
        if path == "/tokenize":
            tokens = self._tokens(str(body.get("content") or ""))
            return {"tokens": tokens if body.get("add_special") or not self._adds_bos else tokens[1:]}
        message = f"the one-shot program cannot do this: {path}. A llama.cpp server can."
        raise RefusalError(message, kind="feature_disabled", status=501)

    def answer(self, path: str, body: Mapping[str, Any]) -> Answer:
        """A generation.

        Raises:
            RefusalError: The program cannot do it.
        """
        if path == "/completion":
            job = completion_job(body, self._program.flags)
        else:
            template = self._template
            job = chat_job(body, self._rendered, template.source, template.stops, self._program.flags)
        events = Events(self._model, self._build, is_chat=path != "/completion")
        return _ProgramAnswer(self._program, job, events, self._slots, self._n_ctx)

    def _prompt(self, body: Mapping[str, Any]) -> str:
        return self._rendered(checked_messages(body), body.get("chat_template_kwargs") or {})

    def _rendered(self, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> str:
        try:
            return self._template.render(messages, variables)
        except TemplateRefusalError as error:
            raise RefusalError(str(error)) from error

    def _tokens(self, text: str) -> list[int]:
        """Token ids as the program itself lists them, without a step of the model."""
        if "--verbose-prompt" not in self._program.flags or self._program.is_chat_client:
            raise RefusalError(
                "this one-shot program cannot count tokens; a llama.cpp server can.",
                kind="feature_disabled",
                status=501,
            )
        if not text:
            return []
        n_predict = next(flag for flag in ("--predict", "--n-predict", "-n") if flag in self._program.flags)
        job = Job(text, (n_predict, "0"))
        for _ in range(MOST_RUNS):
            with self._slots:
                run = self._program.run(job, ("--verbose-prompt",))
                try:
                    for _ in run.texts():
                        pass
                    run.outcome()
                    log = run.stderr()
                finally:
                    run.stop()
            counted = _TOKEN_COUNT.search(log)
            tokens = [int(number) for number in _TOKEN.findall(log[counted.end() :])] if counted else []
            if counted is not None and len(tokens) == int(counted[1]):
                return tokens
        raise RefusalError("the program's list of tokens could not be read", kind="server_error", status=500)


class _ProgramAnswer:
    """One answer of the program."""

    def __init__(
        self, program: Program, job: Job, events: Events, slots: threading.BoundedSemaphore, n_ctx: int
    ) -> None:
        self._n_ctx = n_ctx
        self._program = program
        self._job = job
        self._events = events
        self._slots = slots
        self._run: Run | None = None
        self._outcome = Outcome(is_ended_by_model=False, counters=Counters())
        seed = next((flag for flag in ("--seed", "-s") if flag in program.flags), None)
        is_seeded = seed is None or seed in job.flags
        self._flags = job.flags if is_seeded else (*job.flags, str(seed), str(secrets.randbelow(_SEEDS)))
        self._has_left = threading.Event()
        self._lock = threading.Lock()

    def events(self) -> Iterator[dict[str, Any]]:
        """Wait for a turn, run the program, and give out what it writes."""
        while not self._slots.acquire(timeout=_TURN_SECONDS):
            if self._has_left.is_set():
                raise CallerLeftError
        try:
            yield from self._generated()
        finally:
            self.close()
            self._slots.release()

    def leave(self) -> None:
        """The caller has gone."""
        self._has_left.set()
        with self._lock:
            run = self._run
        if run is not None:
            run.leave()

    def close(self) -> None:
        """End the program."""
        with self._lock:
            run, self._run = self._run, None
        if run is not None:
            run.stop()

    def _generated(self) -> Iterator[dict[str, Any]]:
        job = self._job
        watch = StopWatch(job.stops)
        reader = ThoughtReader(is_open=job.is_thinking) if job.has_thoughts else None
        whole = [job.begun] if job.begun else []
        if job.begun:
            yield self._events.text(job.begun)
        for text in _with_end(self._texts()):
            shown = watch.feed(text or "", is_last=text is None)
            whole.append(shown)
            yield from self._shown(shown, reader, is_last=text is None or watch.has_stopped)
            if watch.has_stopped:
                break
        outcome = Outcome(is_ended_by_model=True, counters=Counters()) if watch.has_stopped else self._outcome
        is_cut = self._program.is_cut(outcome, job.n_predict, self._n_ctx, has_text=any(whole))
        usage = usage_fields(job.prompt, "".join(whole), outcome.counters)
        counters = None if usage.get("is_estimated") else outcome.counters
        last = self._events.last("length" if is_cut else "stop", usage, counters)
        if not any(whole) and not watch.has_stopped:
            last[-1]["localllama_warning"] = f"{self._program.name} succeeded and wrote no text; the answer is empty."
        yield from last

    def _texts(self) -> Iterator[str]:
        """The pieces of the answer. What the program lost of it, it writes once more, since the seed is the same."""
        given = ""
        for n_left in reversed(range(MOST_RUNS)):
            text = ""
            run = self._started()
            for piece in run.texts():
                text += piece
                fresh, given = _beyond(text, given)
                if fresh:
                    yield fresh
            try:
                self._outcome = run.outcome()
            except ProgramError as error:
                if given or not n_left or not error.is_unexplained:
                    yield _beyond(text + run.rest, given)[0]
                    raise
                self.close()
                continue
            if self._program.is_whole(self._outcome):
                yield _whole(text + run.rest, given)
                return
            self.close()
        if given or run.rest or not self._program.may_be_silent:
            message = f"exited with code 0 and without the end of its answer, {MOST_RUNS} times"
            raise ProgramError(message, exit_code=0, stderr=run.stderr())

    def _started(self) -> Run:
        run = self._program.run(replace(self._job, flags=self._flags))
        with self._lock:
            self._run = run
        if self._has_left.is_set():
            raise CallerLeftError
        return run

    def _shown(self, text: str, reader: ThoughtReader | None, *, is_last: bool) -> Iterator[dict[str, Any]]:
        pieces = [Piece("text", text)] if reader is None else reader.feed(text, is_last=is_last)
        for piece in pieces:
            if piece.text:
                yield self._events.text(piece.text) if piece.kind == "text" else self._events.reasoning(piece.text)


def _beyond(text: str, given: str) -> tuple[str, str]:
    """What of the text is new, and all that was given out with it."""
    if not (text.startswith(given) or given.startswith(text)):
        raise ProgramError("lost the end of its answer, and wrote another one when it was run again", exit_code=0)
    return text[len(given) :], max(text, given, key=len)


def _whole(text: str, given: str) -> str:
    """What is missing of a text that is whole."""
    fresh, given = _beyond(text, given)
    if given != text:
        raise ProgramError("lost the end of its answer, and wrote a shorter one when it was run again", exit_code=0)
    return fresh


def _with_end(texts: Iterator[str]) -> Iterator[str | None]:
    yield from texts
    yield None
