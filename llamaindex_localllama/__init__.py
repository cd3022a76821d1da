"""LlamaIndex on local GGUF models: `LocalLlama` runs llama.cpp in a private server that belongs to this process.

from llama_index.core import Settings
from llamaindex_localllama import LocalLlama

Settings.llm = LocalLlama(model="./model.gguf")
"""

from localllama import MissingDependencyError

try:
    import llama_index.core as _llama_index  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"llamaindex_localllama needs LlamaIndex, and {error.name!r} is not installed",
        hint='Run: pip install "localllama[llamaindex]"',
    ) from error

from .llm import LocalLlama

__all__ = ["LocalLlama"]
