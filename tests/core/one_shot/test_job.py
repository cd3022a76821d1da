"""A request becomes a command line, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from localllama._one_shot.job import Job, RefusalError, chat_job, completion_job

KNOWN = frozenset(
    {"--temp", "--top-k", "--predict", "--seed", "--samplers", "--logit-bias", "--ignore-eos", "--mirostat-ent"}
)
USER = {"role": "user", "content": "Hi"}


def job(body: dict[str, Any], *, template: str | None = None, prompt: str = "P", known: frozenset[str] = KNOWN) -> Job:
    return chat_job({"messages": [USER], **body}, lambda *_: prompt, template, ("\nUser:",), known)


def test_sampling_becomes_flags_that_the_program_knows() -> None:
    made = job(
        {
            "temperature": 0.5,
            "top_k": 3,
            "seed": 7,
            "max_tokens": 9,
            "samplers": ["top_k", "temperature"],
            "logit_bias": {"15": -1.5},
            "ignore_eos": True,
            "mirostat_tau": 2,
        }
    )
    assert made.flags == (
        "--temp", "0.5", "--top-k", "3", "--mirostat-ent", "2", "--seed", "7", "--predict", "9", "--ignore-eos",
        "--samplers", "top_k;temperature", "--logit-bias", "15-1.5",
    )  # fmt: skip
    assert made.n_predict == 9
    assert made.stops == ("\nUser:",)


def test_an_unknown_flag_is_refused_by_the_settings_name() -> None:
    with pytest.raises(RefusalError, match="min_p"):
        job({"min_p": 0.1})


@pytest.mark.parametrize(
    "body",
    [
        {"logprobs": True},
        {"n": 2},
        {"lora": [{"id": 0}]},
        {"tools": [{}]},
        {"logit_bias": {"word": 1}},
        {"t_max_predict_ms": 5},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": [USER, {"role": "assistant", "content": "{"}], "json_schema": {}},
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(RefusalError, match="one-shot") as caught:
        job(body)
    assert (caught.value.kind, caught.value.status) == ("feature_disabled", 501)


@pytest.mark.parametrize(
    ("body", "schema"),
    [
        ({"response_format": {"type": "json_object"}}, '{"type": "object"}'),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": 1}}}}, '{"const": 1}'),
        ({"json_schema": {"const": "é"}}, '{"const": "é"}'),
        ({}, None),
    ],
)
def test_schemas(body: dict[str, Any], schema: str | None) -> None:
    assert job(body).schema == schema


def test_under_a_grammar_there_is_no_thinking() -> None:
    thinking = job({}, template="<think>", prompt="P<think>\n")
    assert (thinking.has_thoughts, thinking.is_thinking) == (True, True)
    strict = job({"grammar": 'root ::= "a"'}, template="<think>", prompt="P<think>\n")
    assert not strict.has_thoughts
    assert strict.prompt.endswith("</think>\n\n")
    assert job({}, template="<|channel|>", prompt="x<|channel|>y<|start|>assistant").prompt.endswith("final<|message|>")


def test_a_raw_prompt_needs_text() -> None:
    assert completion_job({"prompt": "P", "n_predict": 3, "stop": "x"}, KNOWN).stops == ("x",)
    for prompt in ("", None, [1, 2]):
        with pytest.raises(RefusalError):
            completion_job({"prompt": prompt}, KNOWN)
