"""What importing our packages costs beyond importing what they stand on, each in a fresh interpreter."""

from __future__ import annotations

import argparse

from measuring import compare, title

PAIRS = (
    ("localllama", "pydantic"),
    ("langchain_localllama", "langchain_core.language_models"),
    ("llamaindex_localllama", "llama_index.core.llms"),
)
PROGRAM = (
    "import json, time; b = time.perf_counter(); import {}; print(json.dumps({{'seconds': time.perf_counter() - b}}))"
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    title("Import", rounds)
    for ours, base in PAIRS:
        compare(ours, ["-c", PROGRAM.format(ours)], base, ["-c", PROGRAM.format(base)], rounds=1)  # fills the caches
        print(compare(ours, ["-c", PROGRAM.format(ours)], base, ["-c", PROGRAM.format(base)], rounds=rounds).row())


if __name__ == "__main__":
    main()
