"""The runtimes that these tests run: the embedded one always, a real llama-server where there is one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from localllama._runtime.resolve import candidate_runtimes
from localllama._runtime.runtime import Runtime


def _embedded() -> Runtime:
    return candidate_runtimes("embedded", os.environ).runtimes[0]


@pytest.fixture
def embedded() -> Runtime:
    return _embedded()


@pytest.fixture(params=["embedded", "llama-server"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if request.param == "embedded":
        return _embedded()
    path = os.environ.get("LOCALLLAMA_TEST_LLAMA_SERVER") or str(request.getfixturevalue("llama_bin") / "llama-server")
    return Runtime(kind="llama-server", command=(path,), origin=path)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for a socket path, unlike tmp_path on some systems."""
    with tempfile.TemporaryDirectory(prefix="llt-") as directory:
        yield Path(directory)
