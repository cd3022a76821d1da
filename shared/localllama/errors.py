"""Every error that localllama raises, and what each of them tells the user to do.

    LocalLlamaError
    ├── ConfigurationError (also a ValueError)      a setting is wrong; found before anything starts
    │   ├── ProgramMissingError (also a FileNotFoundError)
    │   └── ProgramNotExecutableError (also a PermissionError)
    ├── MissingDependencyError (also an ImportError) an extra is not installed
    ├── UnsupportedFeatureError                     this model, build or transport cannot do it
    ├── ClientClosedError                           used after close()
    ├── LlamaRuntimeError
    │   ├── RuntimeNotFoundError (also a FileNotFoundError) lists every place looked at
    │   │   └── RuntimeNotExecutableError (also a PermissionError)
    │   └── RuntimeBrokenError                      found, but it cannot run here (SIGILL, missing library, flag)
    ├── ModelError
    │   ├── ModelNotFoundError (also a FileNotFoundError)
    │   └── ModelCorruptError                       not a GGUF file, or a damaged one
    ├── ServerError
    │   ├── ServerStartError                        exited, or was killed, before it was ready
    │   │   └── ServerStartTimeoutError             was not ready in time
    │   └── ServerCrashedError                      died while it served us
    ├── RequestError
    │   ├── ServerConnectionError                   no connection to the server
    │   ├── RequestTimeoutError                     says which of the limits passed (`.limit`)
    │   └── APIStatusError                          the server refused; has `.status_code`, `.error_type`, `.body`
    │       ├── BadRequestError
    │       │   ├── ContextOverflowError            has `.n_prompt_tokens` and `.n_ctx`
    │       │   └── ChatTemplateError               the model's template refused these messages
    │       ├── AnswerParseError                    llama.cpp could not parse what the model wrote, and dropped it
    │       ├── AuthenticationError
    │       ├── EndpointNotFoundError
    │       ├── FeatureDisabledError                this server was started without what the call needs
    │       ├── ServerBusyError                     503: loading, or no free slot
    │       └── ServerFaultError                    a 500 that is not the caller's fault
    │           └── ProgramFailedError              a one-shot program failed; has `.exit_code`, `.stderr`
    ├── ProtocolError
    │   ├── MalformedResponseError                  not what llama-server sends
    │   ├── StreamInterruptedError                  the stream broke off; `.partial` holds what came
    │   └── ToolCallParseError                      a tool call could not be read
    └── StructuredOutputError (also a ValueError)   the answer has not the form that was asked for; has `.result`
        └── LengthLimitError                        it was cut off before its form was complete

The branches are by stage: what failed, and when. `is_retryable` says whether the same call may succeed if it is made
again as it is; it follows the cause and not the HTTP status, because llama-server answers some permanent mistakes of
the caller (an image without a projector, a template that refuses the history) with status 500.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ._error_root import LocalLlamaError, LocalLlamaWarning, ProgramEnd

if TYPE_CHECKING:
    from .types import ChatResult

__all__ = [
    "APIStatusError", "AnswerParseError", "AuthenticationError", "BadRequestError", "ChatTemplateError",
    "ClientClosedError", "ConfigurationError", "ContextOverflowError", "EndpointNotFoundError",
    "FeatureDisabledError", "LengthLimitError", "LlamaRuntimeError", "LocalLlamaError", "LocalLlamaWarning",
    "MalformedResponseError", "MissingDependencyError", "ModelCorruptError", "ModelError", "ModelNotFoundError",
    "ProgramFailedError", "ProgramMissingError", "ProgramNotExecutableError", "ProtocolError", "RequestError", "RequestTimeoutError", "RuntimeBrokenError", "RuntimeNotExecutableError",
    "RuntimeNotFoundError",
    "ServerBusyError", "ServerConnectionError", "ServerCrashedError", "ServerError", "ServerFaultError",
    "ServerStartError", "ServerStartTimeoutError", "StreamInterruptedError", "StructuredOutputError",
    "ToolCallParseError", "UnsupportedFeatureError",
]  # fmt: skip


class ConfigurationError(LocalLlamaError, ValueError):
    """A setting is wrong, alone or together with another; raised before anything starts."""


class ProgramMissingError(ConfigurationError, FileNotFoundError):
    """A program that was named is not there, or no longer."""


class ProgramNotExecutableError(ConfigurationError, PermissionError):
    """A program that was named may not be executed."""


class MissingDependencyError(LocalLlamaError, ImportError):
    """An optional dependency is not installed; the hint is the pip command that adds it."""


class UnsupportedFeatureError(LocalLlamaError):
    """The model, the llama.cpp build or the transport cannot do what was asked."""


class ClientClosedError(LocalLlamaError):
    """The object was used after `close()`."""


class LlamaRuntimeError(LocalLlamaError):
    """A fault of the llama.cpp programs themselves."""


class RuntimeNotFoundError(LlamaRuntimeError, FileNotFoundError):
    """No llama.cpp program was found.

    Attributes:
        places: Each place that was looked at, with what was found there.
    """

    def __init__(self, message: str, *, hint: str | None = None, places: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.places = places


class RuntimeNotExecutableError(RuntimeNotFoundError, PermissionError):
    """Files with the names of llama.cpp's programs were found, and none of them may be executed."""


