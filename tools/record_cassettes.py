"""Records the cassettes of tests/replay anew, from real servers.

    python tools/record_cassettes.py                                         the build of tools/build_llama_cpp.py
    python tools/record_cassettes.py --server path --sources path [-- -k name]

A cassette keeps its head, the date and the build of its recording, for as long as what was recorded stays the same: what
changes is what llama.cpp changed. What is not of a test any more is removed when all are recorded.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import build_llama_cpp

BUILT = build_llama_cpp.cache_directory()
ROOT = Path(__file__).resolve().parent.parent
REPLAY = ROOT / "tests/replay"
_HEAD = re.compile(r"\Arecorded:\n(?:  .*\n)*")
_BUILD_IN_PATH = re.compile(r"\bb\d{3,}\b")


def main() -> int:
    """Run the recording; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--server", type=Path, default=BUILT / "build/bin/llama-server", help="the compiled llama-server"
    )
    parser.add_argument(
        "--sources", type=Path, default=BUILT / "source", help="the sources of llama.cpp, for their chat templates"
    )
    parser.add_argument("--build", help="its build; default: what it says, or what its path says")
    parser.add_argument("arguments", nargs="*", help="for pytest: record a part")
    options = parser.parse_args()
    templates = options.sources / "models/templates"
    for path in (options.server, templates):
        if not path.exists():
            print(f"{path} does not exist: run `make llama-cpp` first.", file=sys.stderr)
            return 2
    before = {path: path.read_text() for path in REPLAY.rglob("cassettes/**/*.yaml")}
    if not options.arguments:
        for path in before:
            path.unlink()
    environ = {
        **os.environ,
        "LOCALLLAMA_TEST_LLAMA_SERVER": str(options.server.absolute()),
        "LOCALLLAMA_TEST_TEMPLATES": str(templates.absolute()),
        "LOCALLLAMA_TEST_BUILD": options.build or _build(options.server),
    }
    command = [sys.executable, "-m", "pytest", str(REPLAY), "-q", "--record-mode=rewrite", *options.arguments]
    code = subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode
    _tell_changes(before)
    return code


def _build(server: Path) -> str:
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    # "version: 1234 (abcdef)"; builds from an archive do not know theirs.
    known = re.search(r"version: (\d{3,}) ", said.stdout + said.stderr)
    if known:
        return f"b{known[1]}"
    in_path = _BUILD_IN_PATH.search(str(server.resolve()))
    return in_path[0] if in_path else "unknown"


def _tell_changes(before: dict[Path, str]) -> None:
    after = {path: path.read_text() for path in REPLAY.rglob("cassettes/**/*.yaml")}
    changed = 0
    for path, text in sorted(after.items()):
        old = before.get(path)
        if old is not None and _HEAD.sub("", old) == _HEAD.sub("", text):
            path.write_text(old)
            continue
        changed += 1
        print(f"{'new' if old is None else 'changed'}: {path.relative_to(ROOT)}")
    for path in sorted(set(before) - set(after)):
        print(f"gone: {path.relative_to(ROOT)}")
    print(f"{len(after)} cassettes, {changed} of them new or changed")


if __name__ == "__main__":
    sys.exit(main())
