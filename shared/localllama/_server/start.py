"""Starting a server: the walk down the ladder of runtimes until one of them serves the model.

A runtime that cannot run here for a reason of its own (SIGILL, a missing library, an unknown flag, an architecture that
this build does not know yet) is passed over with one warning. A fault of the model or of the settings would be the same
with every runtime, so it is raised at once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from localllama._frames import let_go
from localllama._processes.private_directory import make_private_directory, remove_private_directory
from localllama._processes.process import LOG_BYTES, ExitStatus, LaunchPlan, ServerProcess, launch
from localllama._runtime.probe import forget_answers, supported_flags, supports_unix_sockets
from localllama._runtime.resolve import candidate_runtimes
from localllama._runtime.runtime import Runtime
from localllama.errors import (
    ClientClosedError,
    LocalLlamaError,
    LocalLlamaWarning,
    ModelCorruptError,
    RuntimeBrokenError,
    RuntimeNotFoundError,
    ServerStartError,
    ServerStartTimeoutError,
    UnsupportedFeatureError,
)
from localllama.settings import ServerSettings
from localllama.types import Endpoint, ModelInfo, StartProgress

from .checks import check_setting_files
from .command import child_environment, redacted_command, server_arguments
from .ended import describe_exit, last_lines
from .failures import NEXT_RUNTIME, StartFailure, classify_start_failure
from .lesser_rungs import refuse_open_port, warn_of_rung
from .readiness import HealthProbe, wait_until_ready

if TYPE_CHECKING:
    from .auto_install import Installation

__all__ = ["StartRequest", "StartedServer", "start_server"]

_BIND_ATTEMPTS = 3
# All that a program said in its trial, which the stand-in hands on: the two ends of 8 MiB each, and a line between them.
_ONE_SHOT_LOG_BYTES = 17 * 1024 * 1024
_warned_about: set[tuple[str, ...]] = set()


@dataclass(frozen=True)
class StartRequest:
    """All that a start needs; nothing in it changes while the server lives.

    Attributes:
        settings: How to serve.
        model: What to serve, its file checked already.
        load_probe: Gives what asks a server's health. Called once the child starts: importing an HTTP client takes as
            long as starting a process does.
        generation: Number of this start, for the endpoint.
        environ: The environment of this process.
        is_cancelled: True once nobody wants the server any more.
        on_progress: Told what is going on.
    """

    settings: ServerSettings
    model: ModelInfo
    load_probe: Callable[[], HealthProbe]
    generation: int
    environ: Mapping[str, str] = field(repr=False)
    is_cancelled: Callable[[], bool]
    on_progress: Callable[[StartProgress], None]


@dataclass(frozen=True)
class StartedServer:
    """A server that answered `/health` with 200.

    Attributes:
        process: The child.
        endpoint: Where it listens.
        runtime: The program that runs.
        command: Its command line for people, secrets removed.
        model: What it serves.
    """

    process: ServerProcess
    endpoint: Endpoint
    runtime: Runtime
    command: str
    model: ModelInfo | None = None


def start_server(request: StartRequest) -> StartedServer:
    """Start the first runtime of the ladder that serves the model.

    Raises:
        RuntimeNotFoundError: No llama.cpp program was found; lists each place looked at.
        RuntimeBrokenError: Programs were found, but each of them is broken.
        ServerStartError: The model, the settings or the machine's memory is at fault; has the log and the command.
        ServerStartTimeoutError: It was not ready in time.
        ConfigurationError: A setting names a file that is not there, or a flag that the build does not have.
    """
    settings = request.settings
    check_setting_files(settings)
    installation = _installation(request)
    # The mock is the rung below an installation.
    outcome = _serve(request, allow_mock=settings.allow_mock and installation is None)
    if isinstance(outcome, _NoneServes) and installation is not None:
        tried = installation.run() if outcome.lacks_server else ""
        if tried:
            outcome.error.message += f" auto_install tried: {tried}"
        if tried is None or settings.allow_mock:
            outcome = _serve(request, allow_mock=settings.allow_mock)
    if isinstance(outcome, _NoneServes):
        raise outcome.error
    return outcome


class _NoneServes(NamedTuple):
    """Why no runtime serves, and whether that is for lack of a server that runs, or because of what is asked of one."""

    error: LocalLlamaError
    lacks_server: bool


def _installation(request: StartRequest) -> Installation | None:
    settings = request.settings
    if not settings.auto_install:
        return None
    from .auto_install import Installation

    return Installation.prepared(settings.runtime, request.environ, request.is_cancelled, request.on_progress)


def _serve(request: StartRequest, *, allow_mock: bool) -> StartedServer | _NoneServes:
    """Walk down the ladder; once more without the projector, if there is one that nobody asked for."""
    projector = request.model.mmproj if request.settings.mmproj is None else None
    error: LocalLlamaError
    try:
        outcome = _walk(request, allow_mock=allow_mock)
        if isinstance(outcome, StartedServer) or not isinstance(outcome.error, RuntimeBrokenError):
            return outcome
        if projector is None:
            return outcome
        error = outcome.error
    except (ServerStartError, ModelCorruptError) as caught:
        if projector is None or isinstance(caught, ServerStartTimeoutError):
            raise
        error = caught
    # It was found, not asked for: whoever only wants text must not be hindered by it. If the start fails without it too,
    # that failure is the one to tell.
    outcome = _walk(replace(request, model=replace(request.model, mmproj=None)), allow_mock=allow_mock)
    if isinstance(outcome, StartedServer):
        warnings.warn(
            f"{request.model.name} is served without its projector {projector}, so it takes no images or sound: "
            f'{error.message} Set mmproj="off" to leave the projector out.',
            LocalLlamaWarning,
            stacklevel=2,
        )
    return outcome


def _walk(request: StartRequest, *, allow_mock: bool) -> StartedServer | _NoneServes:
    settings = request.settings
    try:
        candidates = candidate_runtimes(settings.runtime, request.environ, allow_mock=allow_mock).runtimes
    except RuntimeNotFoundError as error:
        return _NoneServes(error, lacks_server=True)
    broken: list[RuntimeBrokenError | UnsupportedFeatureError] = []
    lacks_server = True
    for position, runtime in enumerate(candidates):
        try:
            started = _start_with(request, runtime)
            warn_of_rung(runtime, settings, _warned_about)
            while broken:
                let_go(broken.pop())
            return started
        except (RuntimeBrokenError, UnsupportedFeatureError) as error:
            # Also a build that lacks a flag which a setting asks for: the next one may have it.
            broken.append(error)
            lacks_server &= isinstance(error, RuntimeBrokenError) or runtime.kind == "one-shot"
            if position + 1 < len(candidates):
                _warn_once(runtime, candidates[position + 1], error)
    return _NoneServes(_all_broken(broken), lacks_server)


def _warn_once(runtime: Runtime, following: Runtime, error: LocalLlamaError) -> None:
    if runtime.command in _warned_about:
        return
    _warned_about.add(runtime.command)
    warnings.warn(
        f"The llama.cpp runtime {runtime.origin} does not work here and is passed over: {error.message} "
        f"Going on with {following.origin}.",
        LocalLlamaWarning,
        stacklevel=2,
    )


def _all_broken(broken: list[RuntimeBrokenError | UnsupportedFeatureError]) -> LocalLlamaError:
    unsupported = [error for error in broken if isinstance(error, UnsupportedFeatureError)]
    if unsupported or len(broken) == 1:
        return (unsupported or broken)[0]
    tails = [error.log_tail for error in broken if isinstance(error, RuntimeBrokenError) and error.log_tail]
    all_broken = RuntimeBrokenError(
        "Every llama.cpp runtime that was found is broken: " + " ".join(error.message for error in broken),
        hint='Install one that runs here: pip install "localllama[runtime]"',
        log_tail="\n".join(tails),
    )
    all_broken.causes = tuple(broken)
    return all_broken


def _start_with(request: StartRequest, runtime: Runtime) -> StartedServer:
    flags = supported_flags(runtime)
    refuse_open_port(runtime, request.settings)
    try:
        return _start_at_an_address(request, runtime, flags)
    except (RuntimeBrokenError, UnsupportedFeatureError):
        # What it says of itself may be what is wrong: it may need another library now than when it was asked.
        forget_answers(runtime)
        raise


def _start_at_an_address(request: StartRequest, runtime: Runtime, flags: frozenset[str]) -> StartedServer:
    # Between choosing a free port and the server's bind another program may take it.
    for _ in range(_BIND_ATTEMPTS - 1):
        with contextlib.suppress(_AddressTakenError):
            return _launch_and_wait(request, runtime, flags)
    try:
        return _launch_and_wait(request, runtime, flags)
    except _AddressTakenError as taken:
        raise taken.error from taken


class _AddressTakenError(Exception):
    def __init__(self, error: LocalLlamaError) -> None:
        super().__init__(str(error))
        self.error = error


def _launch_and_wait(request: StartRequest, runtime: Runtime, flags: frozenset[str]) -> StartedServer:
    started_at = time.monotonic()

    def report(stage: Literal["starting", "loading", "ready"]) -> None:
        request.on_progress(StartProgress(stage, time.monotonic() - started_at, detail=runtime.origin))

    report("starting")
    directory = make_private_directory()
    try:
        plan, endpoint = _plan(request, runtime, flags, directory)
    except OSError as error:
        remove_private_directory(directory)
        raise ServerStartError(
            f"The server's private directory {directory} could not be filled: {error}",
            hint="Free some disk space there, or set TMPDIR to another directory.",
        ) from error
    except BaseException:
        remove_private_directory(directory)
        raise
    process = launch(plan)  # from here on the directory belongs to the server
    command = redacted_command(plan.argv)
    try:
        readiness = wait_until_ready(
            process,
            endpoint,
            request.load_probe(),
            timeout_seconds=request.settings.start_timeout_seconds,
            is_cancelled=request.is_cancelled,
            on_wait=lambda: report("loading"),
        )
        if readiness.outcome == "ready":
            report("ready")
            return StartedServer(process, endpoint, runtime, command, request.model)
        if readiness.outcome == "cancelled":
            raise ClientClosedError("The client was closed while its server was starting.")
        if readiness.outcome == "exited":
            assert readiness.exit_status is not None
            raise _start_failed(request, runtime, readiness.exit_status, process, _by_hand(request, runtime, command))
        raise _start_timed_out(request, runtime, process, _by_hand(request, runtime, command))
    except BaseException:
        process.stop()
        raise


def _plan(
    request: StartRequest, runtime: Runtime, flags: frozenset[str], directory: Path
) -> tuple[LaunchPlan, Endpoint]:
    settings = request.settings
    config_directory = directory / "config"
    config_directory.mkdir()
    config_directory.chmod(0o700)  # whatever the umask has taken
    socket_path: str | None = None
    port: int | None = None
    if _listens_on_unix_socket(settings, runtime):
        socket_path = str(directory / "server.sock")
        base_url = "http://localllama"
    else:
        port = _free_loopback_port()
        base_url = f"http://127.0.0.1:{port}"
    key: str | None = None
    key_file: str | None = None
    if port is not None or "--api-key-file" in flags:
        # On a socket of our own it guards against /etc/llama.cpp/config.ini, which nobody can shut out: a key that is set
        # there would lock us out, but llama-server takes each of the keys that it was given.
        key, key_file = secrets.token_urlsafe(32), str(directory / "api-key")
        with open(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(key + "\n")
        Path(key_file).chmod(0o600)  # a umask may have taken our own right to read it
    arguments = server_arguments(
        settings,
        request.model,
        socket_path=socket_path,
        port=port,
        api_key_file=key_file,
        flags=flags,
        runtime_name=runtime.origin,
    )
    env = child_environment(request.environ, settings, config_directory=str(config_directory))
    env.update(runtime.extra_env)
    log_bytes = _ONE_SHOT_LOG_BYTES if runtime.kind == "one-shot" else LOG_BYTES
    plan = LaunchPlan((*runtime.command, *arguments), env, directory, log_bytes)
    return plan, Endpoint(base_url, socket_path=socket_path, api_key=key, generation=request.generation)


def _listens_on_unix_socket(settings: ServerSettings, runtime: Runtime) -> bool:
    # llama-server's UNIX sockets are POSIX only, though newer Windows knows AF_UNIX; builds before 2025 have none.
    if settings.listen != "auto":
        return settings.listen == "unix"
    return sys.platform != "win32" and supports_unix_sockets(runtime)


def _free_loopback_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start_failed(
    request: StartRequest, runtime: Runtime, status: ExitStatus, process: ServerProcess, command: str
) -> Exception:
    log = process.log_tail()
    failure = classify_start_failure(status.exit_code, status.signal_number, log)
    error = _start_error(request, runtime, failure, describe_exit(status), last_lines(log), command)
    error.exit_code, error.signal_number = status.exit_code, status.signal_number
    if runtime.kind == "one-shot":
        error.stderr = process.log()
    return _AddressTakenError(error) if failure.kind == "address" else error


def _start_error(
    request: StartRequest, runtime: Runtime, failure: StartFailure, how: str, tail: str, command: str
) -> RuntimeBrokenError | ModelCorruptError | ServerStartError:
    # What a signal means is in both.
    why = "" if how.endswith(failure.reason) else f": {failure.reason}"
    # A program that answers once has nothing but its trial to fail in; the next rung may do better, as `doctor` says.
    if failure.kind == "runtime" or (failure.kind == "unknown" and runtime.kind == "one-shot"):
        hint = failure.hint if failure.kind == "runtime" else NEXT_RUNTIME
        return RuntimeBrokenError(f"{runtime.origin} {how}{why}.", hint=hint, runtime=runtime.origin, log_tail=tail)
    if failure.kind == "model":
        return ModelCorruptError(
            f"llama.cpp could not load {request.model.path} ({runtime.origin} {how}): {failure.reason}\n{tail}",
            hint=failure.hint,
        )
    return ServerStartError(
        f"The server for {request.model.name} ({runtime.origin}) {how} before it was ready{why}.",
        hint=failure.hint,
        log_tail=tail,
        command=command,
    )


def _by_hand(request: StartRequest, runtime: Runtime, command: str) -> str:
    """The command line for people; of a one-shot rung the program's, since our stand-in for a server is not what fails."""
    if runtime.kind != "one-shot":
        return command
    return redacted_command((*runtime.program, "-m", request.model.path or "", "-p", "Hello", "-n", "1"))


def _start_timed_out(
    request: StartRequest, runtime: Runtime, process: ServerProcess, command: str
) -> ServerStartTimeoutError:
    seconds = request.settings.start_timeout_seconds
    what = "The one-shot program" if runtime.kind == "one-shot" else "The server"
    return ServerStartTimeoutError(
        f"{what} for {request.model.name} ({runtime.origin}) was not ready within start_timeout_seconds={seconds:g}.",
        hint="Raise start_timeout_seconds, or use a smaller model or quantization.",
        log_tail=last_lines(process.log_tail()),
        command=command,
    )
