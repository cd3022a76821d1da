"""`ask` one question, or `chat`."""

from __future__ import annotations

import json
import os
import signal
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from localllama.client import LocalLlamaClient
from localllama.errors import ConfigurationError, LocalLlamaError
from localllama.settings import SamplingSettings, ServerSettings
from localllama.types import ChatRequest, ChatResult, Message

from ._defaults import chosen_model
from ._errors import show
from ._screen import errors, has_terminal, print_json, starting

__all__ = ["ask", "chat", "make_client"]

ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="A model reference; default: that of `models use`.")
]
RuntimeOption = Annotated[str, typer.Option(help='Which llama.cpp: "auto", or one rung, or the path of a program.')]
ContextOption = Annotated[int | None, typer.Option("--n-ctx", help="The context window, in tokens.", min=1)]
TemperatureOption = Annotated[float | None, typer.Option(help="0 always takes the likeliest token.", min=0.0)]
TokensOption = Annotated[int | None, typer.Option("--max-tokens", help="End the answer after so many.", min=1)]
SystemOption = Annotated[str | None, typer.Option(help="What the model is told before everything else.")]

_TEXT = "utf-8-sig"  # a mark at the beginning, as editors on Windows write it, is no part of the text
_TO_UTF8 = "Convert it, as with: iconv -f latin1 -t utf-8"

_CHAT_HELP = (
    "/reset forgets the conversation, /save FILE writes it as JSON, /exit or Ctrl-D ends; Ctrl-C stops an answer."
)


def make_client(
    model: str | None,
    runtime: str = "auto",
    n_ctx: int | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
) -> LocalLlamaClient:
    """A client for the chosen model; nothing is started."""
    reference, _ = chosen_model(model)
    sampling: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    return LocalLlamaClient(
        ServerSettings(model=reference, runtime=runtime or "auto", n_ctx=n_ctx),
        sampling=SamplingSettings(**{name: value for name, value in sampling.items() if value is not None}),
    )


def ask(
    question: Annotated[str | None, typer.Argument(help="What to ask; what --file gives is put below it.")] = None,
    model: ModelOption = None,
    system: SystemOption = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help='A text to ask about; "-" is standard input.')
    ] = None,
    schema: Annotated[Path | None, typer.Option(help="A file with a JSON Schema that the answer must have.")] = None,
    runtime: RuntimeOption = "auto",
    n_ctx: ContextOption = None,
    temperature: TemperatureOption = None,
    max_tokens: TokensOption = None,
    is_json: Annotated[bool, typer.Option("--json", help="The answer with usage and timings, as JSON.")] = False,
) -> None:
    """Ask one question; the answer is streamed to standard output."""
    for name, text in (("question", question), ("--system", system)):
        _require_text(name, text)
    prompt = "\n\n".join(part for part in (question, _read_text(file)) if part)
    if not prompt:
        raise ConfigurationError("There is no question.", hint='Give one: localllama ask "Why is the sky blue?"')
    messages = (*((Message("system", system),) if system else ()), Message("user", prompt))
    request = ChatRequest(messages, response_format=_read_schema(schema))
    with make_client(model, runtime, n_ctx, temperature, max_tokens) as client:
        with starting() as progress:
            client.start(progress)
        if is_json:
            result = client.chat(request)
            print_json(_as_json(result))
            return
        if schema is not None:
            sys.stdout.write(client.chat(request).text + "\n")
            return
        _streamed(client, request)


