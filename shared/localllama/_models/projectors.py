"""Which projector goes with a model that sees or hears: as `llama-server -hf` chooses it, without being told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from localllama.errors import LocalLlamaError

from .files import list_model_files
from .gguf import read_gguf_header
from .reference import ModelReference, parse_reference
from .splits import split_parts, split_stem

__all__ = ["choose_projector", "is_projector_name", "locate_projector"]

_MARK = "mmproj"
_TAG = re.compile(r"[-.](?P<tag>[A-Za-z0-9_]+)$")
_DIGITS = re.compile(r"\d+")


def choose_projector(files: Sequence[str], model: str) -> str | None:
    """The projector that llama.cpp would take with the model (`find_best_mmproj` in common/download.cpp).

    Of the files with "mmproj" in their name, in the model's folder or in one above it: the deepest; of those the one with
    the bits per weight nearest to the model's, then the first.
    """
    folder = _folder(model)

    def rank(name: str) -> tuple[int, int]:
        return -len(_folder(name)), abs(_bits(name) - _bits(model))

    fitting = (name for name in files if is_projector_name(name) and folder[: len(_folder(name))] == _folder(name))
    return min(fitting, key=rank, default=None)


def is_projector_name(name: str) -> bool:
    """Whether a file's name is that of a projector."""
    return name.endswith(".gguf") and _MARK in name.rsplit("/", 1)[-1]


def locate_projector(reference: str, model: Path) -> Path | None:
    """The projector on this machine that goes with a located model; None if there is none, or it is not certain which.

    For a model of Hugging Face it is what `choose_projector` takes of the cached files. For a path it is the only
    "mmproj*.gguf" in the directory of the only model, the layout that llama-server's `--models-dir` asks for: anywhere
    else it may belong to another model. A file that is not a projector is none, whatever its name.
    """
    parsed = parse_reference(reference)
    found: Path | None = None
    if parsed.kind == "hub":
        found = _cached_projector(parsed, model)
    elif parsed.kind == "path":
        found = _only_projector(model)
    return found if found is not None and _is_projector(found) else None


def _cached_projector(parsed: ModelReference, model: Path) -> Path | None:
    from .hub_cache import cached_files, hub_cache
    from .hub_checks import HubFile

    snapshot, names = cached_files(parsed)
    if snapshot is None or not model.is_relative_to(snapshot):
        return None
    name = choose_projector(names, model.relative_to(snapshot).as_posix())
    if name is None or not HubFile(hub_cache(), str(parsed.repo), name).is_good(snapshot / name):
        return None
    return snapshot / name


def _only_projector(model: Path) -> Path | None:
    names = list_model_files(str(model.parent))
    projectors = [name for name in names if name.startswith(_MARK)]
    is_alone = set(names) - set(projectors) <= set(split_parts(model.name))
    return model.parent / projectors[0] if len(projectors) == 1 and is_alone and model.name not in projectors else None


def _is_projector(path: Path) -> bool:
    # A damaged one that nobody asked for must not hinder those who only write.
    try:
        return read_gguf_header(path).kind == "mmproj"
    except LocalLlamaError:
        return False


def _folder(name: str) -> list[str]:
    return name.split("/")[:-1]


def _bits(name: str) -> int:
    """Such as 4 for "m-Q4_K_M.gguf" and 16 for "mmproj-BF16.gguf"; 0 where the name does not say."""
    tag = _TAG.search(split_stem(name))
    digits = _DIGITS.search(tag["tag"]) if tag else None
    return int(digits[0]) if digits else 0
