"""What a stand-in answers: the part of llama-server's HTTP interface that the clients use, and its error objects. No sockets."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from .job import RefusalError
from .output import Counters
from .program_runs import ProgramError

__all__ = ["Answer", "Answering", "Events", "error_object", "refusal", "usage_fields"]

_CHARACTERS_PER_TOKEN = 4
_MESSAGE_LOG_LINES = 12


class Answer(Protocol):
    """One answer under way."""

    def events(self) -> Iterator[dict[str, Any]]:
        """The events of its stream, each a JSON object."""
        ...

    def leave(self) -> None:
        """The caller has gone; from any thread."""
        ...

    def close(self) -> None:
        """End it, whatever state it is in."""
        ...


class Answering(Protocol):
    """What answers requests: the program, or the mock."""

    def properties(self) -> dict[str, Any]:
        """The body of `/props`."""
        ...

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A small question."""
        ...

    def answer(self, path: str, body: Mapping[str, Any]) -> Answer:
        """A generation, not begun yet."""
        ...


class Events:
    """Makes the events of one stream, in either of llama-server's two forms."""

    def __init__(self, model: str, build: str, *, is_chat: bool) -> None:
        self._is_chat = is_chat
        self._names = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "model": model,
            "system_fingerprint": build,
            "created": int(time.time()),
            "object": "chat.completion.chunk" if is_chat else "text_completion",
        }

    def text(self, text: str) -> dict[str, Any]:
        """A piece of the answer."""
        return self._delta({"content": text}) if self._is_chat else {**self._names, "content": text, "stop": False}

    def reasoning(self, text: str) -> dict[str, Any]:
        """A piece of the thinking; there is none outside of a chat."""
        return self._delta({"reasoning_content": text}) if self._is_chat else self.text(text)

    def last(self, finish_reason: str, usage: dict[str, Any], counters: Counters | None) -> list[dict[str, Any]]:
        """The end of the stream."""
        timings = {} if counters is None else {"timings": _timings(counters)}
        if not self._is_chat:
            return [
                {
                    **self._names,
                    "content": "",
                    "stop": True,
                    "stop_type": "limit" if finish_reason == "length" else "eos",
                    "usage": usage,
                    **timings,
                }
            ]
        end = self._delta({})
        end["choices"][0]["finish_reason"] = finish_reason
        return [end, {**self._names, "choices": [], "usage": usage, **timings}]

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {**self._names, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def usage_fields(prompt: str, answer: str, counters: Counters) -> dict[str, Any]:
    """The usage: the program's own counts, else an estimate that says so."""
    is_estimated = counters.prompt_tokens is None or counters.completion_tokens is None
    n_prompt = counters.prompt_tokens if not is_estimated else -(-len(prompt) // _CHARACTERS_PER_TOKEN)
    n_answer = counters.completion_tokens if not is_estimated else -(-len(answer) // _CHARACTERS_PER_TOKEN)
    fields = {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_answer,
        "total_tokens": (n_prompt or 0) + (n_answer or 0),
    }
    return {**fields, "is_estimated": True} if is_estimated else fields


def _timings(counters: Counters) -> dict[str, Any]:
    n_prompt, n_answer = counters.prompt_tokens or 0, counters.completion_tokens or 0
    return {
        "cache_n": 0,
        "prompt_n": n_prompt,
        "prompt_ms": counters.prompt_ms,
        "prompt_per_second": 1000 * n_prompt / counters.prompt_ms if counters.prompt_ms else 0.0,
        "predicted_n": n_answer,
        "predicted_ms": counters.predicted_ms,
        "predicted_per_second": 1000 * n_answer / counters.predicted_ms if counters.predicted_ms else 0.0,
    }


def refusal(error: RefusalError) -> tuple[int, dict[str, Any]]:
    """Status and body for a request that is refused."""
    return error.status, {"error": {"code": error.status, "message": str(error), "type": error.kind}}


def error_object(error: ProgramError, command: str, how: Callable[[int | None, int | None], str]) -> dict[str, Any]:
    """The error object for a program that failed.

    Args:
        error: What happened.
        command: The command line for people.
        how: The words for an exit code and a signal.
    """
    if error.counts is not None:
        n_prompt, n_ctx = error.counts
        return {
            "code": 400,
            "type": "exceed_context_size_error",
            "message": f"the prompt ({n_prompt} tokens) exceeds the available context size ({n_ctx} tokens)",
            "n_prompt_tokens": n_prompt,
            "n_ctx": n_ctx,
        }
    is_told = error.reason in ("missing", "permission") or error.exit_code == 0
    what = f"{command} {error}" if is_told else how(error.exit_code, error.signal_number)
    if error.reason == "interrupted":
        what = f"interrupted: {what}"
    tail = "\n".join(error.stderr.rstrip().splitlines()[-_MESSAGE_LOG_LINES:])
    return {
        "code": 500,
        "type": "one_shot_error",
        "message": f"{what}\n{tail}".rstrip(),
        "reason": error.reason,
        "exit_code": error.exit_code,
        "signal_number": error.signal_number,
        "stderr": error.stderr,
        "command": command,
    }


def event_bytes(event: Mapping[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
