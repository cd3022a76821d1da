"""What `doctor` finds of the machine itself: the packages, the environment, memory, and the place for models."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from localllama._models.store import store_directory
from localllama._runtime.environment import without_llama_variables

from ._screen import shown_bytes

__all__ = ["Finding", "State", "findings_of_machine", "nearest_existing"]

State = Literal["ok", "note", "fault"]
_FRAMEWORKS = ("langchain-core", "langchain", "langgraph", "llama-index-core", "huggingface-hub", "xllamacpp")
_LOW_DISK_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: Its name.
        state: "fault" makes the exit code 1.
        detail: What was found.
        fix: The command that mends it.
    """

    what: str
    state: State
    detail: str
    fix: str | None = None


def findings_of_machine() -> list[Finding]:
    """All but the runtimes and the model."""
    import psutil

    found = [Finding("localllama", "ok", f"{version('localllama')}, Python {platform.python_version()}")]
    found += _findings_of_frameworks()
    found += _findings_of_environment()
    memory = psutil.virtual_memory()
    found.append(Finding("memory", "ok", f"{shown_bytes(memory.available)} free of {shown_bytes(memory.total)}"))
    return [*found, *_findings_of_store()]


def _findings_of_frameworks() -> list[Finding]:
    installed = {name: _version_or_none(name) for name in _FRAMEWORKS}
    words = ", ".join(f"{name} {found_version}" for name, found_version in installed.items() if found_version)
    has_framework = bool(installed["langchain-core"] or installed["llama-index-core"])
    summary = Finding(
        "frameworks",
        "ok" if has_framework else "note",
        words or "none",
        None if has_framework else 'pip install "localllama[langchain]"  (or llamaindex)',
    )
    return [summary, *_findings_of_unfit_packages()]


def _findings_of_unfit_packages() -> list[Finding]:
    """What our own metadata asks for, held against what is installed: pip only warns when another package changes that."""
    from packaging.requirements import Requirement

    found: dict[str, Finding] = {}
    for text in requires("localllama") or ():
        needed = Requirement(text)
        installed = _version_or_none(needed.name)
        if installed is not None and not needed.specifier.contains(installed, prereleases=True):
            wanted = f"{needed.name}{needed.specifier}"
            detail = f"{needed.name} {installed} is installed, and localllama needs {wanted}"
            found[needed.name] = Finding(needed.name, "fault", detail, f'pip install "{wanted}"')
    return list(found.values())


def _version_or_none(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _findings_of_environment() -> list[Finding]:
    names = sorted(os.environ.keys() - without_llama_variables(os.environ).keys())
    names = [name for name in names if name.startswith(("LLAMA_", "GGML_"))]
    if not names:
        return []
    detail = f"{', '.join(names)} set in this environment: no server of localllama gets them"
    fix = f"unset {' '.join(names)}; what is meant for this server goes into its settings, extra_args or env"
    return [Finding("environment", "note", detail, fix)]


def _findings_of_store() -> list[Finding]:
    directory = store_directory()
    existing = nearest_existing(directory)
    free = shutil.disk_usage(existing).free
    is_low = free < _LOW_DISK_BYTES
    found = [
        Finding(
            "disk",
            "note" if is_low else "ok",
            f"{shown_bytes(free)} free for models in {directory}",
            "localllama models list, then localllama models rm NAME; or set LOCALLLAMA_MODELS" if is_low else None,
        )
    ]
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        why = f"{existing} is no directory" if not existing.is_dir() else f"this user may not write to {existing}"
        fix = f"chmod u+rwx {existing}  (if it is yours), or set LOCALLLAMA_MODELS to a directory that is"
        found.append(Finding("model store", "note", f"no model can be fetched into {directory}: {why}", fix))
    return found


def nearest_existing(directory: Path) -> Path:
    """The directory, or of those above it the nearest that is there."""
    # `os.access` and not `exists`, which raises where a directory on the way may not be searched.
    while not os.access(directory, os.F_OK) and directory != directory.parent:
        directory = directory.parent
    return directory
