"""Errors that are both localllama's and langchain-core's.

LangChain's retries, fallbacks and middleware look for the classes of `langchain_core.exceptions`; users of localllama
look for those of `localllama`. Each error that leaves this package is a subclass of one of either, made once from the
table below, so `except` finds it by both names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core import exceptions as langchain_errors

from localllama import errors as core_errors


class _AnswerError(langchain_errors.ModelError, langchain_errors.OutputParserException):
    """What LangChain's parsers raise for an answer that they cannot read; users and agents catch it by that name."""

    observation = None
    send_to_llm = False

    @property
    def llm_output(self) -> str | None:  # type: ignore[override]
        """The text of the answer."""
        return self.__dict__.get("raw_text")


# The most specific row wins.
_PARENTS: dict[type[core_errors.LocalLlamaError], type[langchain_errors.ModelError]] = {
    core_errors.LocalLlamaError: langchain_errors.ModelError,
    core_errors.ConfigurationError: langchain_errors.ModelInvalidRequestError,
    core_errors.UnsupportedFeatureError: langchain_errors.ModelInvalidRequestError,
    core_errors.ModelNotFoundError: langchain_errors.ModelNotFoundError,
    core_errors.ServerStartTimeoutError: langchain_errors.ModelTimeoutError,
    core_errors.ServerCrashedError: langchain_errors.ModelAPIError,
    core_errors.ServerConnectionError: langchain_errors.ModelConnectionError,
    core_errors.RequestTimeoutError: langchain_errors.ModelTimeoutError,
    core_errors.BadRequestError: langchain_errors.ModelInvalidRequestError,
    core_errors.ContextOverflowError: langchain_errors.ContextOverflowError,
    core_errors.AuthenticationError: langchain_errors.ModelAuthenticationError,
    core_errors.EndpointNotFoundError: langchain_errors.ModelNotFoundError,
    core_errors.FeatureDisabledError: langchain_errors.ModelInvalidRequestError,
    core_errors.ServerBusyError: langchain_errors.ModelAPIError,
    core_errors.ServerFaultError: langchain_errors.ModelAPIError,
    core_errors.StreamInterruptedError: langchain_errors.ModelConnectionError,
    core_errors.StructuredOutputError: _AnswerError,
}


def _with_both_parents(core: type[core_errors.LocalLlamaError]) -> type[core_errors.LocalLlamaError]:
    langchain = next(_PARENTS[base] for base in core.__mro__ if base in _PARENTS)
    if langchain.is_retryable != core.is_retryable:
        # Callers retry by class too: `except ModelAPIError` must catch what may be tried again, and nothing else.
        langchain = langchain_errors.ModelAPIError if core.is_retryable else langchain_errors.ModelError
    # `__module__` and the globals below let pickle find the class again, as process pools need.
    return type(core.__name__, (core, langchain), {"__module__": __name__, "__doc__": core.__doc__})


_BOTH: dict[type[core_errors.LocalLlamaError], type[core_errors.LocalLlamaError]] = {
    core: _with_both_parents(core)
    for core in (getattr(core_errors, name) for name in core_errors.__all__)
    if issubclass(core, core_errors.LocalLlamaError)
}
globals().update({made.__name__: made for made in _BOTH.values()})


@contextmanager
def as_langchain_errors() -> Iterator[None]:
    """Let the core's errors leave the block as errors that are langchain-core's too, else unchanged."""
    try:
        yield
    except core_errors.LocalLlamaError as error:
        if isinstance(error, langchain_errors.ModelError):
            raise
        made = _of_both(error)
        raise made.with_traceback(error.__traceback__) from error.__cause__


def _of_both(error: core_errors.LocalLlamaError) -> core_errors.LocalLlamaError:
    made_class = next(_BOTH[base] for base in type(error).__mro__ if base in _BOTH)
    # Of several built-in parents it is OSError's memory layout that counts, so no other may make the object.
    make = OSError.__new__ if issubclass(made_class, OSError) else made_class.__new__
    made = make(made_class, *error.args)
    made.args = error.args
    made.__dict__.update(error.__dict__)
    return made
