"""The command line of the stand-in server: our own flags, then llama-server's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Options", "read_options"]

# What llama-server would do with these is ours to do here, or nobody's.
_OURS = frozenset(
    {
        "--program", "--subcommand", "--model", "--host", "--port", "--api-key-file", "--alias",
        "--ctx-size", "--parallel", "--chat-template", "--chat-template-file", "--chat-template-kwargs",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What the stand-in was told.

    Attributes:
        command: How the program is called; empty for the mock.
        model: The GGUF file.
        alias: The model's name for people.
        n_ctx: The window of one request, in tokens.
        parallel: How many programs may run at once.
        host: The address, or the path of a socket.
        port: Of the address; None for a socket.
        directory: Private; for prompts and schemas.
        api_key: What a request must carry, or None.
        template: A chat template in place of the model's.
        variables: For the template.
        passed_on: Flags for the program.
    """

    command: tuple[str, ...]
    model: str
    alias: str
    n_ctx: int
    parallel: int
    host: str
    port: int | None
    directory: Path
    api_key: str | None = field(repr=False)
    template: str | None
    variables: Mapping[str, Any]
    passed_on: tuple[str, ...]


def read_options(arguments: list[str]) -> Options:
    """Read a command line that `server_arguments` made; it is ours, so nothing in it is doubted."""
    ours: dict[str, str] = {}
    passed_on: list[str] = []
    position = 0
    while position < len(arguments):
        name = arguments[position]
        if name in _OURS:
            ours[name] = arguments[position + 1]
            position += 2
        else:
            passed_on.append(name)
            position += 1
    template = ours.get("--chat-template")
    if "--chat-template-file" in ours:
        template = Path(ours["--chat-template-file"]).read_text(encoding="utf-8")
    parallel = int(ours["--parallel"])
    key_file = ours.get("--api-key-file")
    host = ours["--host"].strip('"')
    return Options(
        command=(ours["--program"], *ours.get("--subcommand", "").split()) if "--program" in ours else (),
        model=ours["--model"],
        alias=ours.get("--alias", Path(ours["--model"]).stem),
        n_ctx=int(ours["--ctx-size"]) // parallel,
        parallel=parallel,
        host=host,
        port=int(ours["--port"]) if "--port" in ours else None,
        directory=Path(key_file or host).parent,
        api_key=Path(key_file).read_text(encoding="ascii").strip() if key_file else None,
        template=template,
        variables=json.loads(ours.get("--chat-template-kwargs", "{}")),
        passed_on=tuple(passed_on),
    )
