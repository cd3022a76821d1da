"""Builds the source archive and the wheel once, and proves that they are sound and that the wheel works by itself.

    python tools/check_wheel.py                      everything
    python tools/check_wheel.py bare all-3.12        only these environments
    python tools/check_wheel.py --dist .cache/dist   and keep what was built there

The archives: built again from the unpacked source archive, elsewhere, with other times, another umask and time zone, they
are the same bytes; twine and check-wheel-contents find no fault. The wheel: for each extra, and for all of them on each
Python that is here, a clean virtual environment gets it and nothing of this checkout. What must import does, what must not
says which extra is missing, the requirements fit together, and the extra `runtime` answers with a real (tiny) model.
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
AT_ONCE = 2

CORE = """
import localllama
assert "site-packages" in localllama.__file__, localllama.__file__
client = localllama.LocalLlamaClient(localllama.ServerSettings(model="model.gguf"))
assert not client.is_running and localllama.__version__
"""
LANGCHAIN = """
from langchain_localllama import ChatLocalLlama
ChatLocalLlama(model="model.gguf", temperature=0)
"""
LLAMAINDEX = """
from llamaindex_localllama import LocalLlama
LocalLlama(model="model.gguf", temperature=0)
"""
MISSING = """
import localllama
try:
    import {package}
except localllama.MissingDependencyError as error:
    assert 'localllama[{extra}]' in str(error), str(error)
    assert isinstance(error, ImportError)
else:
    raise SystemExit("{package} imported without the extra {extra}")
"""
NO_LANGCHAIN = MISSING.format(package="langchain_localllama", extra="langchain")
NO_LLAMAINDEX = MISSING.format(package="llamaindex_localllama", extra="llamaindex")
ANSWER = """
import sys
from localllama import ChatRequest, LocalLlamaClient, Message, SamplingSettings, ServerSettings
settings = ServerSettings(model=sys.argv[1], runtime="embedded")
with LocalLlamaClient(settings, sampling=SamplingSettings(max_tokens=8)) as client:
    result = client.chat(ChatRequest((Message("user", "Hello"),)))
    assert result.usage.completion_tokens == 8, result
"""
COMMAND = """
import pathlib, subprocess, sys
command = pathlib.Path(sys.executable).with_name("localllama")
answer = subprocess.run([command, "--help"], capture_output=True, text=True)
assert {code} == answer.returncode, answer
assert "{word}" in answer.stdout + answer.stderr, answer
"""
HELP = COMMAND.format(code=0, word="doctor")
NO_CLI = COMMAND.format(code=2, word="localllama[cli]")


@dataclass(frozen=True)
class Case:
    """What one environment gets, and the programs that must succeed in it."""

    extra: str
    programs: tuple[str, ...]
    python: str = sys.executable
    version: str = ""

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return "-".join(filter(None, [self.extra or "bare", self.version]))


CASES = (
    Case("", (CORE, NO_LANGCHAIN, NO_LLAMAINDEX, NO_CLI)),
    Case("langchain", (CORE, LANGCHAIN, NO_LLAMAINDEX)),
    Case("llamaindex", (CORE, LLAMAINDEX, NO_LANGCHAIN)),
    Case("runtime", (CORE, ANSWER, NO_LANGCHAIN, NO_LLAMAINDEX)),
    Case("cli", (CORE, HELP, NO_LANGCHAIN, NO_LLAMAINDEX)),
)


def all_extras() -> list[Case]:
    """All extras on each Python that is here; says which is not."""
    cases = []
    for version in VERSIONS:
        finder = ["sh", str(ROOT / "tools/find_python.sh"), version]
        found = subprocess.run(finder, capture_output=True, text=True, check=False).stdout.strip()
        if found:
            cases.append(Case("all", (CORE, LANGCHAIN, LLAMAINDEX, ANSWER, HELP), found, version))
        else:
            print(f"NOT RUN on Python {version}: there is none here.", flush=True)
    return cases


def main(arguments: list[str] | None = None) -> int:
    """Check the archives and every case; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="check only these: bare, an extra, or all-3.12")
    parser.add_argument("--dist", type=Path, help="keep the archives in this folder")
    options = parser.parse_args(arguments)
    cases = [*CASES, *all_extras()]
    unknown = set(options.cases) - {case.name for case in cases}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(case.name for case in cases)}")
    with tempfile.TemporaryDirectory(prefix="localllama-wheel-") as name:
        scratch = Path(name)
        try:
            wheel = build(ROOT, scratch / "dist")
            check_archives(wheel.parent, scratch)
        except subprocess.CalledProcessError as error:
            print(f"FAILED: {error}\n{error.stdout}", flush=True)
            return 1
        if options.dist:
            shutil.rmtree(options.dist, ignore_errors=True)
            shutil.copytree(wheel.parent, options.dist)
        model = scratch / "micro.gguf"
        run([sys.executable, str(ROOT / "tests/support/micro_model.py"), str(model)], scratch)
        wanted = [case for case in cases if not options.cases or case.name in options.cases]
        with ThreadPoolExecutor(AT_ONCE) as pool:  # one waits for the index while another unpacks
            results = list(pool.map(lambda case: check(case, wheel, model, scratch), wanted))
    return 0 if all(results) else 1


