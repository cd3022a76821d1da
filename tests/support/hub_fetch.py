"""Fetches a model in a process of its own: huggingface_hub reads its settings once, at import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .fake_hub import FakeHub

__all__ = ["Outcome", "fetch", "hub_environment"]

# The waits are noted and not waited.
_FETCH = """
import json, shutil, sys, time, traceback
waits = []
time.sleep = waits.append
from localllama._models.store import fetch_model, locate_model
from localllama.errors import LocalLlamaError
reference, options = sys.argv[1], json.loads(sys.argv[2])
if options["free_bytes"] is not None:
    shutil.disk_usage = lambda path: shutil._ntuple_diskusage(0, 0, options["free_bytes"])
if options["most_file_bytes"] is not None:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (options["most_file_bytes"],) * 2)
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
    **environment: str,
) -> Outcome:
    """Fetch a model from `hub` into the cache at `cache`."""
    options = json.dumps({"free_bytes": free_bytes, "most_file_bytes": most_file_bytes})
    run = subprocess.run(
        [sys.executable, "-c", _FETCH, reference, options],
        check=False,
        env=hub_environment(hub.endpoint, cache, **environment),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return Outcome(**json.loads(run.stdout), log=run.stderr)
