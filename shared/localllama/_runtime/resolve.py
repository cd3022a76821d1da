"""The ladder: which llama.cpp programs there are on this machine, best first, and where they were looked for."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from localllama.errors import (
    ConfigurationError,
    ProgramMissingError,
    ProgramNotExecutableError,
    RuntimeBrokenError,
    RuntimeNotExecutableError,
    RuntimeNotFoundError,
)

from .probe import supported_flags
from .runtime import Runtime, RuntimeKind

__all__ = [
    "RUNGS",
    "RuntimeCandidates",
    "candidate_runtimes",
    "chosen_runtime",
    "programs_not_executable",
    "python_program",
]

_PATH_VARIABLE = "LOCALLLAMA_RUNTIME"
_INSTALL_HINT = 'pip install "localllama[runtime]"'
_PREFIXES = (
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/opt/local/bin",
    "~/.local/bin",
    "~/.linuxbrew/bin",
)
_EXECUTABLE_SUFFIX = ".exe" if sys.platform == "win32" else ""
_IDENTIFY_TIMEOUT_SECONDS = 5.0
RUNGS = ("llama-server", "embedded", "one-shot", "mock")
_REAL_PYTHON = re.compile(r"(?:python|pypy)[\d.]*[a-z]{0,2}(?:\.exe)?", re.IGNORECASE)


@dataclass(frozen=True)
class RuntimeCandidates:
    """What was found.

    Attributes:
        runtimes: In the order in which they are to be tried; never empty.
        report: A line for each place looked at, with what was found there.
    """

    runtimes: tuple[Runtime, ...]
    report: tuple[str, ...]


def candidate_runtimes(choice: str, environ: Mapping[str, str], *, allow_mock: bool = False) -> RuntimeCandidates:
    """Look for llama.cpp programs. None is started, but for a program whose name does not say what it is.

    Args:
        choice: "auto", "llama-server", "embedded", "one-shot", "mock", or the path or name of a program, which is then
            tried first.
        environ: PATH, HOME and LOCALLLAMA_RUNTIME are read from it.
        allow_mock: Whether the mock may be the last rung.

    Raises:
        ConfigurationError: `choice`, or LOCALLLAMA_RUNTIME, names a program that is not there or cannot be run; or it is
            "mock", which is not allowed.
        RuntimeNotFoundError: There is none; its `places` is the report.
    """
    search = _Search(environ)
    chosen = chosen_runtime(choice, environ)
    if chosen == "mock" and not allow_mock:
        raise ConfigurationError(
            "runtime='mock' answers without a model, and allow_mock is not set.", hint="Set allow_mock=True."
        )
    if chosen not in ("auto", *RUNGS):
        search.take(chosen, setting="runtime" if choice != "auto" else _PATH_VARIABLE)
    walks = {
        "llama-server": search.look_for_programs,
        "embedded": search.look_for_embedded,
        "one-shot": search.look_for_one_shot,
        "mock": search.look_for_mock,
    }
    for rung, walk in walks.items():
        if chosen == rung or (chosen not in RUNGS and (rung != "mock" or allow_mock)):
            walk()
    if not search.runtimes:
        raise _not_found(chosen, search)
    return RuntimeCandidates(tuple(search.runtimes), tuple(search.report))


def chosen_runtime(choice: str, environ: Mapping[str, str]) -> str:
    """What is meant by `choice` where LOCALLLAMA_RUNTIME stands for "auto"."""
    return environ.get(_PATH_VARIABLE) or choice if choice == "auto" else choice


def programs_not_executable(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Files with the name of a llama.cpp program, where one is looked for, that this user may not execute."""
    search = _Search(environ)
    names = ("llama-server", "llama-completion", "llama-cli")
    return tuple(dict.fromkeys(path for name in names for path in search.not_executable(name)))


def _not_found(choice: str, search: _Search) -> RuntimeNotFoundError:
    what = f"runtime {choice!r}" if choice in RUNGS else "llama.cpp program"
    advice = "" if choice in ("llama-server", "one-shot") else f"Install one: {_INSTALL_HINT}"
    hint = advice or f"Install llama.cpp, or set runtime='auto' and run: {_INSTALL_HINT}"
    forbidden = search.forbidden
    kind = RuntimeNotExecutableError if forbidden else RuntimeNotFoundError
    return kind(
        f"No {what} was found. Looked at: {'; '.join(search.report)}.",
        hint=f"If it is llama.cpp's program, run: chmod +x {forbidden[0]}" if forbidden else hint,
        places=tuple(search.report),
    )