class RuntimeBrokenError(ProgramEnd, LlamaRuntimeError):
    """A llama.cpp program was found but cannot run on this machine or with these flags.

    Attributes:
        runtime: The program, as a user would name it.
        log_tail: The last lines that it printed, secrets removed.
        causes: Where several were found, the error of each, in the order in which they were tried.
    """

    causes: tuple[LocalLlamaError, ...] = ()

    def __init__(self, message: str, *, hint: str | None = None, runtime: str = "", log_tail: str = "") -> None:
        super().__init__(message, hint=hint)
        self.runtime = runtime
        self.log_tail = log_tail


class ModelError(LocalLlamaError):
    """A fault of the model file or its reference."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """The reference names no model that can be found."""


class ModelCorruptError(ProgramEnd, ModelError):
    """The file is not a GGUF file that llama.cpp could load: foreign, empty, truncated, damaged or too new."""


class ServerError(ProgramEnd, LocalLlamaError):
    """Our llama-server child failed.

    Attributes:
        log_tail: The last lines of its log, secrets removed.
        command: The command line to run it by hand, secrets removed.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        exit_code: int | None = None,
        signal_number: int | None = None,
        log_tail: str = "",
        command: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.signal_number = signal_number
        self.log_tail = log_tail
        self.command = command

    def __str__(self) -> str:
        parts = [super().__str__()]
        if self.log_tail:
            parts.append("Last lines of the server's log:\n" + self.log_tail.rstrip())
        if self.command:
            parts.append("To run it by hand:\n" + self.command)
        return "\n".join(parts)


class ServerStartError(ServerError):
    """The server ended before it was ready."""


class ServerStartTimeoutError(ServerStartError):
    """The server was not ready within `start_timeout_seconds`."""

    is_retryable: ClassVar[bool] = True


class ServerCrashedError(ServerError):
    """The server died while it worked for us, and starting it again did not help or was not safe."""

    is_retryable: ClassVar[bool] = True


class RequestError(LocalLlamaError):
    """A request to the server failed."""


