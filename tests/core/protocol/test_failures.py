"""What each refusal of the server becomes. The bodies are real unless they say otherwise; the builds are named."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from localllama import (
    AnswerParseError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ChatTemplateError,
    ContextOverflowError,
    EndpointNotFoundError,
    FeatureDisabledError,
    ServerBusyError,
    ServerFaultError,
)
from localllama._protocol.failures import error_from_object, error_from_response


def _error(code: int, message: str, kind: str, **more: Any) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "type": kind, **more}}).encode()


# b11434 and xllamacpp's b11549 answered alike wherever both were asked.
SEEN: list[tuple[str, int, bytes, type[APIStatusError]]] = [
    (
        "prompt too long",
        400,
        _error(
            400,
            "request (620 tokens) exceeds the available context size (512 tokens), try increasing it",
            "exceed_context_size_error",
            n_prompt_tokens=620,
            n_ctx=512,
        ),
        ContextOverflowError,
    ),
    ("loading", 503, _error(503, "Loading model", "unavailable_error"), ServerBusyError),
    ("wrong key", 401, _error(401, "Invalid API Key", "authentication_error"), AuthenticationError),
    ("wrong path", 404, _error(404, "File Not Found", "not_found_error"), EndpointNotFoundError),
    (
        "embeddings off",
        501,
        _error(501, "This server does not support embeddings. Start it with `--embeddings`", "not_supported_error"),
        FeatureDisabledError,
    ),
    (
        "image without projector",
        500,
        _error(
            500,
            "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
            "server_error",
        ),
        BadRequestError,
    ),
    (
        "audio without projector",
        500,
        _error(
            500,
            "audio input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
            "server_error",
        ),
        BadRequestError,
    ),
    (
        "two constraints",
        500,
        _error(500, "Cannot use both json_schema and grammar", "server_error"),
        BadRequestError,
    ),
    (
        "broken grammar",
        400,
        _error(400, "Failed to initialize samplers: failed to parse grammar", "invalid_request_error"),
        BadRequestError,
    ),
    (
        "broken schema",
        400,
        _error(
            400,
            "Unable to generate parser for this template. Automatic parser generation failed: "
            "JSON schema error at #: unrecognized type foo",
            "invalid_request_error",
        ),
        BadRequestError,
    ),
    (
        "template raises (Gemma 2)",
        400,
        _error(
            400,
            "Unable to generate parser for this template. Automatic parser generation failed: \n------------\n"
            "While executing CallExpression at line 4, column 82 in source:\n...first %}\u21b5 {{- raise_exception(...\n"
            "Error: Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/...",
            "invalid_request_error",
        ),
        ChatTemplateError,
    ),
    (
        "template raises (Qwen3.5)",
        500,
        _error(
            500,
            "------------\nWhile executing CallExpression at line 85, column 32 in source:\n"
            "...first %}\u21b5            {{- raise_exception('System message must be at the beginning.') }}",
            "server_error",
        ),
        ChatTemplateError,
    ),
    (
        "tool call that its own parser cannot read",
        500,
        _error(
            500,
            "The model produced output that does not match the expected peg-native format",
            "server_error",
        ),
        AnswerParseError,
    ),
    (
        "schema that nothing satisfies, inside a stream",
        200,
        _error(500, "got exception: Unexpected empty grammar stack after accepting piece: \u001b (30)", "server_error"),
        BadRequestError,
    ),
    (
        "value out of range",
        400,
        _error(400, "Field 'n': Value must be between 1 <= value <= 1, but got 2", "invalid_request_error"),
        BadRequestError,
    ),
    (
        "prefill of a tool call",
        400,
        _error(400, "Cannot continue an assistant message that contains tool calls.", "invalid_request_error"),
        BadRequestError,
    ),
    ("body over 100 MiB", 413, b"", BadRequestError),
]
# From the source of other builds, or of other programs in front of the server.
READ: list[tuple[str, int, bytes, type[APIStatusError]]] = [
    (
        "prompt too long, 2024",
        500,
        _error(
            500,
            "the request exceeds the available context size. try increasing the context size or enable context shift",
            "server_error",
        ),
        ContextOverflowError,
    ),
    (
        "prompt too long, early 2025",
        400,
        _error(
            400,
            "the request exceeds the available context size, try increasing it",
            "invalid_request_error",
        ),
        ContextOverflowError,
    ),
    (
        "window full while generating",
        500,
        _error(500, "Context size has been exceeded.", "server_error"),
        ContextOverflowError,
    ),
    (
        "batch too small",
        500,
        _error(500, "input is too large to process. increase the physical batch size", "server_error"),
        BadRequestError,
    ),
    (
        "no jinja",
        500,
        _error(500, "tools param requires --jinja flag", "server_error"),
        FeatureDisabledError,
    ),
    ("tools off", 403, _error(403, "not enabled", "feature_disabled"), FeatureDisabledError),
    ("anything else", 500, _error(500, "something broke", "server_error"), ServerFaultError),
    ("no type", 500, b'{"error":{"message":"boom"}}', ServerFaultError),
    ("a bare string", 400, b'{"error":"bad thing"}', BadRequestError),
    ("detail", 422, b'{"detail":"bad field"}', BadRequestError),
    ("proxy without server", 502, b"<html><body>Bad Gateway</body></html>", ServerFaultError),
    ("proxy, busy", 503, b"<html>", ServerBusyError),
    ("wrong method", 405, b"", EndpointNotFoundError),
    ("too many requests", 429, b"{}", ServerBusyError),
    ("unknown status", 418, b"I'm a teapot", APIStatusError),
    ("a list", 500, b"[1]", ServerFaultError),
    ("not UTF-8", 400, b"\xff\xfe\x00", BadRequestError),
    ("nothing", 500, b"", ServerFaultError),
    ("odd fields", 500, b'{"error":{"message":7,"type":[],"code":"x"}}', ServerFaultError),
    ("null", 500, b'{"error":null}', ServerFaultError),
]


@pytest.mark.parametrize(("status", "body", "expected"), [pytest.param(*row[1:], id=row[0]) for row in SEEN + READ])
def test_class(status: int, body: bytes, expected: type[APIStatusError]) -> None:
    error = error_from_response(status, body)
    assert type(error) is expected
    assert error.status_code == status
    assert error.is_retryable is (expected in (AnswerParseError, ServerBusyError, ServerFaultError))
    assert expected is APIStatusError or error.hint
    assert type(pickle.loads(pickle.dumps(error))) is expected


def test_overflow_has_both_counts() -> None:
    error = error_from_response(*SEEN[0][1:3])
    assert isinstance(error, ContextOverflowError)
    assert (error.n_prompt_tokens, error.n_ctx) == (620, 512)
    assert "620" in str(error)
    assert "n_ctx" in str(error)


def test_overflow_counts_are_read_from_the_text_where_the_fields_are_missing() -> None:
    text = "request (620 tokens) exceeds the available context size (512 tokens), try increasing it"
    error = error_from_response(400, _error(400, text, "invalid_request_error"))
    assert isinstance(error, ContextOverflowError)
    assert (error.n_prompt_tokens, error.n_ctx) == (620, 512)


def test_overflow_without_numbers() -> None:
    error = error_from_object({"message": "Context size has been exceeded."})
    assert isinstance(error, ContextOverflowError)
    assert (error.n_prompt_tokens, error.n_ctx) == (None, None)


def test_hints_name_the_remedy() -> None:
    by_name = {row[0]: error_from_response(*row[1:3]) for row in SEEN}
    assert "mmproj" in str(by_name["image without projector"].hint)
    assert "api_key" in str(by_name["wrong key"].hint)
    assert "chat_template_file" in str(by_name["template raises (Qwen3.5)"].hint)
    assert "without tools" in str(by_name["tool call that its own parser cannot read"].hint)


def test_message_type_and_body_are_kept() -> None:
    error = error_from_response(501, SEEN[4][2])
    assert "--embeddings" in error.message
    assert error.error_type == "not_supported_error"
    assert error.body == json.loads(SEEN[4][2])


def test_inside_a_stream_the_code_of_the_object_counts() -> None:
    error = error_from_object({"code": 503, "message": "no"})
    assert isinstance(error, ServerBusyError)
    assert error.status_code == 200


def test_long_bodies_are_cut() -> None:
    assert len(str(error_from_response(502, b"<html>" + b"x " * 100_000))) < 600
    assert len(str(error_from_response(500, _error(500, "y" * 100_000, "server_error")))) < 2500


def test_no_terminal_commands_come_through() -> None:
    for error in (
        error_from_response(500, _error(500, "a\u001b[2Jb", "server_error")),
        error_from_response(502, b"a\x1b[2Jb"),
    ):
        assert "\x1b" not in str(error)


# Servers that speak the same protocol in words of their own.
OF_OTHER_SERVERS: list[tuple[int, dict[str, Any], type[APIStatusError]]] = [
    (
        401,
        {"error": {"message": "Incorrect API key", "type": "invalid_request_error", "code": "x"}},
        AuthenticationError,
    ),
    (401, {"error": "Unauthorized"}, AuthenticationError),
    (
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 16 tokens. However, you requested 40 tokens",
            "type": "BadRequestError",
            "code": 400,
        },
        ContextOverflowError,
    ),
]


@pytest.mark.parametrize(("status", "body", "expected"), OF_OTHER_SERVERS)
def test_other_servers(status: int, body: dict[str, Any], expected: type[APIStatusError]) -> None:
    assert type(error_from_response(status, json.dumps(body).encode())) is expected


@pytest.mark.parametrize("body", [b"", b"<html>moved</html>", b'{"error":{"message":"moved"}}'])
def test_a_redirection_names_the_remedy(body: bytes) -> None:
    error = error_from_response(307, body)
    assert error.hint is not None
    assert "base_url" in error.hint


def test_a_server_that_is_still_loading_says_so_by_the_type_alone_too() -> None:
    assert isinstance(error_from_object({"message": "Loading model", "type": "unavailable_error"}), ServerBusyError)
