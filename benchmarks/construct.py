"""How long it takes to construct ten models: nothing is started, read or fetched for it."""

from __future__ import annotations

import argparse

from measuring import answer_of, title

PROGRAM = """
import json, os, time
{statement}
began = time.perf_counter()
models = [{name}(model=f"model-{{i}}.gguf", temperature=0) for i in range(10)]
seconds = time.perf_counter() - began
import psutil
print(json.dumps({{"seconds": seconds, "n_children": len(psutil.Process().children())}}))
"""
CLASSES = (
    ("from langchain_localllama import ChatLocalLlama", "ChatLocalLlama"),
    ("from llamaindex_localllama import LocalLlama", "LocalLlama"),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    title("Ten constructions", rounds)
    for statement, name in CLASSES:
        answers = [answer_of(["-c", PROGRAM.format(statement=statement, name=name)]) for _ in range(rounds)]
        times = sorted(answer["seconds"] for answer in answers)
        n_children = max(answer["n_children"] for answer in answers)
        print(f"{name:<34}{times[len(times) // 2] * 1000:>7.1f} ms   {n_children} processes started")


if __name__ == "__main__":
    main()
