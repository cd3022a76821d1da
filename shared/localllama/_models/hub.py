"""Models on Hugging Face, through huggingface_hub: its cache, its token, its resumed downloads, its offline mode."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from localllama.errors import MissingDependencyError, ModelNotFoundError

from .progress import FetchProgress, ProgressCallback
from .reference import ModelReference

__all__ = ["choose_file", "fetch_hub_model", "locate_hub_model", "split_parts"]

_DEFAULT_QUANTIZATIONS = ("Q4_K_M", "Q8_0")
_NOT_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_MOST_NAMES = 12


def choose_file(files: Sequence[str], quantization: str | None) -> str | None:
    """The GGUF file that llama.cpp would take (`find_best_model` in common/download.cpp).

    With a quantization the first whose name has it, followed by "." or "-", in any case of letters. Without: the first
    with Q4_K_M, else Q8_0, else the first of all. Projectors, importance matrices, draft heads and later parts of a
    split model are passed over.
    """
    models = [name for name in files if _is_model(name)]
    for wanted in (quantization,) if quantization else _DEFAULT_QUANTIZATIONS:
        pattern = re.compile(re.escape(wanted) + r"[.-]", re.IGNORECASE)
        for name in models:
            if pattern.search(name):
                return name
    return models[0] if models and not quantization else None


def split_parts(name: str) -> tuple[str, ...]:
    """All files of a model, given the first."""
    match = _SPLIT.fullmatch(name)
    if match is None:
        return (name,)
    count = int(match["count"])
    return tuple(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1))


def _is_model(name: str) -> bool:
    base = name.rsplit("/", 1)[-1]
    if not base.lower().endswith(".gguf") or any(word in base for word in _NOT_MODELS):
        return False
    match = _SPLIT.fullmatch(name)
    return match is None or int(match["number"]) == 1


def locate_hub_model(reference: ModelReference) -> Path | None:
    """Where the model is in the cache of huggingface_hub; None if it is not there as a whole.

    What is in the cache wins over what a download would choose, so that a model that was used once is found without
    network. The cache is read without the library, whose import takes longer than the look.
    """
    assert reference.repo is not None
    snapshot = _cached_snapshot(reference.repo)
    if snapshot is None:
        return None
    name = reference.file
    if name is None:
        names = sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())
        name = choose_file(names, reference.quantization)
    if name is None:
        return None
    paths = [snapshot / part for part in split_parts(name)]
    return paths[0] if all(path.is_file() for path in paths) else None


def fetch_hub_model(reference: ModelReference, on_progress: ProgressCallback | None) -> Path:
    """Download the model into the cache of huggingface_hub.

    Raises:
        MissingDependencyError: huggingface_hub is not installed.
        ModelNotFoundError: No such repository or file, no access, or no network.
    """
    hub = _hub_if_installed()
    if hub is None:
        raise MissingDependencyError(
            f"{reference.text!r} is on Hugging Face, and the package huggingface_hub is not installed.",
            hint="pip install huggingface_hub",
        )
    assert reference.repo is not None
    with _hub_errors(reference):
        name = reference.file
        if name is None or reference.quantization is not None:
            files = hub.list_repo_files(reference.repo)
            name = choose_file(files, reference.quantization)
            if name is None:
                raise _no_such_file(reference, files)
        paths = []
        for part in split_parts(name):
            if on_progress is not None:
                on_progress(FetchProgress(reference.text, f"Hugging Face ({part})", 0, None))
            paths.append(hub.hf_hub_download(reference.repo, part))
    return Path(paths[0])


def _hub_if_installed() -> Any:
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    return importlib.import_module("huggingface_hub")


def _cached_snapshot(repo: str) -> Path | None:
    """The directory with the cached files of the main branch, by the rules of huggingface_hub's constants.py."""
    folder = _hub_cache() / f"models--{repo.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if revision and snapshot.is_dir() else None


def _hub_cache() -> Path:
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if cache is None:
        general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        cache = os.path.join(os.environ.get("HF_HOME") or os.path.join(general, "huggingface"), "hub")
    return Path(os.path.expandvars(os.path.expanduser(cache))).absolute()  # noqa: PTH111


def _no_such_file(reference: ModelReference, files: Sequence[str]) -> ModelNotFoundError:
    names = [name for name in files if _is_model(name)]
    wanted = reference.file or reference.quantization
    listed = ", ".join(names[:_MOST_NAMES]) + (" ..." if len(names) > _MOST_NAMES else "")
    return ModelNotFoundError(
        f"The repository {reference.repo} has no GGUF file" + (f" {wanted!r}." if wanted else "."),
        hint=f"It has: {listed}." if names else "Look for a repository whose name ends in '-GGUF'.",
    )


@contextlib.contextmanager
def _hub_errors(reference: ModelReference) -> Iterator[None]:
    from huggingface_hub import errors

    def failed(what: str, hint: str) -> ModelNotFoundError:
        return ModelNotFoundError(f"{reference.text!r} could not be fetched from Hugging Face: {what}.", hint=hint)

    try:
        yield
    except errors.GatedRepoError as error:
        raise failed(
            "its owner asks you to accept terms first",
            f"Accept them on the page of {reference.repo}, then set HF_TOKEN or run 'hf auth login'.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise failed(
            f"there is no repository {reference.repo}, or it is private",
            "Check the spelling; for a private repository set HF_TOKEN or run 'hf auth login'.",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise failed(
            "there is no connection, or offline mode is set, and it is not in the cache",
            "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give the path of a GGUF file.",
        ) from error
    except errors.EntryNotFoundError as error:
        import huggingface_hub

        raise _no_such_file(reference, huggingface_hub.list_repo_files(str(reference.repo))) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        if isinstance(error, ModelNotFoundError):
            raise
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise failed(first_line, "Check the network and HF_ENDPOINT, or give the path of a GGUF file.") from error
