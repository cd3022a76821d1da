"""Random tokens under the grammar of a prepared schema: what comes out satisfies the original, each time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from localllama import ChatRequest, ChatResult, LocalLlamaClient, Message, SamplingSettings, ServerSettings
from localllama._protocol.gbnf import grammar_of
from localllama._protocol.schemas import ENDLESS_NUMBER, CheckResult, GenerationBounds, check_instance, prepare_schema
from support.schema_cases import SCHEMA_CASES

MAX_TOKENS = 3_000
SEEDS = (1, 2, 3)
TEMPERATURES = (1.0, 1.6, 0.7)
# Bytes beyond ASCII would make text that is not UTF-8, and control tokens count as text in the grammar but not in the answer.
BANNED_TOKENS = (0, 1, *range(131, 261))

CASES = [
    pytest.param(schema, id=f"{group}-{number}")
    for group, schemas in SCHEMA_CASES.items()
    for number, schema in enumerate(schemas)
]


@pytest.fixture(scope="module")
def client(micro_model: Path) -> Iterator[LocalLlamaClient]:
    runtime = os.environ.get("LOCALLLAMA_TEST_LLAMA_SERVER", "auto")
    settings = ServerSettings(model=str(micro_model), runtime=runtime, n_ctx=4096, n_threads=1)
    with LocalLlamaClient(settings) as client:
        client.start()  # here, so that it is no process that a single test left behind
        yield client


def sampling(seed: int, **changes: Any) -> SamplingSettings:
    """Noise: nothing is cut off from what the grammar lets through, but for the banned tokens."""
    extra_body = {"logit_bias": [[token, False] for token in BANNED_TOKENS], **changes.pop("extra_body", {})}
    temperature = TEMPERATURES[seed % len(TEMPERATURES)]
    wide = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    return SamplingSettings(
        max_tokens=MAX_TOKENS, seed=seed, temperature=temperature, extra_body=extra_body, **wide, **changes
    )


def generate(client: LocalLlamaClient, schema: Mapping[str, Any], seed: int) -> ChatResult:
    # Past the client, which prepares a response_format itself.
    form = {"response_format": {"type": "json_schema", "json_schema": {"schema": dict(schema)}}}
    return client.chat(ChatRequest((Message("user", f"Seed {seed}."),)), sampling=sampling(seed, extra_body=form))


def generate_raw(client: LocalLlamaClient, schema: Mapping[str, Any], seed: int) -> ChatResult:
    return client.complete(f"Seed {seed}.", sampling=sampling(seed, grammar=grammar_of(schema)))


def answers(client: LocalLlamaClient, schema: Mapping[str, Any], sent: Mapping[str, Any]) -> list[CheckResult]:
    results = [generate(client, sent, seed) for seed in SEEDS]
    whole = [result.text for result in results if result.finish_reason == "stop"]
    assert whole, f"every answer was cut: {results[0].text[:300]}"
    return [check_instance(schema, text) for text in whole]


@pytest.mark.parametrize("schema", CASES)
def test_answers_satisfy_the_schema(client: LocalLlamaClient, schema: dict[str, Any]) -> None:
    prepared = prepare_schema(schema, bounds=GenerationBounds.for_tokens(MAX_TOKENS // 2))
    assert prepared.unenforced_in_repair == ()
    for check in answers(client, schema, prepared.for_repair):
        # Newer builds of llama.cpp write numbers without an end; the repair of those goes by our own grammar, see below.
        assert {violation.keyword for violation in check.violations} <= {ENDLESS_NUMBER}, check.violations
    # In the first attempt only what is named as left to the check may be wrong.
    left = {keyword for _, keyword in prepared.unenforced} | ({"oneOf"} if prepared.unenforced else set())
    left.add(ENDLESS_NUMBER)
    for check in answers(client, schema, prepared.for_server):
        assert {violation.keyword for violation in check.violations} <= left, check.violations


@pytest.mark.parametrize("schema", CASES)
def test_raw_answers_satisfy_the_schema(client: LocalLlamaClient, schema: dict[str, Any]) -> None:
    """Under our own grammar; what it says of each schema, `test_gbnf.py` tells."""
    prepared = prepare_schema(schema, bounds=GenerationBounds.for_tokens(MAX_TOKENS // 2))
    results = (generate_raw(client, prepared.for_repair, seed) for seed in range(1, 20))
    # Noise may go on with a map or a list until it is cut; an answer that ends comes soon.
    text = next((result.text for result in results if result.finish_reason == "stop"), None)
    assert text is not None, "every answer was cut"
    assert check_instance(schema, text).violations == ()


def test_llama_cpp_alone_breaks_a_schema_that_is_prepared_here(client: LocalLlamaClient) -> None:
    """The reason for all this, and the proof that the test above can fail."""
    schema = {
        "type": "object",
        "properties": {"n": {"type": "number", "minimum": 100, "maximum": 101}},
        "required": ["n"],
    }
    assert not all(check.is_valid for check in answers(client, schema, schema))
    assert all(check.is_valid for check in answers(client, schema, prepare_schema(schema).for_repair))


def test_a_long_string_and_many_items_pass(client: LocalLlamaClient) -> None:
    prepared = prepare_schema({"type": "string", "minLength": 2_500})
    checks = answers(client, prepared.original, prepared.for_server)
    assert all(check.is_valid for check in checks)
    assert all(len(json.dumps(check.value)) > 2_500 for check in checks)
