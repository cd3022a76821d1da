"""How long a fresh process waits for the first token: start of the server, load, prompt, first token.

The base is the same server program started with the fewest flags and read by plain HTTP. Imports are not part of
either time: `import_cost.py` measures them.
"""

from __future__ import annotations

import argparse
import json
import os
import time

from measuring import compare, title

N_CTX = 2048
MAX_TOKENS = 8
OURS = ("core", "langchain", "llamaindex")
NAMES = {"core": "LocalLlamaClient", "langchain": "ChatLocalLlama", "llamaindex": "LocalLlama"}


def main() -> None:
    """Print the table, or, as the child of one measurement, its time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runtime", default="embedded", help="'embedded' (default) or the path of a llama-server")
    parser.add_argument("--measure", choices=("raw", *OURS), help=argparse.SUPPRESS)
    parser.add_argument("--model", help="a model reference (default: the micro model, then smollm2-135m)")
    options = parser.parse_args()
    if options.measure:
        seconds = MEASUREMENTS[options.measure](options.model, options.runtime)
        print(json.dumps({"seconds": seconds}))
        return
    for label, model in _models(options.model):
        title(f"First token of a fresh process, {label}", options.rounds)
        arguments = [__file__, "--model", model, "--runtime", options.runtime, "--measure"]
        compare("", [*arguments, "core"], "", [*arguments, "raw"], rounds=1)  # fills the page cache
        for ours in OURS:
            print(
                compare(
                    NAMES[ours], [*arguments, ours], "bare server", [*arguments, "raw"], rounds=options.rounds
                ).row()
            )


def _models(given: str | None) -> list[tuple[str, str]]:
    from measuring import micro_model

    from localllama._models.store import fetch_model

    if given:
        return [(given, str(fetch_model(given)))]  # the bare server knows paths only
    return [("micro model", micro_model()), ("SmolLM2-135M", str(fetch_model("smollm2-135m")))]


def _raw(model: str, runtime: str) -> float:
    from raw_server import raw_server, raw_stream

    from localllama._runtime.resolve import candidate_runtimes

    command = list(candidate_runtimes(runtime, os.environ).runtimes[0].command)
    began = time.perf_counter()
    with raw_server(command, model, N_CTX) as path:
        next(raw_stream(path, MAX_TOKENS))
        return time.perf_counter() - began


def _core(model: str, runtime: str) -> float:
    from raw_server import MESSAGES

    from localllama import ChatRequest, LocalLlamaClient, Message, SamplingSettings, ServerSettings

    began = time.perf_counter()
    sampling = SamplingSettings(max_tokens=MAX_TOKENS, temperature=0)
    client = LocalLlamaClient(ServerSettings(model=model, n_ctx=N_CTX, runtime=runtime), sampling=sampling)
    with client, client.stream_chat(ChatRequest((Message("user", MESSAGES[0]["content"]),))) as stream:
        next(chunk for chunk in stream if chunk.text)
        return time.perf_counter() - began


def _langchain(model: str, runtime: str) -> float:
    from raw_server import MESSAGES

    from langchain_localllama import ChatLocalLlama

    began = time.perf_counter()
    with ChatLocalLlama(model=model, n_ctx=N_CTX, runtime=runtime, max_tokens=MAX_TOKENS, temperature=0) as llm:
        next(chunk for chunk in llm.stream(MESSAGES[0]["content"]) if chunk.text)
        return time.perf_counter() - began


def _llamaindex(model: str, runtime: str) -> float:
    from llama_index.core.llms import ChatMessage
    from raw_server import MESSAGES

    from llamaindex_localllama import LocalLlama

    began = time.perf_counter()
    with LocalLlama(model=model, n_ctx=N_CTX, runtime=runtime, max_tokens=MAX_TOKENS, temperature=0) as llm:
        next(chunk for chunk in llm.stream_chat([ChatMessage(content=MESSAGES[0]["content"])]) if chunk.delta)
        return time.perf_counter() - began


MEASUREMENTS = {"raw": _raw, "core": _core, "langchain": _langchain, "llamaindex": _llamaindex}


if __name__ == "__main__":
    main()
