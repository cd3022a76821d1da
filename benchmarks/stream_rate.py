"""Tokens per second of one long stream from a warm server: plain HTTP, our core, both wrappers, in turn.

The micro model makes tokens faster than any real model, so what is left is the cost of the way to the reader.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from measuring import micro_model, title
from raw_server import MESSAGES, raw_stream

from localllama import ChatRequest, LocalLlamaClient, Message, SamplingSettings, ServerSettings

MAX_TOKENS = 3000
QUESTION = MESSAGES[0]["content"]


def main() -> None:
    """Print the table."""
    from llama_index.core.llms import ChatMessage

    from langchain_localllama import ChatLocalLlama
    from llamaindex_localllama import LocalLlama

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    server: dict[str, Any] = {"model": micro_model(), "runtime": "embedded"}
    sampling: dict[str, Any] = {"max_tokens": MAX_TOKENS, "temperature": 0}
    request = ChatRequest((Message("user", QUESTION),))
    with (
        LocalLlamaClient(ServerSettings(**server), sampling=SamplingSettings(**sampling)) as client,
        ChatLocalLlama(**server, **sampling) as chat_model,
        LocalLlama(**server, **sampling) as llm,
    ):
        client.start()
        path = client._connection.endpoint().socket_path
        assert path is not None
        ways: dict[str, Callable[[], Iterable[object]]] = {
            "plain HTTP": lambda: raw_stream(path, MAX_TOKENS),
            "LocalLlamaClient": lambda: client.stream_chat(request),
            "ChatLocalLlama": lambda: chat_model.stream(QUESTION),
            "LocalLlama": lambda: llm.stream_chat([ChatMessage(content=QUESTION)]),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds + 1):  # the first round warms up
            for name, way in ways.items():
                began = time.perf_counter()
                n_pieces = sum(1 for _ in way())
                times[name].append(time.perf_counter() - began)
                assert n_pieces >= MAX_TOKENS * 0.9, (name, n_pieces)
    title(f"One stream of {MAX_TOKENS} tokens, micro model", rounds)
    base = statistics.median(times["plain HTTP"][1:])
    for name, values in times.items():
        median = statistics.median(values[1:])
        print(f"{name:<34}{MAX_TOKENS / median:>8.0f} tokens/s   x {median / base:.2f} of the time")


if __name__ == "__main__":
    main()