def build(source: Path, out: Path, umask: int | None = None, **environ: str) -> Path:
    """Build the source archive, and from that the wheel."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    run(command, source, umask=umask, **environ)
    (wheel,) = out.glob("*.whl")
    return wheel


def check_archives(dist: Path, scratch: Path) -> None:
    """Raise CalledProcessError or SystemExit if a fault is found in the archives."""
    archives = sorted(dist.iterdir())
    run([sys.executable, "-m", "twine", "check", "--strict", *map(str, archives)], scratch)
    contents = [sys.executable, "-m", "check_wheel_contents", "--config", str(ROOT / "pyproject.toml"), str(dist)]
    run(contents, scratch)
    if differing := differences(archives, scratch):
        raise SystemExit(f"Built again, {', '.join(differing)} had other bytes.")
    for archive in archives:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        print(f"{archive.name}: {archive.stat().st_size / 1000:.0f} kB, reproducible, sha256 {digest}", flush=True)


def differences(archives: Sequence[Path], scratch: Path) -> list[str]:
    """Build from the unpacked source archive, with all else different; the names of archives that came out different."""
    (source,) = [archive for archive in archives if archive.name.endswith(".tar.gz")]
    with tarfile.open(source) as packed:
        packed.extractall(scratch / "unpacked", filter="data")
    (root,) = (scratch / "unpacked").iterdir()
    for path in root.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(path.stat().st_mode & 0o700)
    again = scratch / "again"
    build(root, again, umask=0o077, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7")
    return [archive.name for archive in archives if (again / archive.name).read_bytes() != archive.read_bytes()]


def check(case: Case, wheel: Path, model: Path, scratch: Path) -> bool:
    """Whether one case holds; says so in one line, or shows what went wrong."""
    began = time.monotonic()
    label = f"localllama[{case.extra}]" if case.extra else "localllama"
    label += f" on Python {case.version}" if case.version else ""
    directory = scratch / case.name
    python = str(directory / "bin" / "python")
    target = f"{wheel}[{case.extra}]" if case.extra else str(wheel)
    uv = shutil.which("uv")
    try:
        if uv:
            run([uv, "venv", "--quiet", "--python", case.python, str(directory)], scratch)
            run([uv, "pip", "install", "--quiet", "--python", python, target], scratch)
            run([uv, "pip", "check", "--python", python], scratch)
        else:
            # The pip of this environment serves them all: a copy in each takes longer than most installs.
            pip = [sys.executable, "-m", "pip", "--python", python]
            run([case.python, "-m", "venv", "--without-pip", str(directory)], scratch)
            run([*pip, "install", "--quiet", "--no-compile", target], scratch)
            run([*pip, "check"], scratch)
        for program in case.programs:
            run([python, "-I", "-c", program, str(model)], scratch)
    except subprocess.CalledProcessError as error:
        print(f"{label}: FAILED: {error}\n{error.stdout}", flush=True)
        return False
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{label}: {len(case.programs)} programs ran, {time.monotonic() - began:.1f} s", flush=True)
    return True


def run(command: list[str], directory: Path, umask: int | None = None, **changes: str) -> None:
    """Run a command in another folder than the checkout's own; its output is kept in the error."""
    # SOURCE_DATE_EPOCH is an input by its own specification: with another one the archives have other times in them.
    ignored = ("PYTHONPATH", "VIRTUAL_ENV", "SOURCE_DATE_EPOCH")
    environ = {name: value for name, value in os.environ.items() if name not in ignored} | changes
    subprocess.run(
        command,
        cwd=directory,
        env=environ,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        umask=-1 if umask is None else umask,
    )


if __name__ == "__main__":
    sys.exit(main())
