"""LangChain's standard integration suite, as it is, over recorded HTTP of SmolLM2: the whole of it, in seconds."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_localllama import ChatLocalLlama

from .ways import BASE_URL

pytestmark = [pytest.mark.vcr, pytest.mark.block_network]

CACHED_PROMPT = "Tell me about the sea. " * 10


@pytest.fixture
def vcr_config(vcr_config: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    # There the same question is asked twice, and the second answer tells what the first one left in the cache.
    is_asked_again = "usage_metadata" in request.node.name
    return {**vcr_config, "allow_playback_repeats": not is_asked_again}


class TestStandard(ChatModelIntegrationTests):
    """All of it. (tests/langchain/test_standard_live.py has it with a server, and for each way to structured output.)"""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLocalLlama

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # The likeliest words of so small a model go round in circles; `dry_multiplier` lets it out of them.
        words = {"temperature": 0, "dry_multiplier": 0.8, "max_tokens": 200}
        return {"base_url": BASE_URL, "model": "smollm2", **words}

    @property
    def model_override_value(self) -> str:
        return "another-name"  # a server at base_url is asked by the name

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def enable_vcr_tests(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

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
