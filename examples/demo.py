"""One private server, two frameworks: a local model answers in a LangChain chain, then as LlamaIndex's `Settings.llm`.

    python examples/demo.py                          SmolLM2-135M-Instruct, fetched on first use (98 MB)
    python examples/demo.py --model ./model.gguf     any other model that llama.cpp knows

The answers go to stdout, the progress to stderr.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from localllama import LocalLlamaClient, LocalLlamaError, ModelInfo, ServerSettings, StartProgress

SYSTEM = "You are a helpful assistant. Answer in one short sentence."
SAMPLING = {"temperature": 0, "max_tokens": 160}
MB = 1_000_000

Ask = Callable[[str], Iterable[str]]
"""Takes a question, gives the answer piece by piece."""


@contextmanager
def langchain(server: dict[str, Any]) -> Iterator[Ask]:
    """A chain as any LangChain program builds it."""
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    from langchain_localllama import ChatLocalLlama

    prompt = ChatPromptTemplate.from_messages([("system", SYSTEM), ("human", "{question}")])
    with ChatLocalLlama(**server, **SAMPLING) as llm:
        chain = prompt | llm | StrOutputParser()
        yield lambda question: chain.stream({"question": question})


@contextmanager
def llamaindex(server: dict[str, Any]) -> Iterator[Ask]:
    """The model that all of LlamaIndex uses by default."""
    from llama_index.core import Settings
    from llama_index.core.llms import ChatMessage

    from llamaindex_localllama import LocalLlama

    def ask(question: str) -> Iterator[str]:
        messages = [ChatMessage(role="system", content=SYSTEM), ChatMessage(role="user", content=question)]
        return (chunk.delta or "" for chunk in Settings.llm.stream_chat(messages))

    with LocalLlama(**server, **SAMPLING) as llm:
        Settings.llm = llm
        yield ask


DEMONSTRATIONS = (
    ("LangChain", langchain, "Why is the sky blue?"),
    ("LlamaIndex", llamaindex, "What is a library?"),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m", help="path or other model reference (default: %(default)s)")
    model = parser.parse_args(arguments).model
    # A thinking model would spend the few tokens of a demo on thoughts that are not shown.
    server = {"model": model, "reasoning": "off"}
    try:
        # The frameworks' objects get equal settings, so all three share the one server that starts here.
        with LocalLlamaClient(ServerSettings(**server)) as client:
            return run(client, server)
    except LocalLlamaError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The server is stopped.", file=sys.stderr)
        return 130


def run(client: LocalLlamaClient, server: dict[str, Any]) -> int:
    """Start the server, ask through both frameworks, stop it, and show what each part took."""
    began = time.monotonic()
    progress = ProgressLine()
    client.start(on_progress=progress)
    progress.finish()
    print(describe(client.model_info()))
    children = psutil.Process().children(recursive=True)

    answers = {}
    for name, framework, question in DEMONSTRATIONS:
        print(f"\n{name}\n  > {question}\n  ", end="", flush=True)
        with framework(server) as ask:
            answers[name] = show(ask(question))
    n_tokens = {name: len(client.tokenize(answer.text)) for name, answer in answers.items()}

    stop_began = time.monotonic()
    client.close()
    _, alive = psutil.wait_procs(children, timeout=5)
    ended = time.monotonic()

    print("\nWhat it took")
    row("fetching the model", seconds(progress.fetch_seconds) if progress.fetch_seconds else "no time, it was here")
    row("starting the server", seconds(progress.start_seconds))
    for name, answer in answers.items():
        row(f"{name}: first token", f"{seconds(answer.first_token_seconds)}, then {answer.speed(n_tokens[name])}")
    row("stopping the server", seconds(ended - stop_began))
    row("everything", seconds(ended - began))
    if alive:
        print(f"\nStill running, which is a bug: {', '.join(str(child.pid) for child in alive)}", file=sys.stderr)
        return 1
    print(f"\nNothing is left running: processes {' and '.join(str(child.pid) for child in children)} are gone.")
    return 0


@dataclass(frozen=True)
class Answer:
    """What came, and when."""

    text: str
    first_token_seconds: float
    generation_seconds: float

    def speed(self, n_tokens: int) -> str:
        """Tokens per second after the first, for people."""
        if n_tokens < 2 or self.generation_seconds <= 0:
            return f"{n_tokens} tokens in all"
        return f"{(n_tokens - 1) / self.generation_seconds:.0f} tokens/s ({n_tokens} tokens)"


def show(pieces: Iterable[str]) -> Answer:
    """Print the pieces as they come."""
    began = time.monotonic()
    first: float | None = None
    text = ""
    for piece in pieces:
        if piece and first is None:
            first = time.monotonic()
        shown = piece if text else piece.lstrip()
        text += shown
        print(shown.replace("\n", "\n  "), end="", flush=True)
    ended = time.monotonic()
    print(flush=True)
    first = first or ended
    return Answer(text, first_token_seconds=first - began, generation_seconds=ended - first)


class ProgressLine:
    """Tells on stderr what happens before the first answer: one line that changes on a terminal, plain lines elsewhere."""

    PLAIN_STEPS = 4

    def __init__(self) -> None:
        self.fetch_seconds = 0.0
        self.start_seconds = 0.0
        self._began = time.monotonic()
        self._shown = ""
        self._is_fetching = False
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, progress: StartProgress) -> None:
        """Take one report."""
        if progress.stage == "fetching":
            self._is_fetching = True
            self._show_fetching(progress)
            return
        if self._is_fetching:
            self._is_fetching = False
            self.fetch_seconds = time.monotonic() - self._began
        if progress.stage == "starting":
            self._show("starting the server ...")
        elif progress.stage == "loading":
            self._show("loading the model ...")

    def finish(self) -> None:
        """The server is ready."""
        self.start_seconds = time.monotonic() - self._began - self.fetch_seconds
        self._show(f"ready after {seconds(time.monotonic() - self._began)}")
        if self._is_terminal:
            print(file=sys.stderr)

    def _show_fetching(self, progress: StartProgress) -> None:
        name = f"fetching {progress.detail or 'the model'}"
        if not progress.total_bytes:
            self._show(f"{name} ..." if not self._is_terminal else f"{name}: {progress.done_bytes / MB:.0f} MB")
            return
        share = progress.done_bytes / progress.total_bytes
        if not self._is_terminal:
            share = int(share * self.PLAIN_STEPS) / self.PLAIN_STEPS
        self._show(f"{name}: {share:.0%} of {progress.total_bytes / MB:.0f} MB")

    def _show(self, text: str) -> None:
        if text == self._shown:
            return
        self._shown = text
        start, end = ("\r\033[K", "") if self._is_terminal else ("", "\n")
        print(f"{start}{text}", end=end, file=sys.stderr, flush=True)


def describe(model: ModelInfo | None) -> str:
    """One line about the model."""
    if model is None:
        return "Model: unknown"
    parts = [model.name, model.quantization, f"{model.size_bytes / MB:.0f} MB", f"a window of {model.n_ctx} tokens"]
    return "Model: " + ", ".join(part for part in parts if part)


def seconds(value: float) -> str:
    """Seconds for people."""
    return f"{value:.2f} s"


def row(what: str, value: str) -> None:
    """One line of the closing table."""
    print(f"  {what:<26}{value}")


if __name__ == "__main__":
    sys.exit(main())
