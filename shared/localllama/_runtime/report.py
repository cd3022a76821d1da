"""What there is of llama.cpp on this machine, for people: every place looked at, and what each program says of itself."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from localllama.errors import LocalLlamaError, RuntimeBrokenError, RuntimeNotFoundError

from .environment import without_llama_variables
from .exit_reason import exit_words
from .probe import forget_answers, forget_foreign_programs, runtime_version, supported_flags
from .probe_cache import remember, remembered
from .resolve import candidate_runtimes, programs_not_executable
from .runtime import Runtime

__all__ = ["FEATURES", "RuntimeReport", "RuntimeState", "report_runtimes"]

_TIMEOUT_SECONDS = 20.0
# A driver may come and go while the program stays the same.
_MOST_SECONDS_OF_DEVICES = 600.0
FEATURES: dict[str, tuple[str, ...]] = {
    "images": ("--mmproj",),
    "speculative decoding": ("--model-draft", "-md"),
    "saved slots": ("--slot-save-path",),
    "keys in a file": ("--api-key-file",),
    "limits on thinking": ("--reasoning-budget",),
}
"""Features by the flags that tell of them; a version number would not."""
_LIBRARY_DEVICES = """
import sys
sys.path.append(sys.argv[1])
try:
    import xllamacpp
except ImportError as error:
    print(error)
    sys.exit(3)
for device in xllamacpp.get_device_info():
    if "CPU" not in str(device["type"]):
        print(f"{device['name']}: {device['description']}")
"""
_NOT_LOADED = 3
_DEVICE = re.compile(r"^\s+(\w+): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class RuntimeState:
    """One program.

    Attributes:
        origin: Its name for people.
        kind: Such as "llama-server" or "embedded".
        command: How it is started.
        version: What it says of its version; a hint only.
        features: Of `FEATURES`, those that it has.
        devices: What `--list-devices` names beside the processor.
        fault: Why it cannot be used; None if it answers. Only loading a model proves more.
        verdict: Why it is taken, or passed over.
    """

    origin: str
    kind: str
    command: tuple[str, ...]
    version: str | None = None
    features: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    fault: str | None = None
    verdict: str = ""


@dataclass(frozen=True)
class RuntimeReport:
    """The whole ladder.

    Attributes:
        places: A line for each place looked at, with what was found there.
        runtimes: In the order in which they are tried.
        not_executable: Files with the name of a llama.cpp program where one is looked for, which may not be executed.
    """

    places: tuple[str, ...]
    runtimes: tuple[RuntimeState, ...]
    not_executable: tuple[str, ...] = ()


def report_runtimes(choice: str, environ: Mapping[str, str], *, is_fresh: bool = False) -> RuntimeReport:
    """Look at every rung and ask each program what it is. No model is loaded.

    Args:
        choice: The `runtime` setting.
        environ: The environment of this process.
        is_fresh: Ask each program again, whatever it said before: a library that it needs may be gone since.

    Raises:
        ConfigurationError: `choice`, or LOCALLLAMA_RUNTIME, names a program that is not there.
    """
    if is_fresh:
        forget_foreign_programs()
    try:
        candidates = candidate_runtimes(choice, environ)
    except RuntimeNotFoundError as error:
        return RuntimeReport(tuple(error.places), (), programs_not_executable(environ))
    states: list[RuntimeState] = []
    for runtime in candidates.runtimes:
        if is_fresh:
            forget_answers(runtime)
        state = _state(runtime, environ)
        taken = next((earlier for earlier in states if earlier.fault is None), None)
        states.append(replace(state, verdict=_verdict(state, taken)))
    return RuntimeReport(candidates.report, tuple(states), programs_not_executable(environ))


def _verdict(state: RuntimeState, taken: RuntimeState | None) -> str:
    if state.fault is not None:
        return "passed over: it does not answer here"
    if taken is None:
        return "taken: the first in the order that answers here"
    return f"only if {taken.origin} does not load the model"


def _state(runtime: Runtime, environ: Mapping[str, str]) -> RuntimeState:
    known = {"origin": runtime.origin, "kind": runtime.kind, "command": runtime.command}
    try:
        flags = supported_flags(runtime)
        devices = _devices(runtime, flags, environ)
    except LocalLlamaError as error:
        return RuntimeState(**known, fault=error.message)  # type: ignore[arg-type]
    return RuntimeState(
        **known,  # type: ignore[arg-type]
        version=None if runtime.kind == "embedded" else runtime_version(runtime),
        features=tuple(name for name, spellings in FEATURES.items() if flags.intersection(spellings)),
        devices=devices,
    )


def _devices(runtime: Runtime, flags: frozenset[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    command = _question_of_devices(runtime, flags)
    if command is None:
        return ()
    shown = {name: value for name, value in environ.items() if "VISIBLE_DEVICES" in name}
    question = f"devices {sorted(shown.items())}"
    known = remembered(question, runtime.command, most_seconds=_MOST_SECONDS_OF_DEVICES)
    if isinstance(known, list) and all(isinstance(device, str) for device in known):
        return tuple(known)
    devices = _asked_devices(runtime, command, environ)
    if devices is not None:
        remember(question, runtime.command, devices)
    return devices or ()


def _asked_devices(runtime: Runtime, command: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...] | None:
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if runtime.kind == "embedded" else subprocess.STDOUT,
            env=without_llama_variables(environ),
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if runtime.kind == "embedded":
        _require_loaded(runtime, answer.returncode, answer.stdout.decode("utf-8", "replace").strip())
        return tuple(answer.stdout.decode("utf-8", "replace").splitlines()) if answer.returncode == 0 else None
    listed = answer.stdout.decode("utf-8", "replace").partition("Available devices:")[2]
    return tuple(f"{name}: {what.strip()}" for name, what in _DEVICE.findall(listed))


def _require_loaded(runtime: Runtime, exit_code: int, said: str) -> None:
    if exit_code != _NOT_LOADED and exit_code >= 0:
        return
    how = said if exit_code >= 0 else f"the process {exit_words(None, -exit_code)}"
    raise RuntimeBrokenError(f"{runtime.origin} cannot be loaded: {how}", runtime=runtime.origin)


def _question_of_devices(runtime: Runtime, flags: frozenset[str]) -> list[str] | None:
    if runtime.kind == "embedded":
        *_, library = runtime.command
        return [*runtime.command[:3], "-c", _LIBRARY_DEVICES, library]
    program = runtime.program or runtime.command
    return [*program, "--list-devices"] if runtime.program or "--list-devices" in flags else None
