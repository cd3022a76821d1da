"""The root of all errors, and the warning; part of `localllama.errors`, which has the rest and the tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

__all__ = ["LocalLlamaError", "LocalLlamaWarning", "ProgramEnd"]


class LocalLlamaError(Exception):
    """Root of every error of this package.

    Args:
        message: What happened, with the values that matter.
        hint: One imperative sentence that says what to do about it, a command where possible.

    Attributes:
        message: As given.
        hint: As given, or None.
        is_retryable: Whether the same call may succeed if it is simply made again.
    """

    __module__ = "localllama.errors"  # where everyone finds it

    is_retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ would call cls(*args) and lose every keyword; process pools pickle errors.
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class ProgramEnd:
    """Beside an error: how the program behind it ended.

    Attributes:
        exit_code: Its exit code, or None if it did not exit by itself, or never ran.
        signal_number: The signal that ended it, or None.
        stderr: All that a program of the one-shot rung wrote to standard error; of more than 16 MiB the two ends.
    """

    exit_code: int | None = None
    signal_number: int | None = None
    stderr: str = ""


class LocalLlamaWarning(UserWarning):
    """Something works, but not in the way that was to be expected; such as a broken runtime that was passed over."""

    __module__ = "localllama.errors"


def _rebuild(cls: type[LocalLlamaError], args: tuple[Any, ...], state: dict[str, Any]) -> LocalLlamaError:
    # One that is a ValueError too would find ValueError's `__new__` first, which does not make an OSError.
    make: Callable[..., LocalLlamaError] = OSError.__new__ if issubclass(cls, OSError) else cls.__new__
    error = make(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