class _Search:
    """One walk over the places: what was found so far, and the report."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._seen: set[tuple[RuntimeKind, str]] = set()
        self.runtimes: list[Runtime] = []
        self.report: list[str] = []
        self.forbidden: list[str] = []

    def take(self, choice: str, *, setting: str) -> None:
        """The program that the user named; it must be there."""
        path = self._named_program(choice, setting)
        kind = _kind_by_name(path) or _kind_by_help(path) or "llama-server"
        if not self._add(kind, path):
            python = f"sys.executable={sys.executable!r} is no Python to run it with"
            raise ConfigurationError(f"{setting}={path!r} needs Python beside it, and {python}.")
        self.report.append(f"{setting}: {path}")

    def look_for_programs(self) -> None:
        """`llama-server` on PATH and in the usual prefixes, then the multi-call `llama`."""
        found_any = False
        for name in ("llama-server", "llama"):
            found = 0
            for path in self._executables(name):
                if name == "llama" and not _is_llama_cpp(path):
                    self.report.append(f"{path}: is not llama.cpp's `llama`")
                    continue
                found += 1
                if self._add("llama" if name == "llama" else "llama-server", path):
                    self.report.append(f"{name}: {path}")
            if not found:
                self._report_none(name)
            found_any = found_any or bool(found)

    def look_for_embedded(self) -> None:
        """The `xllamacpp` wheel, looked up and not imported: 100 MB of library belong into the child alone."""
        directory = _library_directory()
        if directory is None:
            self.report.append("embedded: xllamacpp is not installed")
            return
        python = python_program()
        if python is None:
            self.report.append(
                f"embedded: xllamacpp is in {directory}, but sys.executable={sys.executable!r} is no Python to run it with"
            )
            return
        program = str(Path(__file__).with_name("embedded.py"))
        version = _library_version(directory)
        self.runtimes.append(
            Runtime(
                kind="embedded",
                command=(python, "-I", "-S", program, "--library", directory),
                origin=f"embedded xllamacpp {version}".rstrip(),
            )
        )
        self.report.append(f"embedded: xllamacpp {version} in {directory}")

    def look_for_one_shot(self) -> None:
        """`llama-completion`, `llama completion`, then `llama-cli`; the new one of that name opens a port, so it is last."""
        if stand_in_command() is None:
            self.report.append(f"one-shot: sys.executable={sys.executable!r} is no Python to run it with")
            return
        for name in ("llama-completion", "llama", "llama-cli"):
            paths = list(self._executables(name))
            for path in paths:
                is_foreign = name == "llama" and not _is_llama_cpp(path)
                if not is_foreign and self._add("one-shot", path):
                    self.report.append(f"one-shot: {self.runtimes[-1].origin}")
            if not paths:
                self._report_none(name)

    def look_for_mock(self) -> None:
        """Answers that say they are a mock."""
        command = stand_in_command()
        if command is None:
            self.report.append(f"mock: sys.executable={sys.executable!r} is no Python to run it with")
            return
        self.runtimes.append(Runtime(kind="mock", command=command, origin="the mock"))
        self.report.append("mock: allowed by allow_mock")

    def _report_none(self, name: str) -> None:
        self.report.append(f"PATH and the usual prefixes: no {name}")
        for path in dict.fromkeys(map(str, self.places_of(name))):
            if os.path.isdir(path):  # noqa: PTH112
                self.report.append(f"{path} is a directory")
        forbidden = self.not_executable(name)
        self.report += [f"{path} is not executable" for path in forbidden]
        if name != "llama":  # which is hardly llama.cpp's
            self.forbidden += forbidden

    def not_executable(self, name: str) -> list[str]:
        """Files of this name, where one is looked for, that this user may not execute."""
        paths = dict.fromkeys(map(str, self.places_of(name)))
        return [path for path in paths if os.path.isfile(path) and not os.access(path, os.X_OK)]  # noqa: PTH113

    def _add(self, kind: RuntimeKind, path: str) -> bool:
        key = (kind, os.path.realpath(path))
        if key in self._seen:
            return False
        self._seen.add(key)
        if kind == "one-shot":
            python_command = stand_in_command()
            if python_command is None:
                return False
            subcommand = ("completion",) if _stem(path) == "llama" else ()
            program = (path, *subcommand)
            flags = ("--program", path, *(("--subcommand", *subcommand) if subcommand else ()))
            self.runtimes.append(Runtime(kind, (*python_command, *flags), " ".join(program), program))
            return True
        command = (path, "serve") if kind == "llama" else (path,)
        self.runtimes.append(Runtime(kind=kind, command=command, origin=" ".join(command)))
        return True

    def _named_program(self, choice: str, setting: str) -> str:
        remedy = (
            "Give the path of a llama.cpp program, or one of 'auto', 'llama-server', 'embedded', 'one-shot'."
            if setting == "runtime"
            else f"Correct {setting}, or unset it."
        )
        path = Path(os.path.abspath(self._expand(choice)))
        is_plain_name = os.sep not in choice and "/" not in choice and not choice.startswith("~")
        # `os.access` before any question of pathlib: that raises for what is in a directory which may not be searched.
        is_there = os.access(path, os.F_OK)
        if is_plain_name and not is_there:
            found = next(self._executables(choice), None)
            forbidden = self.not_executable(choice)
            if found is None and forbidden:
                raise _not_executable(setting, choice, forbidden[0])
            if found is None:
                raise ProgramMissingError(f"{setting}={choice!r}: no such program on PATH.", hint=remedy)
            return found
        if not is_there:
            raise ProgramMissingError(f"{setting}={choice!r}: there is no such file.", hint=remedy)
        if path.is_dir():
            raise ConfigurationError(f"{setting}={choice!r} is a directory, not a program.", hint=remedy)
        if not os.access(path, os.X_OK):
            raise _not_executable(setting, choice, str(path))
        return str(path)

    def _executables(self, name: str) -> Iterator[str]:
        for path in self.places_of(name):
            # In this order: after sudo or su, PATH often has a directory of the other user, for which `is_file` raises.
            if os.access(path, os.X_OK) and path.is_file():
                yield str(path)

    def places_of(self, name: str) -> Iterator[Path]:
        """Every path at which a program of this name is looked for."""
        # shutil.which would take relative entries of PATH, on Windows the current directory too: whoever can write
        # there could put a llama-server in our way.
        file_name = name if name.lower().endswith(_EXECUTABLE_SUFFIX) else name + _EXECUTABLE_SUFFIX
        for directory in (*self._environ.get("PATH", "").split(os.pathsep), *_PREFIXES):
            path = self._expand(directory) / file_name
            if path.is_absolute():
                yield path

    def _expand(self, path: str) -> Path:
        home = self._environ.get("HOME")
        if home and path.startswith("~/"):
            return Path(home, path[2:])
        try:
            return Path(path).expanduser()
        except RuntimeError:
            return Path(path)


def _not_executable(setting: str, choice: str, path: str) -> ProgramNotExecutableError:
    where = "" if choice == path else f" ({path})"
    return ProgramNotExecutableError(
        f"{setting}={choice!r}{where} is not executable.", hint=f"If it is llama.cpp's program, run: chmod +x {path}"
    )


def _stem(path: str) -> str:
    return Path(path).name.lower().removesuffix(".exe")


def _kind_by_name(path: str) -> RuntimeKind | None:
    name = _stem(path)
    if name == "llama":
        return "llama"
    if name.startswith(("llama-completion", "llama-cli")):
        return "one-shot"
    return "llama-server" if name.startswith("llama-server") else None


def _kind_by_help(path: str) -> RuntimeKind | None:
    kinds: tuple[tuple[RuntimeKind, tuple[str, ...]], ...] = (
        ("llama-server", ()),
        ("one-shot", ()),
        ("llama", ("serve",)),
    )
    for kind, subcommand in kinds:
        command = (path, *subcommand)
        program = command if kind == "one-shot" else ()
        try:
            supported_flags(Runtime(kind, command, path, program), timeout_seconds=_IDENTIFY_TIMEOUT_SECONDS)
        except RuntimeBrokenError:
            continue
        return kind
    return None


def _is_llama_cpp(path: str) -> bool:
    # Meta's `llama` command line, a Python program, has the same name.
    try:
        supported_flags(Runtime("llama", (path, "serve"), path), timeout_seconds=_IDENTIFY_TIMEOUT_SECONDS)
    except RuntimeBrokenError:
        return False
    return True


def stand_in_command() -> tuple[str, ...] | None:
    """The command of our own stand-in for a server, without what it stands in front of; None without a Python for it."""
    python = python_program()
    if python is None:
        return None
    package = Path(__file__).parents[1]
    # What this process can import, the child can: `-S` keeps .pth files and the like from adding to it.
    paths = dict.fromkeys([str(package.parent), *(path for path in sys.path if path and Path(path).is_absolute())])
    program = str(package / "_one_shot" / "program.py")
    return (python, "-I", "-S", program, "--python-path", os.pathsep.join(paths))


def _library_directory() -> str | None:
    try:
        spec: importlib.machinery.ModuleSpec | None = importlib.util.find_spec("xllamacpp")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.submodule_search_locations:
        return None
    return os.path.dirname(os.path.abspath(os.path.dirname(spec.origin)))


def _library_version(directory: str) -> str:
    for path in sorted(Path(directory).glob("xllamacpp-*.dist-info")):
        return path.name.removesuffix(".dist-info").partition("-")[2]
    return ""


def python_program() -> str | None:
    """The Python that runs this, as a program; None where it cannot be told."""
    # sys.executable is empty in some embedding programs, the program itself in frozen ones, uwsgi in uwsgi.
    if getattr(sys, "frozen", False):
        return None
    beside = os.path.join(sys.exec_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    for path in (sys.executable, beside):
        if path and _REAL_PYTHON.fullmatch(Path(path).name) and os.access(path, os.X_OK):
            return path
    return None
