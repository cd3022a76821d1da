"""`auto_install`: where no rung of the ladder serves, what `localllama install` does, once, without sudo and unasked.

One process of this user installs at a time; whoever waited looks again at what there is, and installs nothing if that is
something new. A failure is remembered: the next call of this process does not run the package managers again.
"""

from __future__ import annotations

import codecs
import importlib
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from localllama._models.tiny import write_tiny_model
from localllama._runtime.cache_directory import cache_directory
from localllama._runtime.install import Method, install_runtime, methods_for
from localllama._runtime.install_check import NOT_STARTED, ask_quietly, exit_of, fault_of_runtime
from localllama._runtime.probe_cache import FileStamp, command_stamp
from localllama._runtime.resolve import RUNGS, candidate_runtimes, chosen_runtime
from localllama.errors import ClientClosedError, LlamaRuntimeError, LocalLlamaWarning, RuntimeNotFoundError
from localllama.types import StartProgress

__all__ = ["Installation"]

_POLL_SECONDS = 0.2
_CHUNK_BYTES = 1 << 16

_failures: dict[tuple[str, ...], str] = {}


@dataclass(frozen=True)
class Installation:
    """One start's wish for a runtime; make it before the ladder is walked.

    Attributes:
        choice: The `runtime` setting.
        methods: What brings such a runtime.
        environ: The environment of this process.
        found: What there was before.
        is_cancelled: True once nobody waits any more.
        on_progress: Told what is going on.
    """

    choice: str
    methods: tuple[Method, ...]
    environ: Mapping[str, str]
    found: frozenset[tuple[FileStamp, ...]]
    is_cancelled: Callable[[], bool]
    on_progress: Callable[[StartProgress], None]

    @classmethod
    def prepared(
        cls,
        choice: str,
        environ: Mapping[str, str],
        is_cancelled: Callable[[], bool],
        on_progress: Callable[[StartProgress], None],
    ) -> Installation | None:
        """With what there is at this moment; None if nothing can be installed for this setting."""
        methods = _fitting_methods(choice, environ)
        if not methods:
            return None
        return cls(choice, methods, environ, _found(choice, environ), is_cancelled, on_progress)

    def run(self) -> str | None:
        """Install what fits the `runtime` setting, unless another process has done so meanwhile.

        Returns:
            None if there is a runtime now that is worth a try; else what was tried, for people.

        Raises:
            ClientClosedError: Nobody waits any more; an installer that ran was ended.
        """
        names = tuple(method.name for method in self.methods)
        try:
            directory = cache_directory(self.environ)
            with self._locked(directory):
                importlib.invalidate_caches()
                if _found(self.choice, self.environ) != self.found:
                    return None
                if names not in _failures:
                    with TemporaryDirectory(dir=directory) as place:
                        self._install(Path(place))
                    importlib.invalidate_caches()
                    if not _found(self.choice, self.environ):
                        # pip made the user's site directory just now, or an installer changed PATH for the shells to come.
                        _failures[names] = "it is installed now, but this process does not see it: start it again"
        except LlamaRuntimeError as error:
            _failures[names] = error.message
        except OSError as error:
            return f"nothing ({error}); set LOCALLLAMA_CACHE to a directory that can be written."
        return _failures.get(names)

    @contextmanager
    def _locked(self, directory: Path) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(directory / "install.lock", mode=0o600)
        while True:
            with suppress(Timeout):
                lock.acquire(timeout=_POLL_SECONDS)
                break
            self._refuse_if_cancelled()
            self.on_progress(StartProgress("installing", 0.0, detail="waiting for another process that installs"))
        try:
            yield
        finally:
            lock.release()

    def _install(self, place: Path) -> None:
        model = write_tiny_model(place / "tiny.gguf")
        install_runtime(
            self.methods,
            self.environ,
            run=lambda command: self._run(command, place),
            ask=lambda question: ask_quietly(question, self._refuse_if_cancelled),
            announce=self._announce,
            fault_of=lambda method: fault_of_runtime(method.runtime, model),
        )

    def _announce(self, _: Method, command: Sequence[str]) -> bool:
        self._refuse_if_cancelled()
        warnings.warn(
            f"No llama.cpp serves here, and auto_install is set. Running: {shlex.join(command)}",
            LocalLlamaWarning,
            stacklevel=2,
        )
        return True

    def _run(self, command: Sequence[str], place: Path) -> int:
        # Into a file, which no process that an installer leaves behind can hold us up with, and on to `sys.stderr`: in a
        # notebook that is not what a child would inherit. In a place of ours, since "python -m pip" would import a
        # `pip` from the current directory.
        words, began_at = shlex.join(command), time.monotonic()
        self.on_progress(StartProgress("installing", 0.0, detail=words))
        log_path = place / "log"
        with log_path.open("wb") as log, log_path.open("rb") as reading:
            try:
                process = subprocess.Popen(
                    list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=place
                )
            except OSError as error:
                _show(f"{command[0]}: {error.strerror or error}\n")
                return NOT_STARTED
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            with process:
                try:
                    while (code := exit_of(process)) is None:
                        _show(decoder.decode(reading.read(_CHUNK_BYTES)))
                        self.on_progress(StartProgress("installing", time.monotonic() - began_at, detail=words))
                        self._refuse_if_cancelled()
                except BaseException:
                    process.terminate()
                    raise
            _show(decoder.decode(reading.read(), final=True))
            return code

    def _refuse_if_cancelled(self) -> None:
        if self.is_cancelled():
            raise ClientClosedError("The client was closed while a runtime was being installed.")


def _fitting_methods(choice: str, environ: Mapping[str, str]) -> tuple[Method, ...]:
    chosen = chosen_runtime(choice, environ)
    methods = methods_for("auto")
    return tuple(method for method in methods if chosen == method.runtime or chosen not in RUNGS or chosen == "auto")


def _found(choice: str, environ: Mapping[str, str]) -> frozenset[tuple[FileStamp, ...]]:
    try:
        runtimes = candidate_runtimes(choice, environ).runtimes
    except RuntimeNotFoundError:
        return frozenset()
    return frozenset(command_stamp(runtime.command) for runtime in runtimes)


def _show(text: str) -> None:
    if sys.stderr is not None and text:  # there is none in a program without a console
        sys.stderr.write(text)
        sys.stderr.flush()
