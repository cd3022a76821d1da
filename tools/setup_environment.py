"""Makes the virtual environment that the Makefile works in, or finds in some milliseconds that it is made.

    python tools/setup_environment.py            .venv with the package and all extras: enough for the demo
    python tools/setup_environment.py --dev      the same with the tools of development
    python tools/setup_environment.py --lowest   with the oldest releases that pyproject.toml allows

uv does it if it is on PATH, otherwise venv and pip. Needs nothing but the standard library of Python 3.10. A setup
that was interrupted is made anew at the next run: pip takes a package whose files are half there for an installed one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
LOG = CACHE / "setup.log"
STAMP_NAME = ".localllama-setup.json"
STAMP_FORMAT = 1
OLDEST_PIP_WITH_GROUPS = (25, 1)
SHOWN_LOG_LINES = 30
SOURCES = ("shared/localllama", "langchain_localllama", "llamaindex_localllama")


class SetupError(Exception):
    """The environment could not be made; the message says what to do."""


@dataclass(frozen=True)
class Stamp:
    """What is known of an environment: the inputs that it was made from, and whether it is complete."""

    key: str = ""
    has_dev_tools: bool = False
    is_complete: bool = False

    @classmethod
    def read(cls, environment: Path) -> Stamp | None:
        """The stamp of `environment`; None if there is none, as in an environment that was made by hand."""
        try:
            values = json.loads((environment / STAMP_NAME).read_text())
            return cls(str(values["key"]), bool(values["has_dev_tools"]), bool(values["is_complete"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, environment: Path) -> None:
        """Replace the stamp in one step."""
        unfinished = environment / f"{STAMP_NAME}.part"
        unfinished.write_text(json.dumps(self.__dict__))
        unfinished.replace(environment / STAMP_NAME)


def main(arguments: list[str] | None = None) -> int:
    """Run the setup; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dev", action="store_true", help="install the tools of development too")
    parser.add_argument("--directory", type=Path, default=ROOT / ".venv", help="where it goes (default: .venv)")
    parser.add_argument("--lowest", action="store_true", help="each dependency at its lower bound")
    parser.add_argument("--no-uv", action="store_true", help="use venv and pip even if uv is on PATH")
    options = parser.parse_args(arguments)
    uv = None if options.no_uv else shutil.which("uv")
    try:
        with _one_at_a_time():
            set_up(options.directory.absolute(), with_dev_tools=options.dev, uv=uv, is_lowest=options.lowest)
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted; the next run starts the setup anew.\n")
        return 130
    return 0


def set_up(environment: Path, *, with_dev_tools: bool, uv: str | None, is_lowest: bool = False) -> None:
    """Bring `environment` to the state that pyproject.toml asks for; does nothing if it is there."""
    key = _key(is_lowest=is_lowest)
    stamp = Stamp.read(environment)
    if stamp and stamp.is_complete and stamp.key == key and (stamp.has_dev_tools or not with_dev_tools):
        return
    began = time.monotonic()
    LOG.write_text("")
    if not _is_usable(environment, stamp):
        _create(environment, uv)
    with_dev_tools = with_dev_tools or bool(stamp and stamp.has_dev_tools)
    Stamp(key, with_dev_tools).write(environment)
    _install(environment, with_dev_tools=with_dev_tools, uv=uv, is_lowest=is_lowest)
    Stamp(key, with_dev_tools, is_complete=True).write(environment)
    print(f"setup: {_shown(environment)} is ready after {time.monotonic() - began:.1f} s", flush=True)


