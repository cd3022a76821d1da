"""Builds the wheel from the source archive and proves that it works alone, with each extra and with all of them.

For each case a clean virtual environment gets the wheel and nothing of this checkout; what must import does, what must
not says which extra is missing, and the extra `runtime` answers with a real (tiny) model.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

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


@dataclass(frozen=True)
class Case:
    """What one environment gets, and the programs that must succeed in it."""

    extra: str
    programs: tuple[str, ...]


CASES = (
    Case("", (CORE, NO_LANGCHAIN, NO_LLAMAINDEX)),
    Case("langchain", (CORE, LANGCHAIN, NO_LLAMAINDEX)),
    Case("llamaindex", (CORE, LLAMAINDEX, NO_LANGCHAIN)),
    Case("runtime", (CORE, ANSWER, NO_LANGCHAIN, NO_LLAMAINDEX)),
    Case("cli", (CORE, NO_LANGCHAIN, NO_LLAMAINDEX)),
    Case("all", (CORE, LANGCHAIN, LLAMAINDEX, ANSWER)),
)


def main(arguments: list[str] | None = None) -> int:
    """Check every case; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("extras", nargs="*", help="check only these; 'bare' is the wheel without extras")
    wanted = set(parser.parse_args(arguments).extras)
    with tempfile.TemporaryDirectory(prefix="localllama-wheel-") as name:
        scratch = Path(name)
        wheel = build(scratch)
        model = scratch / "micro.gguf"
        run([sys.executable, str(ROOT / "tests/support/micro_model.py"), str(model)], scratch)
        failures = [case for case in CASES if not wanted or (case.extra or "bare") in wanted]
        failures = [case for case in failures if not check(case, wheel, model, scratch)]
    return 1 if failures else 0


def build(scratch: Path) -> Path:
    """Build the source archive, and from that the wheel."""
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(scratch), str(ROOT)], scratch)
    (wheel,) = scratch.glob("*.whl")
    print(f"wheel: {wheel.name}, {wheel.stat().st_size / 1000:.0f} kB", flush=True)
    return wheel


def check(case: Case, wheel: Path, model: Path, scratch: Path) -> bool:
    """Whether one case holds; says so in one line, or shows what went wrong."""
    began = time.monotonic()
    label = f"localllama[{case.extra}]" if case.extra else "localllama"
    directory = scratch / (case.extra or "bare")
    python = str(directory / "bin" / "python")
    target = f"{wheel}[{case.extra}]" if case.extra else str(wheel)
    try:
        uv = shutil.which("uv")
        if uv:
            run([uv, "venv", "--quiet", "--python", sys.executable, str(directory)], scratch)
            run([uv, "pip", "install", "--quiet", "--python", python, target], scratch)
        else:
            run([sys.executable, "-m", "venv", str(directory)], scratch)
            run([python, "-m", "pip", "install", "--quiet", target], scratch)
            run([python, "-m", "pip", "check"], scratch)
        for program in case.programs:
            run([python, "-I", "-c", program, str(model)], scratch)
    except subprocess.CalledProcessError as error:
        print(f"{label}: FAILED: {error}\n{error.stdout}", flush=True)
        return False
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{label}: {len(case.programs)} programs ran, {time.monotonic() - began:.1f} s", flush=True)
    return True


def run(command: list[str], directory: Path) -> None:
    """Run a command outside of the checkout; its output is kept in the error."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
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
    )


if __name__ == "__main__":
    sys.exit(main())
