"""How much may be thought before an answer of a fixed form, and where a raw prompt goes on behind the thinking."""

from __future__ import annotations

from typing import Any

import pytest

from localllama import SamplingSettings, ServerInfo
from localllama._protocol.thinking import says_how_to_think, with_bounded_thinking, without_thinking

SWITCHED = "{% if enable_thinking %}<think>{% endif %}"
UNSWITCHED = "{{ messages }}<think>"


def bounded(template: str, *, n_ctx: int = 4096, **given: Any) -> SamplingSettings:
    sampling: SamplingSettings = SamplingSettings.build(given)
    return with_bounded_thinking(sampling, ServerInfo(n_ctx=n_ctx, chat_template=template))


@pytest.mark.parametrize(
    "given",
    [
        {"reasoning": "on"},
        {"reasoning": "off"},
        {"reasoning_budget": 0},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"chat_template_kwargs": {"thinking": True}},
        {"chat_template_kwargs": {"reasoning_effort": "low"}},
        {"extra_body": {"reasoning_budget_tokens": 9}},
        {"extra_body": {"thinking_budget_tokens": 9}},
        {"extra_body": {"reasoning": "on"}},
        {"reasoning": "auto"},
    ],
    ids=str,
)
@pytest.mark.parametrize("template", [SWITCHED, UNSWITCHED], ids=["switch", "no switch"])
def test_what_the_caller_says_wins(given: dict[str, Any], template: str) -> None:
    assert bounded(template, **given) == SamplingSettings.build(given)


def test_other_variables_of_a_template_say_nothing_of_thinking() -> None:
    assert not says_how_to_think(None, None, {"city": "Bonn"}, {"cache_prompt": True})
    assert not says_how_to_think("auto", None, None, None)


def test_thinking_is_switched_off_where_the_template_has_the_switch() -> None:
    assert bounded(SWITCHED, temperature=0.5) == SamplingSettings(temperature=0.5, reasoning="off")


@pytest.mark.parametrize(
    ("max_tokens", "n_ctx", "budget"),
    [(100, 4096, 25), (3, 4096, 1), (8000, 8192, 1024), (None, 2048, 512), (-1, 2048, 512), (None, 0, 1)],
)
def test_without_a_switch_it_gets_a_share_of_the_tokens(max_tokens: int | None, n_ctx: int, budget: int) -> None:
    for template in (UNSWITCHED, "<|channel|>analysis", "{{ Reasoning }}"):
        made = bounded(template, n_ctx=n_ctx, max_tokens=max_tokens)
        assert (made.reasoning, made.reasoning_budget) == (None, budget)


def test_a_template_that_does_not_think_is_left_alone() -> None:
    assert bounded("{{ messages }}", max_tokens=100) == SamplingSettings(max_tokens=100)


@pytest.mark.parametrize("tag", ["think", "thinking", "seed:think", "reasoning"])
def test_thinking_that_the_prompt_has_opened_is_closed(tag: str) -> None:
    assert without_thinking(f"Hi<{tag}>\n") == f"Hi<{tag}>\n</{tag}>\n\n"


def test_an_answer_of_channels_begins_in_the_last_one() -> None:
    prompt = "<|start|>system<|channel|>x<|start|>assistant"
    assert without_thinking(prompt) == f"{prompt}<|channel|>final<|message|>"


@pytest.mark.parametrize(
    "prompt", ["Hi", "<think>done</think>\n", "say <think> please", "<|start|>assistant", "<|channel|>x<|end|>"]
)
def test_any_other_prompt_is_as_it_was(prompt: str) -> None:
    assert without_thinking(prompt) == prompt
