"""The embedded runtime: llama.cpp's own server inside the `xllamacpp` wheel, with llama-server's command line.

Run by path and never imported:

    python -I -S embedded.py --library SITE_DIRECTORY -m MODEL --host DIRECTORY/x.sock ...

`-I -S` keeps out whatever the user's environment would put into a Python process (PYTHONPATH, usercustomize, .pth
files), so the directory that holds `xllamacpp` is named on the command line. Neither `LLAMA_ARG_*` variables nor
config.ini files are read: only llama.cpp's argument parser does that, and it is not used here.

The process ends
- at once when its standard input, if that is a pipe or a socket, reaches its end: it is the owner's lifeline;
- at once by SIGTERM and SIGINT, requests in flight or not: there is nothing to save;
- with exit code 1, and the reason on standard error, when the model or a flag is no good.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING or __package__:
    from . import embedded_flags as flags
    from .embedded_setters import FlagError
else:
    # Plain imports from this directory are compiled once and cached, unlike the program itself.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import embedded_flags as flags
    from embedded_setters import FlagError

    del sys.path[0]

_STDIN = 0


def main(arguments: list[str]) -> int:
    """Serve until killed; the exit code if that fails."""
    os.umask(0o077)
    restore_default_signals()
    library_directory, arguments = split_library(arguments)
    if any(argument in ("-h", "--help", "--usage") for argument in arguments):
        sys.stdout.write(flags.help_text())
        return 0
    if "--version" in arguments:
        sys.stderr.write(version_text(library_directory))
        return 0
    when_loaded = watch_lifeline()
    try:
        library = load_library(library_directory)
        params = flags.apply_arguments(library, arguments)
    except FlagError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return serve(library, params, when_loaded)


def split_library(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take our own flag, `--library DIRECTORY`, off the front of the command line."""
    if len(arguments) > 1 and arguments[0] == "--library":
        return arguments[1], arguments[2:]
    return None, arguments


def restore_default_signals() -> None:
    """Both signals end the process at once, in C, whatever state Python is in."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def watch_lifeline() -> Callable[[], None]:
    """End this process when standard input, if it is a pipe or a socket, reaches its end.

    A terminal or /dev/null is no lifeline: the one is for people who run this by hand, the other is at its end at once.

    Returns:
        To be called once the model is loaded.
    """
    try:
        mode = os.fstat(_STDIN).st_mode
    except OSError:
        return lambda: None
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return lambda: None
    if sys.platform == "linux":
        return _signal_at_end_of_input()
    else:  # noqa: RET505 - a type checker takes what follows a return under a platform's name for dead code
        # `xllamacpp.Server()` holds the GIL while it loads, so until then the supervisor alone is on watch here.
        _start_watching_thread()
        return lambda: None


def _start_watching_thread() -> None:
    threading.Thread(target=_exit_at_end_of_input, name="lifeline", daemon=True).start()


def _exit_at_end_of_input() -> NoReturn:
    try:
        while os.read(_STDIN, 4096):
            pass
    except OSError:
        pass
    os._exit(0)


def _signal_at_end_of_input() -> Callable[[], None]:
    """Have the kernel end this process while no thread can run (F_SETSIG), and a thread do so afterwards.

    Not both at once: the kernel sends no signal for a socket on which a thread waits in read() already.
    """
    import fcntl
    import select

    flags_before = fcntl.fcntl(_STDIN, fcntl.F_GETFL)
    fcntl.fcntl(_STDIN, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(_STDIN, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(_STDIN, fcntl.F_SETFL, flags_before | os.O_ASYNC)
    if select.select([_STDIN], [], [], 0)[0]:
        # The end came before the signal was armed, and nobody writes.
        os._exit(0)

    def when_loaded() -> None:
        # In this order no end is missed: the thread sees one that came before it, too.
        fcntl.fcntl(_STDIN, fcntl.F_SETFL, flags_before)
        _start_watching_thread()

    return when_loaded


def load_library(directory: str | None) -> Any:
    """Import `xllamacpp` from `directory`.

    Raises:
        FlagError: It is not there, or cannot be loaded on this machine.
    """
    if directory is not None:
        sys.path.append(directory)
    try:
        import xllamacpp
    except ImportError as error:
        raise FlagError(f"error: cannot load xllamacpp from {directory}: {error}") from None
    return xllamacpp


def serve(library: Any, params: Any, when_loaded: Callable[[], None]) -> int:
    """Load the model and serve until killed; 1 if the library gives up, which it has explained on standard error."""
    if not params.model.path:
        sys.stderr.write("error: --model is required: the embedded runtime has no router mode\n")
        return 1
    try:
        server = library.Server(params)
    except (RuntimeError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    # A later xllamacpp might install handlers of its own, as llama-server does.
    restore_default_signals()
    when_loaded()
    threading.Event().wait()
    del server
    return 0


def version_text(directory: str | None) -> str:
    """llama.cpp's two lines, read from the wheel's metadata, so that nothing large is loaded."""
    import platform

    version = "unknown"
    # "xllamacpp-1.2.3.dist-info"; os and not pathlib, which takes as long to import as the rest of this program.
    for name in sorted(os.listdir(directory)) if directory and os.access(directory, os.R_OK) else ():  # noqa: PTH208
        if name.startswith("xllamacpp") and name.endswith(".dist-info"):
            version = name.removesuffix(".dist-info").partition("-")[2]
    build = version.rpartition(".")[2]
    return (
        f"version: {version} (build {build if build.isdigit() else 0}, commit unknown)\n"
        f"built with xllamacpp for {platform.system()} {platform.machine()}\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
