"""How much a model may think before an answer of a fixed form.

llama.cpp's grammar covers the thinking phase but does not bound it, so a thinking model can use up `max_tokens` before the
first brace. What the caller sets wins; else thinking is switched off where the template has the switch, and gets a budget
where it has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from localllama.settings import SamplingSettings
from localllama.types import ServerInfo

__all__ = ["says_how_to_think", "with_bounded_thinking", "without_thinking"]

_OWN_KEYS = frozenset(
    {
        "enable_thinking",
        "thinking",
        "reasoning_effort",
        "reasoning_budget_tokens",
        "thinking_budget_tokens",
        "reasoning",
    }
)
_MAY_THINK = re.compile(r"think|reasoning|<\|channel\|>", re.IGNORECASE)
_OPEN_THOUGHT = re.compile(r"<(think|thinking|seed:think|reasoning)>\s*\Z")
_LARGEST_BUDGET = 1024
_SHARE = 4


def says_how_to_think(
    reasoning: str | None,
    budget: int | None,
    template_kwargs: Mapping[str, Any] | None,
    extra: Mapping[str, Any] | None,
) -> bool:
    """Whether these settings say anything of thinking."""
    keys = (template_kwargs or {}).keys() | (extra or {}).keys()
    return reasoning in ("on", "off") or budget is not None or bool(_OWN_KEYS & keys)


def with_bounded_thinking(sampling: SamplingSettings, server: ServerInfo) -> SamplingSettings:
    """The settings for an answer of a fixed form, where nothing was said of thinking."""
    if sampling.reasoning == "auto" or says_how_to_think(
        sampling.reasoning, sampling.reasoning_budget, sampling.chat_template_kwargs, sampling.extra_body
    ):
        return sampling
    template = server.chat_template
    if "enable_thinking" in template:
        return sampling.merged({"reasoning": "off"})
    if not _MAY_THINK.search(template):
        return sampling
    limit = sampling.max_tokens if sampling.max_tokens and sampling.max_tokens > 0 else server.n_ctx
    return sampling.merged({"reasoning_budget": max(1, min(_LARGEST_BUDGET, limit // _SHARE))})


def without_thinking(prompt: str) -> str:
    """A rendered prompt, gone on to where the answer begins: for a grammar that applies from the first token."""
    ending = _OPEN_THOUGHT.search(prompt)
    if ending is not None:
        return f"{prompt.rstrip()}\n</{ending[1]}>\n\n"
    if "<|channel|>" in prompt and prompt.endswith("<|start|>assistant"):
        return f"{prompt}<|channel|>final<|message|>"
    return prompt
