"""Fetches a model in a process of its own: huggingface_hub reads its settings once, at import."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .fake_hub import FakeHub

__all__ = ["Outcome", "fetch", "fetch_killed", "has_own_mounts", "hub_environment"]

# The waits are noted and not waited.
_FETCH = """
import json, shutil, sys, time, traceback
waits = []
time.sleep = waits.append
from localllama._models.store import fetch_model, locate_model
from localllama.errors import LocalLlamaError
reference, options = sys.argv[1], json.loads(sys.argv[2])
if options.get("free_bytes"):
    shutil.disk_usage = lambda path: shutil._ntuple_diskusage(0, 0, options["free_bytes"])
if options.get("most_file_bytes"):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (options["most_file_bytes"],) * 2)
if options.get("is_killed"):
    import os, signal
    from localllama._models import hub_checks
    hub_checks.sha256_of = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
seen = []
answer = {"path": None, "located": None, "error": None, "text": "", "traceback": ""}
try:
    answer["path"] = str(fetch_model(reference, seen.append))
except LocalLlamaError as error:
    printed = "".join(traceback.format_exception(error)) + repr(error)
    answer |= {"error": type(error).__name__, "text": str(error), "traceback": printed}
located = locate_model(reference)
answer |= {"located": located and str(located), "waits": waits}
answer["progress"] = [[item.source, item.done_bytes, item.total_bytes] for item in seen]
print(json.dumps(answer))
"""


@dataclass(frozen=True)
class Outcome:
    """What came of a fetch.

    Attributes:
        path: What it returned.
        located: Where the model is afterwards, without network.
        error: The name of the error's class.
        text: The error for people.
        traceback: The error as it is printed when nobody catches it, with its causes, and its repr.
        waits: The pauses that were asked for, in seconds.
        progress: The reports: source, done and total bytes.
        log: What was written to standard error.
    """

    path: str | None
    located: str | None
    error: str | None
    text: str
    traceback: str
    waits: list[float]
    progress: list[list[str | int | None]]
    log: str

    def content(self) -> bytes:
        """The bytes of the file; the error in the message if there is none."""
        assert self.path is not None, self.text
        return Path(self.path).read_bytes()


def hub_environment(endpoint: str, cache: Path, **more: str) -> dict[str, str]:
    """The environment of a process that knows one hub and one cache, and no token of the user's."""
    values = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "LOCALLLAMA_"))
    }
    values |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    return {**values, "LOCALLLAMA_MODELS": str(cache / "store"), **more}


def fetch(
    hub: FakeHub,
    reference: str,
    cache: Path,
    *,
    free_bytes: int | None = None,
    most_file_bytes: int | None = None,
    disk_bytes: int | None = None,
    **environment: str,
) -> Outcome:
    """Fetch a model from `hub` into the cache at `cache`.

    Args:
        hub: Where from.
        reference: The model.
        cache: The cache of huggingface_hub.
        free_bytes: How much room the disk is said to have.
        most_file_bytes: A limit of the kernel on the size of a file.
        disk_bytes: The cache is on a disk of this size; needs `has_own_mounts`.
        environment: More variables.
    """
    command = _command(reference, free_bytes=free_bytes, most_file_bytes=most_file_bytes)
    if disk_bytes is not None:
        (cache / "hub").mkdir()
        command = [*_mounting(cache / "hub", disk_bytes), *command]
    run = _run(command, hub, cache, environment)
    assert run.returncode == 0, run.stderr
    return Outcome(**json.loads(run.stdout), log=run.stderr)


def fetch_killed(hub: FakeHub, reference: str, cache: Path) -> None:
    """Fetch a model in a process that is killed when the last byte is there, before the file is compared."""
    run = _run(_command(reference, is_killed=True), hub, cache, {})
    assert run.returncode == -signal.SIGKILL, run.stderr


def has_own_mounts() -> bool:
    """Whether a process may have a file system of its own here."""
    if shutil.which("unshare") is None:
        return False
    with tempfile.TemporaryDirectory() as directory:
        command = [*_mounting(Path(directory), 1 << 20), "true"]
        return subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 0


def _command(reference: str, **options: int | None) -> list[str]:
    return [sys.executable, "-c", _FETCH, reference, json.dumps(options)]


def _mounting(directory: Path, size_bytes: int) -> list[str]:
    script = f'mount -t tmpfs -o size={size_bytes} tmpfs {shlex.quote(str(directory))} && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def _run(
    command: list[str], hub: FakeHub, cache: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    values = hub_environment(hub.endpoint, cache, **environment)
    return subprocess.run(command, check=False, env=values, capture_output=True, text=True, timeout=120)
