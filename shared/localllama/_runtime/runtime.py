"""What a llama.cpp program is, to the rest of the core: an argument vector to put flags behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Runtime", "RuntimeKind"]

RuntimeKind = Literal["llama-server", "llama", "embedded", "one-shot", "mock"]


@dataclass(frozen=True)
class Runtime:
    """A program that serves a model over HTTP and takes llama-server's flags.

    Attributes:
        kind: "llama-server"; "llama", llama.cpp's multi-call program; "embedded", the `xllamacpp` child; "one-shot", a
            stand-in around a program that answers once; or "mock".
        command: How it is called; the flags follow. Absolute paths, no shell.
        origin: What it is, for people, such as "/usr/bin/llama-server".
        program: Of a one-shot rung: how the program itself is called.
        extra_env: Variables that it needs beside the usual ones.
    """

    kind: RuntimeKind
    command: tuple[str, ...]
    origin: str
    program: tuple[str, ...] = ()
    extra_env: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
