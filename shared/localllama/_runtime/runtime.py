"""What a llama.cpp program is, to the rest of the core: an argument vector to put flags behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Runtime", "RuntimeKind"]

RuntimeKind = Literal["llama-server", "llama", "embedded"]


@dataclass(frozen=True)
class Runtime:
    """A program that serves a model over HTTP and takes llama-server's flags.

    Attributes:
        kind: "llama-server"; "llama", llama.cpp's multi-call program; or "embedded", the `xllamacpp` child.
        command: How it is called; the flags follow. Absolute paths, no shell.
        origin: What it is, for people, such as "/usr/bin/llama-server".
        extra_env: Variables that it needs beside the usual ones.
    """

    kind: RuntimeKind
    command: tuple[str, ...]
    origin: str
    extra_env: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
