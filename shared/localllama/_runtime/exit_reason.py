"""Why a program could not run at all: the words for signals, exit codes and the loader's messages. Pure."""

from __future__ import annotations

import re
import signal

__all__ = ["exit_words", "fault_words", "loader_fault", "signal_behind", "signal_name"]

_LOADER_FAULTS = (
    # glibc and musl
    re.compile(r"error while loading shared libraries: [^\n]+"),
    re.compile(r"Error loading shared library [^\n]+"),
    re.compile(r"version [`'][A-Z]+_[\d.]+' not found[^\n]*"),
    re.compile(r"symbol lookup error: [^\n]+"),
    re.compile(r"Error relocating [^\n]+"),
    # macOS
    re.compile(r"dyld\S*: (?:Library not loaded|Symbol not found|missing symbol)[^\n]*"),
    re.compile(r"(?:Bad CPU type in executable|bad CPU type in executable)"),
    # kernel and shells
    re.compile(r"(?:[Ee]xec format error|cannot execute binary file|required file not found)"),
)
_SHELL_SIGNAL_BASE = 128
_MOST_SIGNALS = 64
_WINDOWS_CODES = {
    0xC0000135: "a DLL that it needs is missing",
    0xC0000139: "a DLL that it needs is of the wrong version",
    0xC000007B: "it, or a DLL that it needs, was built for another processor",
    0xC000001D: "it was built for another processor (illegal instruction)",
    0xC0000005: "it crashed (access violation)",
}
_WORDS_OF_CODES = {
    126: "it could not be executed",
    127: "it, or a library that it needs, was not found",
    **_WINDOWS_CODES,
}
_WORDS_OF_SIGNALS = {
    "SIGILL": "it was built for another processor (illegal instruction)",
    "SIGBUS": "it crashed (bus error)",
    "SIGSEGV": "it crashed (segmentation fault)",
    "SIGABRT": "it aborted",
    "SIGSYS": "a system call that it needs is forbidden here",
}


def signal_name(number: int) -> str:
    """SIGILL for 4, and so on; "signal N" for a number without a name here."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def loader_fault(output: str) -> str | None:
    """The line in which the dynamic loader says what is missing, or None."""
    for pattern in _LOADER_FAULTS:
        match = pattern.search(output)
        if match:
            return match.group(0).strip()
    return None


def signal_behind(exit_code: int | None) -> int | None:
    """The signal that a shell in between turned into this exit code (128 + N), or None."""
    if exit_code is not None and 0 < exit_code - _SHELL_SIGNAL_BASE <= _MOST_SIGNALS:
        return exit_code - _SHELL_SIGNAL_BASE
    return None


def exit_words(exit_code: int | None, signal_number: int | None) -> str:
    """How a program ended, as the end of a sentence that begins with its name.

    Args:
        exit_code: As the system reports it; above 128 a shell in between may have turned a signal into it.
        signal_number: The signal that ended it, or None.
    """
    if signal_number is None:
        signal_number = signal_behind(exit_code)
    words = fault_words(exit_code, signal_number)
    because = f": {words}" if words else ""
    if signal_number is not None:
        return f"was ended by {signal_name(signal_number)}{because}"
    if exit_code is None:
        return "ended in an unknown way"
    is_windows_code = exit_code % 2**32 in _WINDOWS_CODES
    return f"exited with code {hex(exit_code % 2**32) if is_windows_code else exit_code}{because}"


def fault_words(exit_code: int | None, signal_number: int | None) -> str | None:
    """What a signal or an exit code of the system means, in words; None if it says nothing."""
    if signal_number is not None:
        return _WORDS_OF_SIGNALS.get(signal_name(signal_number))
    return None if exit_code is None else _WORDS_OF_CODES.get(exit_code % 2**32)
