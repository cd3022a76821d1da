"""Models on Hugging Face, through huggingface_hub: its cache, its token, its resumed downloads, its offline mode."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localllama.errors import MissingDependencyError, ModelCorruptError, ModelNotFoundError

from .gguf import read_gguf_header
from .hub_cache import cached_files, hub_cache
from .hub_checks import HubFile
from .hub_download import download_file, list_repository
from .names import nearest_first
from .progress import ProgressCallback
from .projectors import choose_projector
from .reference import ModelReference
from .splits import split_parts, split_position

__all__ = ["choose_file", "fetch_hub_model", "fetch_hub_projector", "is_model_name", "locate_hub_model"]

_DEFAULT_QUANTIZATIONS = ("Q4_K_M", "Q8_0")
_NOT_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
_MOST_NAMES = 12


def choose_file(files: Sequence[str], quantization: str | None) -> str | None:
    """The GGUF file that llama.cpp would take (`find_best_model` in common/download.cpp).

    With a quantization the first whose name has it, followed by "." or "-", in any case of letters. Without: the first
    with Q4_K_M, else Q8_0, else the first of all. Projectors, importance matrices, draft heads and later parts of a
    split model are passed over.
    """
    models = [name for name in files if is_model_name(name)]
    for wanted in (quantization,) if quantization else _DEFAULT_QUANTIZATIONS:
        pattern = re.compile(re.escape(wanted) + r"[.-]", re.IGNORECASE)
        for name in models:
            if pattern.search(name):
                return name
    return models[0] if models and not quantization else None


def is_model_name(name: str) -> bool:
    """Whether a file's name is that of a model, or of the first part of one."""
    base = name.rsplit("/", 1)[-1]
    if not base.lower().endswith(".gguf") or any(word in base for word in _NOT_MODELS):
        return False
    return split_position(name)[0] == 1


def locate_hub_model(reference: ModelReference) -> Path | None:
    """Where the model is in the cache of huggingface_hub; None if it is not there as a whole.

    What is in the cache wins over what a download would choose, so that a model that was used once is found without
    network. The cache is read without the library, whose import takes longer than the look. A file that came while its
    process was killed is compared with its checksum first.
    """
    snapshot, names = cached_files(reference)
    name = reference.file or choose_file(names, reference.quantization)
    if snapshot is None or name is None:
        return None
    assert reference.repo is not None
    parts = split_parts(name)
    is_whole = all((snapshot / part).is_file() for part in parts)
    is_good = is_whole and all(HubFile(hub_cache(), reference.repo, part).is_good(snapshot / part) for part in parts)
    return snapshot / parts[0] if is_good else None


def fetch_hub_model(
    reference: ModelReference, on_progress: ProgressCallback | None, *, with_projector: bool = True
) -> Path:
    """Download the model into the cache of huggingface_hub, and the projector that goes with it.

    The projector comes first, so that a model in the cache has its projector there, however the fetch ended.

    Raises:
        MissingDependencyError: huggingface_hub is not installed.
        ModelNotFoundError: No such repository or file, no access, or no network.
        ModelCorruptError: What came is not what the repository says, or the projector is none.
        ModelError: The disk has no room, or cannot be written.
    """
    hub = _hub_for(reference)
    name, projector = _chosen_on_hub(hub, reference, on_progress, with_projector=with_projector)
    if projector is not None:
        _fetch_projector(hub, reference, projector, on_progress)
    paths = [_download(hub, reference, part, on_progress) for part in split_parts(name)]
    return paths[0]


def fetch_hub_projector(reference: ModelReference, on_progress: ProgressCallback | None) -> Path | None:
    """Download the projector alone; None if the repository has none for this model. Raises as `fetch_hub_model`."""
    hub = _hub_for(reference)
    _, projector = _chosen_on_hub(hub, reference, on_progress, with_projector=True)
    return _fetch_projector(hub, reference, projector, on_progress) if projector is not None else None


def _fetch_projector(hub: Any, reference: ModelReference, name: str, on_progress: ProgressCallback | None) -> Path:
    path = _download(hub, reference, name, on_progress)
    kind = read_gguf_header(path).kind
    if kind != "mmproj":
        raise ModelCorruptError(
            f"{name} of {reference.repo} is named as a projector, but its header says {kind!r}.",
            hint='Set mmproj="off", or give the path of a projector.',
        )
    return path


def _chosen_on_hub(
    hub: Any, reference: ModelReference, on_progress: ProgressCallback | None, *, with_projector: bool
) -> tuple[str, str | None]:
    if reference.file is not None and not (with_projector and is_model_name(reference.file)):
        return reference.file, None
    files = list_repository(hub, reference, on_progress)
    name = reference.file or choose_file(files, reference.quantization)
    if name is None or name not in files:
        raise _no_such_file(reference, files, reference.file or reference.quantization)
    return name, choose_projector(files, name) if with_projector else None


def _download(hub: Any, reference: ModelReference, name: str, on_progress: ProgressCallback | None) -> Path:
    from .hub_removal import note_fetched

    here = cached_files(reference)[1]  # what is there already, another program has fetched
    path = download_file(hub, reference, name, on_progress)
    if path is None:
        raise _no_such_file(reference, list_repository(hub, reference, on_progress), name)
    if name not in here:
        note_fetched(str(reference.repo), [name])
    return path


def _hub_for(reference: ModelReference) -> Any:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingDependencyError(
            f"{reference.text!r} is on Hugging Face, and the package huggingface_hub is not installed.",
            hint="pip install huggingface_hub",
        )
    return importlib.import_module("huggingface_hub")


def _no_such_file(reference: ModelReference, files: Sequence[str], wanted: str | None) -> ModelNotFoundError:
    names = nearest_first(wanted, [name for name in files if is_model_name(name)])
    listed = ", ".join(names[:_MOST_NAMES]) + (" ..." if len(names) > _MOST_NAMES else "")
    return ModelNotFoundError(
        f"The repository {reference.repo} has no GGUF file" + (f" {wanted!r}." if wanted else "."),
        hint=f"It has: {listed}." if names else "Look for a repository whose name ends in '-GGUF'.",
    )
