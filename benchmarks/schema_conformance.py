"""How many answers of random tokens satisfy their schema: sent as it is, prepared, and in the narrow form of a repair.

    python benchmarks/schema_conformance.py [SEEDS]

A model with random weights is a fuzzer of the grammar: what the grammar allows, it writes sooner or later. Counts, by group
of keywords, valid answers of those that were not cut by length. Needs the runtime and takes about a minute.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from localllama import BadRequestError, ChatRequest, LocalLlamaClient, Message, SamplingSettings, ServerSettings
from localllama._protocol.schemas import GenerationBounds, check_instance, prepare_schema
from support.micro_model import build_micro_model
from support.schema_cases import SCHEMA_CASES

MAX_TOKENS = 2_600
TEMPERATURES = (1.0, 1.6, 0.7)
BANNED_TOKENS = (0, 1, *range(131, 261))  # bytes beyond ASCII, and control tokens, which answers do not show
WAYS = ("as it is", "prepared", "narrow")


def main() -> None:
    """Print one line for each group, and the sum."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    with tempfile.TemporaryDirectory() as directory:
        model = build_micro_model(Path(directory) / "micro.gguf")
        with LocalLlamaClient(ServerSettings(model=str(model), n_ctx=4096, n_threads=1)) as client:
            print(f"{'group':<24}" + "".join(f"{way:>16}" for way in WAYS))
            total: dict[str, Counter[str]] = {way: Counter() for way in WAYS}
            for group, schemas in SCHEMA_CASES.items():
                counts = {way: Counter[str]() for way in WAYS}
                for schema in schemas:
                    for way, sent in forms(schema):
                        counts[way] += tally(client, schema, sent, seeds)
                print(f"{group:<24}" + "".join(f"{shown(counts[way]):>16}" for way in WAYS))
                for way in WAYS:
                    total[way] += counts[way]
            print(f"{'all':<24}" + "".join(f"{shown(total[way]):>16}" for way in WAYS))


def forms(schema: dict[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The three forms of a schema that are sent."""
    prepared = prepare_schema(schema, bounds=GenerationBounds.for_tokens(MAX_TOKENS))
    return zip(WAYS, (schema, prepared.for_server, prepared.for_repair), strict=True)


def tally(
    client: LocalLlamaClient, schema: Mapping[str, Any], sent: Mapping[str, Any], seeds: Iterable[int]
) -> Counter[str]:
    """Valid, invalid, cut and refused answers."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        sampling = SamplingSettings(
            max_tokens=MAX_TOKENS,
            seed=seed,
            temperature=TEMPERATURES[seed % len(TEMPERATURES)],
            top_k=0,
            top_p=1.0,
            min_p=0.0,
            extra_body={
                "response_format": {"type": "json_schema", "json_schema": {"schema": dict(sent)}},
                "logit_bias": [[token, False] for token in BANNED_TOKENS],
            },
        )
        try:
            result = client.chat(ChatRequest((Message("user", f"Seed {seed}."),)), sampling=sampling)
        except BadRequestError:
            counts["refused"] += 1
            continue
        if result.finish_reason == "length":
            counts["cut"] += 1
        else:
            counts["valid" if check_instance(schema, result.text).is_valid else "invalid"] += 1
    return counts


def shown(counts: Counter[str]) -> str:
    """Valid answers of those that were not cut."""
    return f"{counts['valid']}/{counts['valid'] + counts['invalid'] + counts['refused']}"


if __name__ == "__main__":
    main()
