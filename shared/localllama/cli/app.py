"""The commands, put together."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import answering, installing, machine, measuring, models
from ._errors import INTERRUPTED, guarded
from ._screen import warnings_as_notes

__all__ = ["app", "run"]

app = typer.Typer(
    name="localllama",
    help="Local GGUF models through llama.cpp: find or install the runtime, fetch models, ask and chat.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(is_wanted: bool) -> None:  # typer calls it so
    if is_wanted:
        from importlib.metadata import version

        sys.stdout.write(f"localllama {version('localllama')}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # done by the callback
        bool, typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Local GGUF models through llama.cpp."""


for _command in (
    answering.ask,
    answering.chat,
    machine.doctor,
    machine.runtime,
    installing.install,
    measuring.bench,
    measuring.init,
    measuring.demo,
):
    app.command()(_command)
app.add_typer(models.app, name="models")


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    code = 0
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # its descriptor was closed before we were started
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  (until the process ends)

    def command() -> None:
        nonlocal code
        with warnings_as_notes():
            outcome = app(arguments, standalone_mode=False)
        if outcome == INTERRUPTED:  # newer ones make that of a KeyboardInterrupt, older ones raise Abort
            raise KeyboardInterrupt
        code = outcome if isinstance(outcome, int) else 0

    try:
        failed = guarded(lambda: _with_usage_errors(command))
    except SystemExit as ended:
        failed = ended.code if isinstance(ended.code, int) else 1
    raise SystemExit(failed or code)


def _with_usage_errors(command: object) -> None:
    """Typer's own errors as it shows them by itself: only outside of `standalone_mode` do ours reach us whole."""
    assert callable(command)
    try:
        command()
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        # The class that Typer raises for wrong usage belongs to Click, or to the copy of it that newer ones carry.
        if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
            raise
        error.show()  # type: ignore[attr-defined]
        raise SystemExit(error.exit_code) from None
