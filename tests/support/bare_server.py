"""A real llama.cpp server without the core's process handling around it: for tests of what lies below that."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from localllama._runtime.resolve import candidate_runtimes
from localllama._transports.health import probe_health
from localllama.types import Endpoint

from .waiting import wait_until


@contextlib.contextmanager
def bare_server(
    directory: Path, model: Path, *, template: str | None = None, n_ctx: int = 1024, parallel: int = 1
) -> Iterator[Endpoint]:
    """Serve `model` on a UNIX socket in `directory`, which must be short enough for one.

    The runtime is the embedded one, or the llama-server that `LOCALLLAMA_TEST_LLAMA_SERVER` names.
    """
    choice = os.environ.get("LOCALLLAMA_TEST_LLAMA_SERVER", "embedded")
    command = list(candidate_runtimes(choice, os.environ).runtimes[0].command)
    socket_path = directory / "r.sock"
    command += ["-m", str(model), "--host", str(socket_path), "-c", str(n_ctx * parallel), "-np", str(parallel)]
    command += ["-b", "64", "-t", "1", "--alias", "micro"]
    if template is not None:
        file = directory / "template.jinja"
        file.write_text(template)
        command += ["--chat-template-file", str(file)]
    with (directory / "log").open("wb") as log:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            endpoint = Endpoint("http://localllama", socket_path=str(socket_path))

            def is_ready() -> bool:
                assert child.poll() is None, (directory / "log").read_text(errors="replace")
                return probe_health(endpoint, 1) == "ready"

            wait_until(is_ready, seconds=60, what="the server")
            yield endpoint
        finally:
            child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
