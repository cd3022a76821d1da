"""Which repositories on Hugging Face are called almost like one that is not there."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from typing import Any

from .hub_cache import cached_repositories
from .hub_models import HUB_MODELS
from .reference import ModelReference

__all__ = ["near_repositories"]

_TIMEOUT_SECONDS = 10.0
_MOST_ASKED_FOR = 200
_MOST_NAMED = 3
_NEAR = 0.7


def near_repositories(reference: ModelReference) -> list[str]:
    """The nearest of the owner's repositories with GGUF files, those of the catalog, and those in the cache."""
    assert reference.repo is not None
    known = {model.reference.rpartition(":")[0] for model in HUB_MODELS.values()} | cached_repositories()
    with contextlib.suppress(
        Exception
    ):  # a help that fails changes nothing about the error: there is no such repository
        known.update(_repositories_of(reference.repo.partition("/")[0]))
    return difflib.get_close_matches(reference.repo, sorted(known - {reference.repo}), n=_MOST_NAMED, cutoff=_NEAR)


def _repositories_of(owner: str) -> list[str]:
    # Not `list_models`: it has no time limit.
    hub: Any = importlib.import_module("huggingface_hub")
    sessions: Any = importlib.import_module("huggingface_hub.utils")
    answer = sessions.get_session().get(
        f"{hub.constants.ENDPOINT}/api/models",
        params={"author": owner, "filter": "gguf", "limit": str(_MOST_ASKED_FOR)},
        headers=sessions.build_hf_headers(),
        timeout=_TIMEOUT_SECONDS,
    )
    answer.raise_for_status()
    return [str(found["id"]) for found in answer.json()]
