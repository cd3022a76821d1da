"""Streams as llama-server b11434 sent them (micro model, SmolLM2, Qwen2.5's template), shortened; and odd ones of others."""

from __future__ import annotations

import json
from typing import Any

HEAD = {
    "created": 1795311426,
    "id": "chatcmpl-1",
    "model": "micro",
    "system_fingerprint": "b11434-abc",
    "object": "chat.completion.chunk",
}
TIMINGS = {
    "cache_n": 21,
    "prompt_n": 1,
    "prompt_ms": 0.241,
    "prompt_per_token_ms": 0.241,
    "prompt_per_second": 4149.4,
    "predicted_n": 2,
    "predicted_ms": 0.096,
    "predicted_per_token_ms": 0.048,
    "predicted_per_second": 20833.3,
}
USAGE = {
    "completion_tokens": 2,
    "prompt_tokens": 22,
    "total_tokens": 24,
    "prompt_tokens_details": {"cached_tokens": 21},
}
DONE = b"data: [DONE]\n\n"


def event(obj: Any) -> bytes:
    """One event as llama-server writes it: compact JSON with the text unescaped."""
    return b"data: " + json.dumps(obj, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def delta(finish: str | None = None, *, index: int = 0, logprobs: Any = None, **fields: Any) -> bytes:
    """A chunk of a chat stream."""
    choice = {"finish_reason": finish, "index": index, "delta": fields}
    if logprobs is not None:
        choice["logprobs"] = {"content": logprobs}
    return event({"choices": [choice], **HEAD})


def progress(processed: int) -> bytes:
    """A progress event; llama-server repeats the role in it."""
    choice = {"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}
    numbers = {"total": 22, "cache": 0, "processed": processed, "time_ms": 10}
    return event({"choices": [choice], **HEAD, "prompt_progress": numbers})


def fragment(index: int, arguments: str = "", **head: Any) -> dict[str, Any]:
    """A tool-call fragment; `head` gives the id and name of the first one."""
    function: dict[str, Any] = {"arguments": arguments}
    if "name" in head:
        function["name"] = head.pop("name")
    return {"index": index, **head, "function": function}


ROLE = delta(role="assistant", content=None)
LAST = event({"choices": [], **HEAD, "usage": USAGE, "timings": TIMINGS})
TEXT = (
    progress(0)
    + progress(22)
    + ROLE
    + delta(content="Hé\u2028llo")
    + b":\n\n"
    + delta(content=" 😀")
    + delta("stop")
    + LAST
    + DONE
)
REASONING = (
    ROLE
    + delta(reasoning_content="Let me")
    + delta(reasoning_content=" see")
    + delta(content="Yes")
    + delta("stop")
    + LAST
    + DONE
)
TOOLS = (
    ROLE
    + delta(content="I look.")
    + delta(tool_calls=[fragment(0, "{", id="idA", type="function", name="get")])
    + delta(tool_calls=[fragment(0, '"x":')])
    + delta(tool_calls=[fragment(0, "1}")])
    + delta(tool_calls=[fragment(1, '{"y":2}', id="idB", type="function", name="put")])
    + delta("tool_calls")
    + LAST
    + DONE
)
ERROR = (
    ROLE
    + delta(content="Hel")
    + event({"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}})
)
CHAT_STREAMS = {"text": TEXT, "reasoning": REASONING, "tools": TOOLS, "error": ERROR}

NATIVE = (
    event({"index": 0, "content": "", "tokens": [0], "stop": False, "tokens_predicted": 0, "tokens_evaluated": 6,
           "prompt_progress": {"total": 6, "cache": 1, "processed": 6, "time_ms": 0}})
    + event({"index": 0, "content": "}\u2028", "tokens": [128], "stop": False, "tokens_predicted": 1,
             "completion_probabilities": [{"id": 128, "token": "}", "bytes": [125], "logprob": -0.18,
                                           "top_logprobs": [{"id": 128, "token": "}", "bytes": [125], "logprob": -0.18}]}]})
    + event({"index": 0, "content": "", "tokens": [], "id_slot": 0, "stop": True, "model": "micro", "tokens_predicted": 2,
             "tokens_evaluated": 22, "generation_settings": {"n_predict": 2}, "prompt": "<s>hello", "has_new_line": False,
             "truncated": False, "stop_type": "limit", "stopping_word": "", "tokens_cached": 23, "timings": TIMINGS})
)  # fmt: skip
