"""What both classes of LangChain's standard integration suite, live and recorded, declare of `ChatLocalLlama`."""

from __future__ import annotations

from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_localllama import ChatLocalLlama

CACHED_PROMPT = "Tell me about the sea. " * 10
# The likeliest words of so small a model go round in circles; `dry_multiplier` lets it out of them.
SMOLLM2_WORDS = {"temperature": 0, "dry_multiplier": 0.8, "max_tokens": 200}


class StandardSuite(ChatModelIntegrationTests):
    """The suite as it is, with what the model can do."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLocalLlama

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def enable_vcr_tests(self) -> bool:
        # `test_stream_time` measures the time between the bytes and the caller, which is what the recorded run is for; live, its
        # story is told once by the server.
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}
