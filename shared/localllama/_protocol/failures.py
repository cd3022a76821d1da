"""What an error of the server means: from its body first, from its HTTP status only where the body says nothing.

llama-server answers some permanent mistakes of the caller with status 500 (an image without a projector, a template that
raises, a grammar beside a schema), so a status alone would send people into useless retries. The bodies quoted in
`tests/core/protocol/test_failures.py` were seen on real servers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localllama.errors import (
    AnswerParseError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ChatTemplateError,
    ContextOverflowError,
    EndpointNotFoundError,
    FeatureDisabledError,
    LocalLlamaError,
    ProgramFailedError,
    ProgramMissingError,
    ProgramNotExecutableError,
    ServerBusyError,
    ServerFaultError,
)

__all__ = ["error_from_object", "error_from_response"]

_EXCERPT_CHARACTERS = 200
_MESSAGE_CHARACTERS = 2000  # template errors quote the template's source

_OVERFLOW = re.compile(
    r"exceeds? the (?:available|maximum) context (?:size|length)|context size has been exceeded|context shift is disabled"
    r"|larger than the (?:max )?context size|prompt is too long|context length exceeded|maximum context length is \d+ tokens",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_OVERFLOW_COUNTS = re.compile(r"\((\d+) tokens\).*?\((\d+) tokens\)")


@dataclass(frozen=True)
class _Rule:
    """Text of a message, and what it means whatever the status was."""

    pattern: re.Pattern[str]
    error: type[APIStatusError]
    hint: str


def _rule(pattern: str, error: type[APIStatusError], hint: str) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), error, hint)


# The order matters: the converter's complaints about a schema arrive inside "Unable to generate parser for this template".
_RULES = (
    _rule(
        r"(?:image|audio|video) input is not supported|multimodal|mmproj",
        BadRequestError,
        "Give the model's projector file as mmproj=..., or leave the image or sound out. The projector of a model on "
        "Hugging Face comes with it; where the model is here without: localllama models pull MODEL --projector",
    ),
    _rule(
        r"does not match the expected .*format",
        AnswerParseError,
        "The model wrote something that the parser of its chat template cannot read, such as a broken tool call: "
        "ask again, ask without tools, or use another model or chat template.",
    ),
    _rule(
        r"json schema|json_schema|failed to parse grammar|custom grammar|empty grammar stack|invalid grammar"
        r"|initialize samplers|unrecognized type|response_format",
        BadRequestError,
        "Correct the grammar or the schema; see https://github.com/ggml-org/llama.cpp/tree/master/grammars.",
    ),
    _rule(
        r"requires? --jinja|without --jinja|use --jinja",
        FeatureDisabledError,
        "Start the server with --jinja.",
    ),
    _rule(
        r"too large to process|physical batch size",
        BadRequestError,
        "Raise n_ubatch, or shorten the input.",
    ),
    _rule(
        r"jinja|raise_exception|chat template|template error|generate parser for this template|conversation roles must"
        r"|while executing|Value is not callable|Cannot call something that is not a function",
        ChatTemplateError,
        "Change the order or the roles of the messages, or give a template that takes them as chat_template_file=....",
    ),
)

_SERVER_NEEDED = 'Use a llama.cpp server: pip install "localllama[runtime]", and runtime="auto".'
_PROGRAM_HINT = "Read .stderr, all that the program said; if memory ran out, use a smaller n_ctx or model."
_SILENT_PROGRAM_HINT = "Run the program by hand: it said nothing; if memory ran out, use a smaller n_ctx or model."

_BY_TYPE: Mapping[str, type[APIStatusError]] = {
    "authentication_error": AuthenticationError,
    "permission_error": AuthenticationError,
    "not_found_error": EndpointNotFoundError,
    "not_supported_error": FeatureDisabledError,
    "feature_disabled": FeatureDisabledError,
    "unavailable_error": ServerBusyError,
    "invalid_request_error": BadRequestError,
    "server_error": ServerFaultError,
}
_BY_STATUS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: AuthenticationError,
    404: EndpointNotFoundError,
    405: EndpointNotFoundError,
    413: BadRequestError,
    415: BadRequestError,
    422: BadRequestError,
    429: ServerBusyError,
    500: ServerFaultError,
    501: FeatureDisabledError,
    502: ServerFaultError,
    503: ServerBusyError,
    504: ServerFaultError,
}
_HINTS: Mapping[type[APIStatusError], str] = {
    BadRequestError: "Correct what the message names: sent again as it is, the request is refused again.",
    AuthenticationError: "Give the server's key as api_key=....",
    EndpointNotFoundError: "Check base_url: is a llama-server of this year behind it?",
    FeatureDisabledError: "Start the server with the option that the message names (extra_args=[...]).",
    ServerBusyError: "Try again in a moment.",
    ServerFaultError: "Try again; if it stays, read the server's log.",
}


def _hint(error: type[APIStatusError], status: int) -> str | None:
    if 300 <= status < 400:  # noqa: PLR2004 - HTTP's redirections
        return (
            "Redirections are not followed, a prompt is not sent elsewhere: give the address it points to as base_url."
        )
    return _HINTS.get(error)


def error_from_response(status: int, body: bytes) -> LocalLlamaError:
    """The error that an HTTP answer with an error status stands for.

    Args:
        status: The HTTP status.
        body: The whole body; any bytes.
    """
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        decoded = None
    if isinstance(decoded, dict):
        return error_from_object(decoded.get("error", decoded), status=status, body=decoded)
    return _error_from_text(status, body)


def error_from_object(obj: Any, *, status: int = 200, body: dict[str, Any] | None = None) -> LocalLlamaError:
    """The error that a decoded error object stands for: the value of `error` in a body or in an event of a stream.

    Args:
        obj: `{"code", "message", "type", ...}`; a bare string or anything else is taken too.
        status: The HTTP status; 200 inside a stream.
        body: The whole decoded body, where it is more than `obj`.
    """
    fields: dict[str, Any] = obj if isinstance(obj, dict) else {"message": obj}
    body = body if body is not None else {"error": obj}
    message = fields.get("message", fields.get("detail", ""))
    text = message if isinstance(message, str) else json.dumps(message, default=str)
    # A broken token may be quoted here; no terminal should take it for a command.
    text = _CONTROL.sub(lambda found: repr(found.group())[1:-1], text.strip()) or "no message"
    kind = fields.get("type")
    kind = kind if isinstance(kind, str) else ""
    if kind == "exceed_context_size_error" or _OVERFLOW.search(text):
        return _overflow(fields, text, status, kind, body)
    if kind == "one_shot_error":
        return _program_failure(fields, text, status)
    if kind == "feature_disabled" and "one-shot" in text:
        return _make(FeatureDisabledError, text, _SERVER_NEEDED, status, kind, body)
    for rule in _RULES:
        if rule.pattern.search(text):
            return _make(rule.error, text, rule.hint, status, kind, body)
    code = fields.get("code")
    meant_status = code if status == 200 and isinstance(code, int) else status  # noqa: PLR2004 - HTTP's own number
    error = _BY_TYPE.get(kind) or _BY_STATUS.get(meant_status) or APIStatusError
    if meant_status == 401:  # noqa: PLR2004 - other servers call a wrong key an "invalid_request_error"
        error = AuthenticationError
    return _make(error, text, _hint(error, status), status, kind, body)


def _program_failure(fields: Mapping[str, Any], text: str, status: int) -> LocalLlamaError:
    """What our own stand-in for a server says of the program that it runs for each request."""
    if fields.get("reason") == "missing":
        return ProgramMissingError(text, hint="Install llama.cpp again: the program was there when it was looked for.")
    if fields.get("reason") == "permission":
        return ProgramNotExecutableError(text, hint="Make it executable again, with chmod +x.")
    hint = _PROGRAM_HINT if fields.get("stderr") else _SILENT_PROGRAM_HINT
    if fields.get("reason") == "interrupted":
        hint = "Make the call again: somebody sent the program an interrupt."
    error = ProgramFailedError(text, hint=hint, status_code=status, error_type="one_shot_error")
    code, number = fields.get("exit_code"), fields.get("signal_number")
    error.exit_code = code if isinstance(code, int) else None
    error.signal_number = number if isinstance(number, int) else None
    error.stderr = str(fields.get("stderr") or "")
    error.command = str(fields.get("command") or "")
    return error


def _make(
    error: type[APIStatusError], text: str, hint: str | None, status: int, kind: str, body: dict[str, Any]
) -> APIStatusError:
    shown = text if len(text) <= _MESSAGE_CHARACTERS else text[:_MESSAGE_CHARACTERS] + " [...]"
    where = "inside the stream" if status == 200 else f"with status {status}"  # noqa: PLR2004
    return error(
        f"the server refused {where}: {shown}", hint=hint, status_code=status, error_type=kind or "", body=body
    )


def _overflow(
    fields: Mapping[str, Any], text: str, status: int, kind: str, body: dict[str, Any]
) -> ContextOverflowError:
    found = _OVERFLOW_COUNTS.search(text)
    n_prompt = _count(fields.get("n_prompt_tokens"), found.group(1) if found else None)
    n_ctx = _count(fields.get("n_ctx"), found.group(2) if found else None)
    if n_prompt is not None and n_ctx is not None:
        message = f"the prompt has {n_prompt} tokens, but the context window of one request holds {n_ctx}"
    else:
        message = f"the prompt does not fit the context window: {text[:_MESSAGE_CHARACTERS]}"
    at_least = f" (at least {n_prompt + 1}, and room for the answer)" if n_prompt is not None else ""
    return ContextOverflowError(
        message,
        hint=f"Shorten the conversation, or raise n_ctx{at_least}.",
        status_code=status,
        error_type=kind or "exceed_context_size_error",
        body=body,
        n_prompt_tokens=n_prompt,
        n_ctx=n_ctx,
    )


def _count(value: Any, text: str | None) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(text) if text is not None else None


def _error_from_text(status: int, body: bytes) -> APIStatusError:
    error = _BY_STATUS.get(status, APIStatusError)
    hint = _hint(error, status)
    if status == 413:  # noqa: PLR2004 - sent with an empty body
        return error(
            "the request is larger than the server takes (llama-server: 100 MiB)",
            hint="Send less: smaller images, fewer of them, or a shorter conversation.",
            status_code=status,
        )
    excerpt = " ".join(body[: 4 * _EXCERPT_CHARACTERS].decode(errors="replace").split())[:_EXCERPT_CHARACTERS]
    excerpt = _CONTROL.sub("?", excerpt)
    shown = f": {excerpt}" if excerpt else " and an empty body"
    return error(f"the server refused with status {status}{shown}", hint=hint, status_code=status)