def _key(*, is_lowest: bool) -> str:
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    digest.update(f"{STAMP_FORMAT} {sys.version} {ROOT} {'lowest' if is_lowest else ''}".encode())
    return digest.hexdigest()


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _is_usable(environment: Path, stamp: Stamp | None) -> bool:
    if not environment.exists():
        return False
    if stamp is None and not (environment / "pyvenv.cfg").exists():
        raise SetupError(f"{environment} is in the way: it is not a virtual environment. Move it, then try again.")
    if stamp and not stamp.is_complete:
        print(f"setup: an earlier setup of {_shown(environment)} was interrupted; making it anew", flush=True)
        return False
    try:
        answer = subprocess.run(
            [_python(environment), "-I", "-c", "import sys; print(sys.version)"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        print(f"setup: the Python of {_shown(environment)} no longer runs; making it anew", flush=True)
        return False
    if answer.stdout.strip() != sys.version:
        print(f"setup: {_shown(environment)} is of another Python; making it anew", flush=True)
        return False
    return True


def _create(environment: Path, uv: str | None) -> None:
    # The interpreter may belong to the very environment that is being replaced; its base does not.
    python = getattr(sys, "_base_executable", None) or sys.executable
    environment.mkdir(parents=True, exist_ok=True)
    Stamp().write(environment)
    if uv:
        # Seeded with pip, so that whatever is run in it may count on `python -m pip`.
        command = [uv, "venv", "--quiet", "--seed", "--allow-existing", "--python", python, str(environment)]
    else:
        command = [python, "-m", "venv", str(environment)]
    for entry in environment.iterdir():
        if entry.name != STAMP_NAME:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    made_by = "uv" if uv else "venv"
    with _step(f"creating {_shown(environment)} with {made_by} (Python {sys.version.split()[0]})"):
        hint = "On Debian and Ubuntu, venv is a package of its own: apt install python3-venv. Or install uv."
        _run(command, hint="" if uv else hint)


def lower_bounds() -> list[str]:
    """A constraint for each dependency of the package and its extras that pins it to its lower bound."""
    # Not by tomllib, which Python 3.10 does not have. The tools of development, in the groups, are as new as ever.
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[dependency-groups]")[0]
    bounds = re.findall(r'^    "([\w-]+)>=([\w.]+)[^"]*",', project, re.MULTILINE)
    return [f"{name}=={version}" for name, version in bounds]


def _install(environment: Path, *, with_dev_tools: bool, uv: str | None, is_lowest: bool) -> None:
    python = str(_python(environment))
    # hatchling's editable install needs editables; pip reads that in the built wheel, uv looks at pyproject.toml only.
    wanted = ["editables", "--editable", f"{ROOT}[all]"]
    name = "localllama[all]"
    if with_dev_tools:
        wanted += ["--group", f"{ROOT / 'pyproject.toml'}:dev"]
        name += " and the tools of development"
    if is_lowest:
        constraints = CACHE / "lowest.txt"
        constraints.write_text("\n".join(lower_bounds()) + "\n")
        wanted += ["--constraint", str(constraints)]
        name += ", at the lower bounds"
    if uv:
        command = [uv, "pip", "install", "--quiet", "--python", python, *wanted]
    else:
        if with_dev_tools and _pip_version(python) < OLDEST_PIP_WITH_GROUPS:
            newest = ".".join(str(part) for part in OLDEST_PIP_WITH_GROUPS)
            with _step("upgrading pip, which is too old for dependency groups"):
                _run([python, "-m", "pip", "install", "--upgrade", f"pip>={newest}"])
        command = [python, "-m", "pip", "install", *wanted]
    with _step(f"installing {name} (a minute or two the first time)"):
        _run(
            command,
            hint="Is a package index in reach? What was downloaded is kept by pip or uv, so trying again is cheap.",
        )
        # As pip does for what it copies. Where PYTHONDONTWRITEBYTECODE is set nothing else would do it for an editable
        # install, and each process would compile our sources anew.
        _run([python, "-m", "compileall", "-q", *(str(ROOT / source) for source in SOURCES)])


def _pip_version(python: str) -> tuple[int, ...]:
    answer = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, text=True, check=False)
    match = re.match(r"pip (\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in match.groups()) if match else (0,)


def _run(command: list[str], *, hint: str = "") -> None:
    """Run one command with its output in the log; a failure shows the log's last lines."""
    # A user's own pip settings for installing elsewhere, or paths to other packages, would miss the environment.
    ignored = {"PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "VIRTUAL_ENV"}
    environ = {name: value for name, value in os.environ.items() if name not in ignored}
    environ |= {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environ, cwd=ROOT, check=False
        ).returncode
    if code:
        tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-SHOWN_LOG_LINES:])
        raise SetupError("\n".join(filter(None, [f"{tail}\n\nThe setup failed; all of it is in {_shown(LOG)}.", hint])))


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    print(f"setup: {what} ...", end="", flush=True)
    began = time.monotonic()
    try:
        yield
    except BaseException:
        print(" failed", flush=True)
        raise
    print(f" {time.monotonic() - began:.1f} s", flush=True)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let a second setup wait for the first, as with `make demo` in two terminals."""
    CACHE.mkdir(exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows, where no make runs two of these at once
        yield
        return
    with (CACHE / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
