"""Fixtures for all tests: the models, a clean environment, and the proof that no test leaves a process."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest
from filelock import FileLock

from support.micro_model import build_micro_model
from support.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401  # hooks of pytest
from support.waiting import wait_until

# The same examples in every run; LOCALLLAMA_TEST_EXAMPLES=1000 looks for others, by chance.
_EXAMPLES = os.environ.get("LOCALLLAMA_TEST_EXAMPLES")
hypothesis.settings.register_profile(
    "localllama",
    deadline=None,  # a busy machine is no fault
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    database=None,
    derandomize=_EXAMPLES is None,
    max_examples=int(_EXAMPLES or 100),
)
hypothesis.settings.load_profile("localllama")

_FOREIGN_PREFIXES = ("LLAMA_", "LOCALLLAMA_", "GGML_", "LANGCHAIN_", "LANGSMITH_", "LC_")


def pytest_configure() -> None:
    # A shell that starts the tests in the background lets them, and every program that they start, ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of SmolLM2, so that they can run alone: on a busy machine its threads wait for each other."""
    for item in items:
        if "smollm2_model" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.smollm2)


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No variable of the shell that runs the tests may change what they see, and no cache of the user's is written."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN_PREFIXES) and not name.startswith(("LOCALLLAMA_TEST_", "LC_ALL", "LC_CTYPE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LOCALLLAMA_CACHE", str(tmp_path_factory.getbasetemp() / "localllama-cache"))


@pytest.fixture(autouse=True)
def nothing_warned_about_yet() -> None:
    """Each runtime is warned about once in a process, and so by the first test that meets it."""
    start = sys.modules.get("localllama._server.start")
    if start is not None:
        start._warned_about.clear()


@pytest.fixture(scope="session")
def programs_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests put programs of their own that all of them use."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(autouse=True)
def measured_children(monkeypatch: pytest.MonkeyPatch, programs_directory: Path) -> None:
    """With `--cov`, coverage is measured in our children too; it makes each start slower by some tenths of a second."""
    if "coverage" in sys.modules:
        from support.measured_children import measure_children

        measure_children(monkeypatch, programs_directory)


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """A test that leaves a child process fails."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield

    def left() -> list[psutil.Process]:
        children = psutil.Process().children(recursive=True)
        return [p for p in children if p.pid not in before and _is_server(p)]

    # pytest keeps the last error for a debugger, one that was expected too, and with its frames what they held.
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    if left():
        # An error holds on to the frames that it came through, and a client in them on to its share of the server.
        gc.collect()
    try:
        wait_until(lambda: not left(), seconds=5, what="the end of every server that the test started")
    except AssertionError as error:
        what = ["pid", "ppid", "status", "create_time", "cmdline"]
        raise AssertionError(f"{error}: {[p.as_dict(what) for p in left()]}, {threading.enumerate()}") from None


def _is_server(process: psutil.Process) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "localllama" in line or "llama-server" in line


def _cache_directory() -> Path:
    path = Path(tempfile.gettempdir()) / f"localllama-tests-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def micro_model() -> Path:
    """A real GGUF of 300 kB; loads in 0.1 s, writes thousands of senseless tokens per second."""
    path = _cache_directory() / "micro-1.gguf"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            build_micro_model(path)
    return path


@pytest.fixture(scope="session")
def smollm2_model() -> Path:
    """SmolLM2-135M-Instruct, real language, weak; fetched on first use as `make demo` does."""
    from localllama._models.store import fetch_model

    return fetch_model("smollm2-135m")


@pytest.fixture(scope="session")
def llama_bin() -> Path:
    """A directory with compiled llama.cpp programs, `llama-completion` and the new `llama-cli` among them."""
    named = os.environ.get("LOCALLLAMA_TEST_LLAMA_BIN")
    built = sorted(Path.home().glob(".cache/localllama-build/*/build/bin"))
    for directory in [Path(named)] if named else built:
        if (directory / "llama-completion").exists() and (directory / "llama-cli").exists():
            return directory
    reason = "no llama-completion and llama-cli; name their directory in LOCALLLAMA_TEST_LLAMA_BIN"
    if named or os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
