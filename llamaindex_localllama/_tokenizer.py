"""The model's own tokenizer in the form that LlamaIndex wants."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from localllama import LocalLlamaClient

__all__ = ["Tokenizer"]

_N_REMEMBERED = 16384


class Tokenizer:
    """Text to token ids, for `Settings.tokenizer` and wherever LlamaIndex takes a `Callable[[str], list]`.

    The server is asked, so the first call starts it. Splitters ask for one word at a time, and mostly for words that
    they have asked for before; these are remembered.

    Args:
        client: Whose model; once it is closed, the tokenizer is too.
    """

    def __init__(self, client: LocalLlamaClient) -> None:
        self._client = client
        # Not of a method of this object: the cycle would keep the client's share of the server alive.
        self._remembered = lru_cache(maxsize=_N_REMEMBERED)(client.tokenize)

    def __call__(self, text: str) -> list[int]:
        """The token ids of `text`, without those that begin or end a prompt.

        Raises:
            LocalLlamaError: The server could not be started or reached.
        """
        return list(self._remembered(text)) if len(text) <= _LONGEST_REMEMBERED else self._client.tokenize(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._client,)


_LONGEST_REMEMBERED = 64
"""Characters; a word, and not a chunk."""
