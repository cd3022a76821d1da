"""LangChain's standard integration suite, as it is, over recorded HTTP of SmolLM2: the whole of it, in seconds."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import base
from langchain_core.runnables.config import get_executor_for_config

from support.standard_suite import CACHED_PROMPT, SMOLLM2_WORDS, StandardSuite

from .ways import BASE_URL

pytestmark = [pytest.mark.vcr, pytest.mark.block_network]


@pytest.fixture
def vcr_config(vcr_config: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    # There the same question is asked twice, and the second answer tells what the first one left in the cache.
    is_asked_again = "usage_metadata" in request.node.name
    return {**vcr_config, "allow_playback_repeats": not is_asked_again}


@pytest.fixture(autouse=True)
def batches_in_order(monkeypatch: pytest.MonkeyPatch, record_mode: str) -> None:
    """Which thread of a batch asks first is chance, and what it asks stays in the server's cache for the next one."""
    if record_mode != "none":
        monkeypatch.setattr(
            base, "get_executor_for_config", lambda config: get_executor_for_config({"max_concurrency": 1})
        )


class TestStandard(StandardSuite):
    """All of it. (tests/langchain/test_standard_live.py has it with a server, and for each way to structured output.)"""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": BASE_URL, "model": "smollm2", **SMOLLM2_WORDS}

    @property
    def model_override_value(self) -> str:
        return "another-name"  # a server at base_url is asked by the name

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        llm = self.chat_model_class(**{**self.chat_model_params, "max_tokens": 4})
        llm.invoke(CACHED_PROMPT)
        if not stream:
            again = llm.invoke(CACHED_PROMPT)
        else:
            first, *rest = llm.stream(CACHED_PROMPT)
            for chunk in rest:
                first += chunk
            again = first
        assert again.usage_metadata is not None
        assert again.usage_metadata["input_token_details"]["cache_read"] > 0
        return again
