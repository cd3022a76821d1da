"""Short names for models on Hugging Face, with what helps to choose one. This is data: to add a model, add a line.

Sizes are those of the file that the reference means, in round numbers; a file is fetched by its repository's own size and
checksum.
"""

from __future__ import annotations

from dataclasses import dataclass

from .catalog import CATALOG

__all__ = ["HUB_MODELS", "CatalogModel", "catalog_models"]


@dataclass(frozen=True)
class CatalogModel:
    """A model with a short name.

    Attributes:
        name: The short name.
        reference: What it stands for.
        size_bytes: About the size of the file.
        quantization: Such as "Q4_K_M".
        n_ctx_train: The length that it was trained for, in tokens.
        licence: Of the weights.
        description: One line for people.
        is_recommended: Fit for an assistant of all trades, rather than for one trade or for tests.
    """

    name: str
    reference: str
    size_bytes: int
    quantization: str
    n_ctx_train: int
    licence: str
    description: str
    is_recommended: bool = False


def _model(  # a table
    name: str,
    repo: str,
    quantization: str,
    gigabytes: float,
    n_ctx_train: int,
    licence: str,
    description: str,
    *,
    is_recommended: bool = False,
) -> CatalogModel:
    size_bytes = int(gigabytes * 1e9)
    reference = f"{repo}:{quantization}"
    return CatalogModel(
        name, reference, size_bytes, quantization, n_ctx_train, licence, description, is_recommended=is_recommended
    )


_CODER = "Qwen/Qwen2.5-Coder-{}-Instruct-GGUF"
_MODELS = (
    _model("qwen2.5-coder-1.5b", _CODER.format("1.5B"), "Q4_K_M", 1.12, 32768, "Apache-2.0", "small model for code"),
    _model("qwen2.5-coder-3b", _CODER.format("3B"), "Q4_K_M", 2.1, 32768, "Qwen-Research", "middling model for code"),
    _model("qwen2.5-coder-7b", _CODER.format("7B"), "Q4_K_M", 4.68, 32768, "Apache-2.0", "good model for code"),
    _model("llama-3.2-1b", "bartowski/Llama-3.2-1B-Instruct-GGUF", "Q4_K_M", 0.81, 131072, "Llama-3.2", "small assistant", is_recommended=True),
    _model("llama-3.2-3b", "bartowski/Llama-3.2-3B-Instruct-GGUF", "Q4_K_M", 2.02, 131072, "Llama-3.2", "assistant that calls tools", is_recommended=True),
    _model("llama-3.1-8b", "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "Q4_K_M", 4.92, 131072, "Llama-3.1", "assistant that calls tools", is_recommended=True),
    _model("phi-3.5-mini", "bartowski/Phi-3.5-mini-instruct-GGUF", "Q4_K_M", 2.39, 131072, "MIT", "reasons well for its size"),
    _model("gemma-2-2b", "bartowski/gemma-2-2b-it-GGUF", "Q4_K_M", 1.71, 8192, "Gemma", "writes well; short window"),
    _model("gemma-3-1b", "ggml-org/gemma-3-1b-it-GGUF", "Q4_K_M", 0.81, 32768, "Gemma", "small assistant", is_recommended=True),
    _model("gemma-3-4b", "ggml-org/gemma-3-4b-it-GGUF", "Q4_K_M", 2.49, 131072, "Gemma", "assistant in many languages; sees images", is_recommended=True),
    _model("qwen3-0.6b", "Qwen/Qwen3-0.6B-GGUF", "Q8_0", 0.64, 32768, "Apache-2.0", "very small; thinks; calls tools"),
    _model("qwen3-4b", "Qwen/Qwen3-4B-GGUF", "Q4_K_M", 2.5, 32768, "Apache-2.0", "thinks; calls tools", is_recommended=True),
    _model("qwen3-8b", "Qwen/Qwen3-8B-GGUF", "Q4_K_M", 5.03, 32768, "Apache-2.0", "thinks; calls tools", is_recommended=True),
    _model("smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", "Q4_K_M", 1.06, 8192, "Apache-2.0", "small assistant"),
    _model("smollm3-3b", "ggml-org/SmolLM3-3B-GGUF", "Q4_K_M", 1.92, 65536, "Apache-2.0", "thinks; fully open", is_recommended=True),
    _model("gpt-oss-20b", "ggml-org/gpt-oss-20b-GGUF", "MXFP4", 12.1, 131072, "Apache-2.0", "thinks; calls tools; wants 16 GB", is_recommended=True),
)  # fmt: skip

HUB_MODELS: dict[str, CatalogModel] = {model.name: model for model in _MODELS}


def catalog_models() -> tuple[CatalogModel, ...]:
    """Every model with a short name, smallest first."""
    pinned = (
        CatalogModel(
            entry.name,
            entry.name,
            entry.size_bytes,
            entry.quantization,
            entry.n_ctx_train,
            entry.licence,
            entry.description,
        )
        for entry in CATALOG.values()
    )
    return tuple(sorted((*pinned, *HUB_MODELS.values()), key=lambda model: model.size_bytes))
