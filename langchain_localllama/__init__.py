"""Local GGUF models through llama.cpp as a LangChain chat model: `ChatLocalLlama`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localllama import MissingDependencyError

try:
    import langchain_core as _langchain_core  # noqa: F401  # the package alone: its submodules cost 0.4 s
except ModuleNotFoundError as error:
    if error.name != "langchain_core":
        raise
    raise MissingDependencyError(
        "langchain_localllama needs langchain-core, which is not installed",
        hint='Run: pip install "localllama[langchain]"',
    ) from error

if TYPE_CHECKING:
    from .chat_models import ChatLocalLlama as ChatLocalLlama

__all__ = ["ChatLocalLlama"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import chat_models

        return getattr(chat_models, name)
    if name == "__version__":
        import localllama

        return localllama.__version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
