"""From errors to exit codes and to two lines on standard error: what happened, and what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast

from localllama.errors import (
    ConfigurationError,
    LlamaRuntimeError,
    LocalLlamaError,
    MissingDependencyError,
    ModelError,
    ProtocolError,
    RequestError,
    ServerError,
    StructuredOutputError,
)

from ._screen import errors

__all__ = ["EXIT_CODES", "INTERRUPTED", "exit_code", "guarded"]

EXIT_CODES: dict[type[LocalLlamaError], int] = {
    ConfigurationError: 2,
    MissingDependencyError: 2,
    ModelError: 3,
    LlamaRuntimeError: 4,
    ServerError: 5,
    RequestError: 6,
    ProtocolError: 6,
    StructuredOutputError: 7,
}
"""The first class that fits counts; 1 is for everything else, 2 also for wrong usage, 70 for a fault of our own, 130 for Ctrl-C."""

INTERRUPTED = 130
INTERNAL = 70
_TRACEBACK_VARIABLE = "LOCALLLAMA_TRACEBACK"


class _ReaderLeftError(Exception):
    """The pipe that our output goes into was closed."""


class _Output:
    """Standard output, where a closed pipe is an error that neither Typer nor Rich knows.

    Both end the program with code 1 on a `BrokenPipeError`, wherever it comes from and in each release at a place of its
    own; for a command whose reader has enough, as in `localllama models list | head -1`, it is no failure.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _reader_watched():
            return self._stream.write(text)

    def flush(self) -> None:
        with _reader_watched():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _reader_watched() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _ReaderLeftError from error


def exit_code(error: LocalLlamaError) -> int:
    """The exit code for an error."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)


def guarded(function: Callable[[], object]) -> int:
    """Run a whole command; returns the exit code. Nobody sees a traceback."""
    try:
        with redirect_stdout(cast("TextIO", _Output(sys.stdout))):
            function()
            sys.stdout.flush()
    except LocalLlamaError as error:
        show(error)
        return exit_code(error)
    except KeyboardInterrupt:
        errors().print("\nInterrupted.", style="dim")
        return INTERRUPTED
    except (BrokenPipeError, _ReaderLeftError):
        # Whoever read our output has enough of it, as in `localllama ask ... | head -1`. What Python would still flush at
        # its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        errors().print("[bold red]Error:[/]", end=" ")
        where = f": {error.filename}" if error.filename else ""
        errors().print(f"{error.strerror or error}{where}", markup=False)
        return 1
    except Exception as error:  # a traceback helps nobody who only typed a command
        if os.environ.get(_TRACEBACK_VARIABLE):
            raise
        errors().print(f"Error: {type(error).__name__}: {error}", markup=False, highlight=False, soft_wrap=True)
        errors().print(f"To do: this is a fault of localllama; {_TRACEBACK_VARIABLE}=1 shows where.", highlight=False)
        return INTERNAL
    return 0


def show(error: LocalLlamaError) -> None:
    """Print an error and its hint."""
    console = errors()
    console.print("[bold red]Error:[/]", end=" ")
    console.print(error.message, markup=False, highlight=False, soft_wrap=True)
    if error.hint:
        console.print("[bold]To do:[/]", end=" ")
        console.print(error.hint, markup=False, highlight=False, soft_wrap=True)
