"""Turns a request for llama-server into the command line of a one-shot program, or says what cannot be done. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from localllama._protocol.thinking import without_thinking

__all__ = ["Job", "RefusalError", "chat_job", "completion_job"]

# Wire name, and the spellings of the flag through the years, the newest first.
_NUMBERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("temperature", ("--temp", "--temperature")),
    ("top_k", ("--top-k",)),
    ("top_p", ("--top-p",)),
    ("min_p", ("--min-p",)),
    ("typical_p", ("--typical", "--typical-p")),
    ("top_n_sigma", ("--top-n-sigma", "--top-nsigma")),
    ("xtc_probability", ("--xtc-probability",)),
    ("xtc_threshold", ("--xtc-threshold",)),
    ("dynatemp_range", ("--dynatemp-range",)),
    ("dynatemp_exponent", ("--dynatemp-exp",)),
    ("repeat_last_n", ("--repeat-last-n",)),
    ("repeat_penalty", ("--repeat-penalty",)),
    ("presence_penalty", ("--presence-penalty",)),
    ("frequency_penalty", ("--frequency-penalty",)),
    ("dry_multiplier", ("--dry-multiplier",)),
    ("dry_base", ("--dry-base",)),
    ("dry_allowed_length", ("--dry-allowed-length",)),
    ("dry_penalty_last_n", ("--dry-penalty-last-n",)),
    ("mirostat", ("--mirostat",)),
    ("mirostat_tau", ("--mirostat-ent",)),
    ("mirostat_eta", ("--mirostat-lr",)),
    ("seed", ("--seed", "-s")),
    ("n_keep", ("--keep",)),
)
_N_PREDICT = ("--predict", "--n-predict", "-n")
_IGNORE_EOS = ("--ignore-eos",)
_SAMPLERS = ("--samplers",)
_BREAKERS = ("--dry-sequence-breaker",)
_LOGIT_BIAS = ("--logit-bias", "-l")
_IMPOSSIBLE = {
    "logprobs": "log probabilities",
    "top_logprobs": "log probabilities",
    "n_probs": "log probabilities",
    "lora": "scales of LoRA adapters for one call",
    "t_max_predict_ms": "a limit in milliseconds",
    "min_keep": "min_keep",
    "echo": "echo",
    "tools": "tools in the template's own syntax",
    "response_fields": "response_fields",
    "continue_final_message": "continue_final_message",
}
_MAY_THINK = re.compile(r"</?think>")


class RefusalError(Exception):
    """The request is wrong, or asks for what a one-shot program cannot do.

    Attributes:
        kind: The type in the error object.
        status: The HTTP status.
    """

    def __init__(self, message: str, *, kind: str = "invalid_request_error", status: int = 400) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status


@dataclass(frozen=True)
class Job:
    """One run of the program.

    Attributes:
        prompt: The whole prompt, special tokens in it as text.
        flags: For the sampling.
        grammar: A GBNF grammar, or None.
        schema: A JSON schema as text, or None.
        stops: Strings that end the answer.
        n_predict: The limit in tokens, -1 without.
        begun: Text of the answer that the caller gave.
        has_thoughts: Whether thinking may stand before the answer.
        is_thinking: Whether the prompt ends inside of it.
    """

    prompt: str
    flags: tuple[str, ...] = ()
    grammar: str | None = None
    schema: str | None = None
    stops: tuple[str, ...] = ()
    n_predict: int = -1
    begun: str = field(default="", repr=False)
    has_thoughts: bool = False
    is_thinking: bool = False


def chat_job(
    body: Mapping[str, Any],
    render: Callable[[list[dict[str, Any]], Mapping[str, Any]], str],
    template: str | None,
    stops: tuple[str, ...],
    known_flags: frozenset[str],
) -> Job:
    """The job for a body of `/v1/chat/completions`.

    Args:
        body: The request.
        render: Makes the prompt of messages and template variables.
        template: The template's source.
        stops: Strings that end an answer in any case.
        known_flags: What the program takes.

    Raises:
        RefusalError: It cannot be done.
    """
    messages = checked_messages(body)
    prompt = render(messages, body.get("chat_template_kwargs") or {})
    grammar, schema = _form(body)
    last = messages[-1]
    begun = last["content"] if last.get("role") == "assistant" else ""
    if begun and schema is not None:
        raise _impossible("a begun answer together with a schema")
    has_thoughts = grammar is None and schema is None and bool(_MAY_THINK.search(template or "")) and not begun
    if grammar is not None or schema is not None or "<|channel|>" in (template or ""):
        # The grammar holds from the first token, which is that of the answer. And the marks of channels are special tokens,
        # which the program does not print: thinking and answer could not be told apart.
        prompt = without_thinking(prompt)
    return Job(
        prompt=prompt,
        flags=_sampling_flags(body, known_flags),
        grammar=grammar,
        schema=schema,
        stops=(*_stops(body), *(() if schema or grammar else stops)),
        n_predict=_limit(body),
        begun=begun,
        has_thoughts=has_thoughts,
        is_thinking=prompt.rstrip().endswith("<think>"),
    )


def completion_job(body: Mapping[str, Any], known_flags: frozenset[str]) -> Job:
    """The job for a body of `/completion`.

    Raises:
        RefusalError: It cannot be done.
    """
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise RefusalError("prompt is not a text")
    grammar, schema = _form(body)
    return Job(prompt, _sampling_flags(body, known_flags), grammar, schema, _stops(body), _limit(body))


def checked_messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a body, text only.

    Raises:
        RefusalError: There are none, or there is an image or a sound in them.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusalError("messages is empty")
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        for part in parts:
            if part.get("type") != "text":
                raise _impossible("images and sounds")
    return messages


def _impossible(what: str) -> RefusalError:
    return RefusalError(
        f"the one-shot program cannot do this: {what}. A llama.cpp server can.", kind="feature_disabled", status=501
    )


def _form(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    grammar = body.get("grammar") or None
    schema: Any = body.get("json_schema")
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        inner = form.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        if not isinstance(schema, dict):
            raise RefusalError("response_format of type json_schema has no schema")
    elif isinstance(form, dict) and form.get("type") == "json_object":
        schema = form.get("schema") or {"type": "object"}
    return grammar, None if schema is None else json.dumps(schema, ensure_ascii=False)


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop") or ()
    return (stop,) if isinstance(stop, str) else tuple(str(text) for text in stop)


def _limit(body: Mapping[str, Any]) -> int:
    for name in ("n_predict", "max_completion_tokens", "max_tokens"):
        if isinstance(body.get(name), int):
            return int(body[name])
    return -1


def _refuse_impossible(body: Mapping[str, Any]) -> None:
    for name, what in _IMPOSSIBLE.items():
        if body.get(name):
            raise _impossible(what)
    for name in ("n", "n_cmpl"):
        if (body.get(name) or 1) != 1:
            raise _impossible(f"{name}={body[name]}, more than one answer at once")


def _sampling_flags(body: Mapping[str, Any], known: frozenset[str]) -> tuple[str, ...]:
    _refuse_impossible(body)
    flags: list[str] = []
    for name, spellings in _NUMBERS:
        value = body.get(name)
        if value is not None and not (name == "seed" and value == -1):
            flags += [_spelling(name, spellings, known), _number(name, value)]
    flags += [_spelling("max_tokens", _N_PREDICT, known), str(_limit(body))]
    if body.get("ignore_eos"):
        flags.append(_spelling("ignore_eos", _IGNORE_EOS, known))
    if body.get("samplers"):
        flags += [_spelling("samplers", _SAMPLERS, known), ";".join(map(str, body["samplers"]))]
    for text in body.get("dry_sequence_breakers") or ():
        flags += [_spelling("dry_sequence_breakers", _BREAKERS, known), str(text)]
    for token, bias in _biases(body.get("logit_bias")):
        flags += [_spelling("logit_bias", _LOGIT_BIAS, known), f"{token}{bias:+g}"]
    return tuple(flags)


def _spelling(name: str, spellings: tuple[str, ...], known: frozenset[str]) -> str:
    for flag in spellings:
        if flag in known:
            return flag
    raise _impossible(f"{name} (it does not know {spellings[0]})")


def _number(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusalError(f"{name} is not a number")
    return repr(value)


def _biases(value: Any) -> list[tuple[int, float]]:
    pairs = list(value.items()) if isinstance(value, dict) else list(value or ())
    biases = []
    for token, bias in pairs:
        if not str(token).isdigit():
            raise _impossible("logit_bias by text; give token ids")
        biases.append((int(token), -1e9 if bias is False else float(bias)))
    return biases