def _read_text(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        if file != "-":
            return Path(file).read_text(encoding=_TEXT)
        if sys.stdin is None:
            raise ConfigurationError("--file '-' cannot be read: there is no standard input.")
        # The bytes: what Python makes of them depends on the locale, and would have to be undone.
        return sys.stdin.buffer.read().decode(_TEXT)
    except OSError as error:
        raise ConfigurationError(f"--file {file!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"--file {file!r} is no text in UTF-8: {error}", hint=_TO_UTF8) from error


def _require_text(name: str, text: str | None) -> None:
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:  # so Python keeps bytes of the command line that are no UTF-8
        raise ConfigurationError(f"The text of {name} is no UTF-8.", hint=_TO_UTF8) from error


def _read_schema(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        schema = json.loads(path.read_text(encoding=_TEXT))
    except OSError as error:
        raise ConfigurationError(f"--schema {str(path)!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"--schema {str(path)!r} is no JSON: {error}") from error
    if not isinstance(schema, dict):
        raise ConfigurationError(f"--schema {str(path)!r} is not a JSON object.", hint="A schema begins with '{'.")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _as_json(result: ChatResult) -> dict[str, Any]:
    return {
        "text": result.text,
        "reasoning": result.reasoning or None,
        "finish_reason": result.finish_reason,
        "model": result.model,
        "usage": vars(result.usage) if result.usage else None,
        "timings": vars(result.timings) if result.timings else None,
    }


def _streamed(client: LocalLlamaClient, request: ChatRequest) -> ChatResult:
    is_thinking = False
    with client.stream_chat(request) as stream:
        for chunk in stream:
            if chunk.reasoning:
                is_thinking = True
                errors().print(chunk.reasoning, end="", style="dim", markup=False, highlight=False)
            if chunk.text:
                if is_thinking:
                    is_thinking = False
                    errors().print()
                sys.stdout.write(chunk.text)
                sys.stdout.flush()
        result = stream.result()
    sys.stdout.write("\n")
    sys.stdout.flush()
    if result.finish_reason == "length":
        errors().print("(cut off: the limit of tokens was reached)", style="dim")
    return result


# -- chat -----------------------------------------------------------------------------------------------------------


def chat(
    model: ModelOption = None,
    system: SystemOption = None,
    runtime: RuntimeOption = "auto",
    n_ctx: ContextOption = None,
    temperature: TemperatureOption = None,
    max_tokens: TokensOption = None,
) -> None:
    """Talk to a model; it remembers the conversation."""
    _prepare_input()
    with make_client(model, runtime, n_ctx, temperature, max_tokens) as client:
        with starting() as progress:
            client.start(progress)
        errors().print(f"{client.settings.model}. {_CHAT_HELP}", style="dim", markup=False, highlight=False)
        _Conversation(client, system).run()


class _Conversation:
    def __init__(self, client: LocalLlamaClient, system: str | None) -> None:
        self._client = client
        self._begin = [Message("system", system)] if system else []
        self._turns = list(self._begin)
        self._saved: set[Path] = set()

    def run(self) -> None:
        while True:
            try:
                line = input("> " if has_terminal() else "").strip()
            except EOFError:
                errors().print()
                return
            except KeyboardInterrupt:
                errors().print("\n(/exit or Ctrl-D ends)", style="dim")
                continue
            if line in ("/exit", "/quit"):
                return
            try:
                self._take(line)
            except KeyboardInterrupt:
                # Before the first piece of an answer, or behind its last one.
                errors().print("\n(stopped)", style="dim")

    def _take(self, line: str) -> None:
        if line.startswith("/"):
            self._command(line)
        elif line:
            self._answer(line)

    def _command(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        if name == "/reset":
            self._turns = list(self._begin)
            errors().print("(forgotten)", style="dim")
        elif name == "/save":
            self._save(argument.strip() or "chat.json")
        else:
            errors().print(_CHAT_HELP, style="dim", markup=False, highlight=False)

    def _save(self, name: str) -> None:
        turns = [{"role": turn.role, "content": turn.content} for turn in self._turns]
        path = Path(os.path.expanduser(name)).absolute()  # noqa: PTH111  (a home that is unknown is no error)
        try:
            # Over what this conversation has saved before, and over nothing else.
            with path.open("w" if path in self._saved else "x", encoding="utf-8") as file:
                file.write(json.dumps(turns, ensure_ascii=False, indent=2) + "\n")
        except FileExistsError:
            errors().print(f"{name} is there already: /save with another name", style="red", markup=False)
            return
        except (OSError, ValueError) as error:  # ValueError: a zero byte
            reason = getattr(error, "strerror", None) or error
            errors().print(f"{name} cannot be written: {reason}", style="red", markup=False)
            return
        self._saved.add(path)
        errors().print(f"(saved in {name})", style="dim", markup=False)

    def _answer(self, line: str) -> None:
        turns = [*self._turns, Message("user", line)]
        with self._client.stream_chat(ChatRequest(tuple(turns))) as stream:
            try:
                for chunk in stream:
                    sys.stdout.write(chunk.text or "")
                    sys.stdout.flush()
            except KeyboardInterrupt:
                # The stream is closed below, which ends the generation on the server.
                errors().print(" (stopped)", style="dim")
            except LocalLlamaError as error:
                show(error)
                return
            text = stream.result().text
        sys.stdout.write("\n")
        sys.stdout.flush()
        self._turns = [*turns, Message("assistant", text)]


def _prepare_input() -> None:
    if sys.stdin is None:
        raise ConfigurationError("There is no standard input to chat on.", hint="Take `localllama ask`.")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a byte that is no text ends no conversation
    if not has_terminal():
        return
    # Ctrl-C is a KeyboardInterrupt here, whatever the shell that started us has done to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        import readline  # noqa: F401  # `input` has history and editing with it
    except ImportError:
        return
