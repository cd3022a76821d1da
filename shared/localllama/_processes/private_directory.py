"""The private directory of a server: its socket, its key, its configuration; for this user's eyes only.

Its owner holds a lock on a file in it and hands a copy of that to the supervisor. A directory whose lock is free has
neither of the two any more (both were killed at once, or the machine was) and is removed when the next one is made.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import stat
import sys
import tempfile
import time
from pathlib import Path

from localllama.errors import ConfigurationError

from .supervisor import LOCK_NAME, remove_tree

_PREFIX = "localllama-"
_NAME = re.compile(rf"{_PREFIX}[0-9a-f]{{10}}")  # exact: what is swept must be ours beyond doubt
_OWN_MODE = 0o700
_N_RANDOM_BYTES = 5
_UNLOCKED_GRACE_SECONDS = 600.0
# sun_path has 104 bytes on macOS and 108 on Linux, with the 0 at the end; llama.cpp and httpx need no more than that.
_MAX_SOCKET_PATH_BYTES = 100
_LONGEST_NAME = f"{_PREFIX}{'0' * 2 * _N_RANDOM_BYTES}/server.sock"

_locks: dict[Path, int] = {}


def make_private_directory() -> Path:
    """Make a new directory with mode 0700 that a UNIX socket named `server.sock` fits into.

    It is made in XDG_RUNTIME_DIR if that is safe, else in the directory for temporary files: safe means that nobody else
    can put another directory in its place. Directories
    that were left by owners and supervisors which are both dead are removed on the way.

    Returns:
        Its path, absolute, short enough that `path / "server.sock"` has at most 100 bytes.

    Raises:
        ConfigurationError: No base directory is safe, short and writable.
    """
    refusals = []
    for base in _bases():
        reason = _reason_against(base)
        if reason is None:
            sweep_private_directories(base)
            try:
                return _make_in(base)
            except OSError as error:
                reason = error.strerror or str(error)
        refusals.append(f"{base}: {reason}")
    raise ConfigurationError(
        f"No directory for the server's socket could be made ({'; '.join(refusals)}).",
        hint="Set TMPDIR to a short path of a directory that only you can write to.",
    )


def duplicate_lock(directory: Path | None) -> int:
    """A second descriptor that holds the lock of a directory made here, the caller's to close; -1 if there is none."""
    descriptor = _locks.get(directory, -1) if directory is not None else -1
    return os.dup(descriptor) if descriptor >= 0 else -1


def release_lock(directory: Path | None) -> None:
    """Let go of the lock; the directory stays in use as long as someone else holds a copy of it."""
    descriptor = _locks.pop(directory, -1) if directory is not None else -1
    if descriptor >= 0:
        os.close(descriptor)


def sweep_private_directories(base: str) -> None:
    """Remove from `base` the directories of servers whose owner and supervisor are both dead."""
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False) and _is_left_over(entry.path):
                remove_tree(entry.path)


def remove_private_directory(directory: Path | None) -> None:
    """Remove a directory that no server runs in; one that is gone already, or none at all, is no error."""
    if directory is None:
        return
    if sys.platform == "win32":
        release_lock(directory)  # first: an open file cannot be removed there
    remove_tree(str(directory))
    release_lock(directory)


def _bases() -> list[str]:
    candidates = []
    with contextlib.suppress(FileNotFoundError):  # none can be written to; XDG_RUNTIME_DIR perhaps can
        candidates.append(tempfile.gettempdir())  # on Windows in the user's profile, which others cannot enter
    if sys.platform != "win32":
        candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), *candidates, "/tmp", "/var/tmp"]  # noqa: S108
    # Without the links: macOS has /tmp -> /private/tmp, and what is checked must be what is used.
    return list(dict.fromkeys(os.path.realpath(path) for path in candidates if Path(path).is_absolute()))


def _reason_against(base: str) -> str | None:
    """Why no private directory can be in `base`, or None."""
    if sys.platform == "win32":
        return None
    if len(os.fsencode(Path(base, _LONGEST_NAME))) > _MAX_SOCKET_PATH_BYTES:
        return "too long for a socket's path"
    for path in (Path(base), *Path(base).parents):
        try:
            status = path.lstat()
        except OSError as error:
            return error.strerror
        if not stat.S_ISDIR(status.st_mode):
            return f"{path} is not a directory"
        # Whoever can rename a directory above ours can put another in its place.
        if status.st_uid not in (0, os.getuid()):
            return f"{path} belongs to another user"
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            return f"others may write to {path}"
    return None


def _make_in(base: str) -> Path:
    directory = Path(base, _PREFIX + secrets.token_hex(_N_RANDOM_BYTES))
    directory.mkdir(mode=_OWN_MODE)
    try:
        directory.chmod(_OWN_MODE)  # the umask may have taken bits of the owner's
        _locks[directory] = _make_lock(directory)
    except BaseException:
        remove_private_directory(directory)
        raise
    return directory


def _is_left_over(directory: str) -> bool:
    try:
        status = os.lstat(directory)
    except OSError:  # its owner has just removed it
        return False
    try:
        if sys.platform != "win32" and (status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) != _OWN_MODE):
            return False
        return _is_free(Path(directory, LOCK_NAME))
    except FileNotFoundError:
        # Its maker is between two lines of `_make_in`, or was killed there.
        return time.time() - status.st_mtime > _UNLOCKED_GRACE_SECONDS
    except OSError:
        return False


if sys.platform == "win32":

    def _make_lock(directory: Path) -> int:
        # A file that is open cannot be deleted here: that it is open is the lock.
        return os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def _is_free(lock: Path) -> bool:
        lock.unlink()
        return True

else:
    import fcntl

    def _make_lock(directory: Path) -> int:
        # Locked first, named then: whoever finds the name finds it locked, unless its holders are dead.
        unnamed = directory / f"{LOCK_NAME}.new"
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # the next owner of ours must be able to open it
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(directory / LOCK_NAME)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _is_free(lock: Path) -> bool:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
        return True


def _remove_unused() -> None:
    """At exit: those that were made and, for an interrupt in between, never used."""
    for directory in list(_locks):
        remove_private_directory(directory)


def _forget_in_forked_child() -> None:
    while _locks:
        _, descriptor = _locks.popitem()
        os.close(descriptor)


atexit.register(_remove_unused)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_in_forked_child)