class ServerConnectionError(RequestError):
    """There is no connection to the server.

    Attributes:
        is_sent: Whether the server may have got (a part of) the request.
        has_response: Whether any byte of an answer came.
    """

    is_retryable: ClassVar[bool] = True

    def __init__(
        self, message: str, *, hint: str | None = None, is_sent: bool = False, has_response: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.is_sent = is_sent
        self.has_response = has_response


class RequestTimeoutError(RequestError):
    """A time limit passed.

    Attributes:
        limit: Which one: "connect", "first_token", "between_tokens" or "total".
        seconds: Its length in seconds.
    """

    is_retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, hint: str | None = None, limit: str = "total", seconds: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.limit = limit
        self.seconds = seconds


class APIStatusError(RequestError):
    """The server answered with an error object.

    Attributes:
        status_code: The HTTP status; 200 for an error inside a stream that had begun.
        error_type: `error.type` of the body, such as "invalid_request_error".
        body: The decoded body, or None if it was not JSON.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status_code: int = 0,
        error_type: str = "",
        body: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status_code = status_code
        self.error_type = error_type
        self.body = body


class BadRequestError(APIStatusError):
    """The request itself is wrong; sending it again changes nothing, whatever the status code was."""


class ContextOverflowError(BadRequestError):
    """The prompt does not fit the context window; nothing was truncated.

    Attributes:
        n_prompt_tokens: Tokens of the prompt.
        n_ctx: Tokens that the window of one request holds.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status_code: int = 400,
        error_type: str = "exceed_context_size_error",
        body: dict[str, Any] | None = None,
        n_prompt_tokens: int | None = None,
        n_ctx: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, status_code=status_code, error_type=error_type, body=body)
        self.n_prompt_tokens = n_prompt_tokens
        self.n_ctx = n_ctx


class ChatTemplateError(BadRequestError):
    """The model's chat template refused the messages, and no adaptation of them was accepted either."""


class AnswerParseError(APIStatusError):
    """llama.cpp could not parse what the model wrote in the form of its chat template, and dropped the text.

    Attributes:
        partial: All that had come before, as a `ChatResult` with `finish_reason` None; None if nothing had.
    """

    is_retryable: ClassVar[bool] = True
    partial: ChatResult | None = None


class AuthenticationError(APIStatusError):
    """The server wants another API key (only with `base_url`: our own child gets its key from us)."""


class EndpointNotFoundError(APIStatusError):
    """The server does not know this endpoint: another program, or an old build."""


class FeatureDisabledError(APIStatusError):
    """The server was started without what the call needs."""


class ServerBusyError(APIStatusError):
    """The server is loading its model or has no room."""

    is_retryable: ClassVar[bool] = True


class ServerFaultError(APIStatusError):
    """The server failed for a reason that is not the caller's."""

    is_retryable: ClassVar[bool] = True


class ProgramFailedError(ProgramEnd, ServerFaultError):
    """A program of the one-shot rung ended without an answer, or in the middle of one.

    Attributes:
        command: How it was called, for people.
    """

    command: str = ""


class ProtocolError(LocalLlamaError):
    """What came over the wire is not what llama-server sends."""


class MalformedResponseError(ProtocolError):
    """A body or an event could not be read."""


class StreamInterruptedError(ProtocolError):
    """A stream broke off after it had begun; it is not repeated, because its text has been seen already.

    Attributes:
        partial: All that had come, as a `ChatResult` with `finish_reason` None.
    """

    is_retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, hint: str | None = None, partial: ChatResult | None = None) -> None:
        super().__init__(message, hint=hint)
        self.partial = partial


class ToolCallParseError(ProtocolError):
    """A tool call of the model could not be read."""


class StructuredOutputError(LocalLlamaError, ValueError):
    """The answer has not the form that was asked for: the schema of a response format, or of a tool's arguments.

    Attributes:
        result: The answer as it came, its text unchanged; None if it is not known here.
        raw_text: What the model wrote: the text, or the call as JSON.
        violations: What is wrong with it, in sentences, each with its place in the JSON.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        result: ChatResult | None = None,
        raw_text: str = "",
        violations: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.result = result
        self.raw_text = raw_text
        self.violations = violations


class LengthLimitError(StructuredOutputError):
    """The answer was cut off, by `max_tokens` or the end of the window, before its form was complete.

    Attributes:
        max_tokens: The limit of the call; None if the window alone was the limit.
        n_ctx: Tokens that the window of one request holds; None if the server does not say.
        is_spent_on_thinking: Whether the thinking left nothing for the answer.
    """

    max_tokens: int | None = None
    n_ctx: int | None = None
    is_spent_on_thinking: bool = False
