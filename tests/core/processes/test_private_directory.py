"""Private directories: whose they are, where they may be, and when they are removed."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from localllama._processes import private_directory
from localllama._processes.private_directory import make_private_directory, remove_private_directory
from localllama.errors import ConfigurationError

SOCKET_PATH_LIMIT = 100


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    for directory in list(private_directory._locks):
        remove_private_directory(directory)


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty base directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="llp-") as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        yield Path(path)


@pytest.mark.parametrize("name", [None, "lock.new"])
def test_what_a_maker_left_who_was_killed_before_the_lock_is_removed_later(base: Path, name: str | None) -> None:
    left = base / "localllama-0123456789"
    left.mkdir(mode=0o700)
    if name:
        (left / name).touch(mode=0o600)
    make_private_directory()
    assert left.exists(), "its maker may be between two lines"
    os.utime(left, (0, 0))
    make_private_directory()
    assert not left.exists()


def test_only_its_user_can_enter_and_a_socket_fits(base: Path) -> None:
    umask = os.umask(0)
    try:
        directory = make_private_directory()
    finally:
        os.umask(umask)
    assert directory.parent == base
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert len(os.fsencode(directory / "server.sock")) <= SOCKET_PATH_LIMIT
    assert make_private_directory() != directory


def test_umask_that_takes_everything_does_not_lock_us_out(base: Path) -> None:
    umask = os.umask(0o777)
    try:
        directory = make_private_directory()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "lock").stat().st_mode) == 0o600


def test_a_directory_that_is_closed_to_us_is_removed_all_the_same(base: Path) -> None:
    """Root may enter any; so it is done by somebody who may not."""
    directory = make_private_directory()
    (directory / "config").mkdir()
    (directory / "config").chmod(0)
    text = f"from localllama._processes.supervisor import remove_tree; remove_tree({str(directory)!r})"
    as_nobody_special = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    subprocess.run([*(as_nobody_special if os.getuid() == 0 else []), sys.executable, "-c", text], check=True)
    assert not directory.exists()


@pytest.mark.parametrize("n_removed", range(4))
def test_what_is_left_of_a_directory_whose_remover_was_killed_is_removed_by_the_next(
    base: Path, n_removed: int
) -> None:
    """Nothing with a key in it waits for long: what the next one finds has its lock, or is empty."""
    text = f"""
import os, signal
from pathlib import Path
from localllama._processes.private_directory import make_private_directory, remove_private_directory
directory = make_private_directory()
for name in ("api-key", "config", "server.sock"):
    (directory / name).touch()
n_removed, remove = 0, os.unlink
def remove_or_die(path):
    global n_removed
    if n_removed == {n_removed}:
        os.kill(os.getpid(), signal.SIGKILL)
    n_removed += 1
    remove(path)
os.unlink = remove_or_die
remove_private_directory(directory)
"""
    killed = subprocess.run([sys.executable, "-c", text], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = base.iterdir()
    assert len(list(left.iterdir())) == 4 - n_removed
    make_private_directory()
    assert not left.exists()


def test_owner_and_supervisor_may_remove_a_directory_at_the_same_time(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_private_directory()
    (directory / "api-key").touch()
    (directory / "config").touch()
    unlink = os.unlink

    def another_is_first(path: str) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", another_is_first)
    remove_private_directory(directory)
    assert not directory.exists()


def test_no_directory_for_temporary_files_is_needed_beside_that_of_the_session(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert make_private_directory().parent == base


def writable_for_all(path: Path) -> None:
    path.chmod(0o777)


def writable_for_the_group(path: Path) -> None:
    path.chmod(0o770)


def another_users(path: Path) -> None:
    os.chown(path, 12345, 12345)


def below_writable_for_all(path: Path) -> None:
    path.parent.chmod(0o777)


@pytest.mark.parametrize("spoil", [writable_for_all, writable_for_the_group, another_users, below_writable_for_all])
def test_unsafe_base_is_passed_over(
    spoil: object, base: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spoil is another_users and os.getuid() != 0:
        pytest.skip("only root can give a directory away")
    unsafe = base / "outer" / "runtime"
    unsafe.mkdir(parents=True)
    spoil(unsafe)  # type: ignore[operator]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(unsafe))
    directory = make_private_directory()
    assert not directory.is_relative_to(unsafe)


def test_sticky_directory_for_all_is_safe(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sticky = base / "tmp"
    sticky.mkdir()
    sticky.chmod(0o1777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sticky))
    assert make_private_directory().parent == sticky


def test_base_that_is_too_long_is_passed_over(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = base / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    directory = make_private_directory()
    assert not directory.is_relative_to(long)
    assert len(os.fsencode(directory / "server.sock")) <= SOCKET_PATH_LIMIT


def test_link_is_followed_before_it_is_checked(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = base / "real"
    real.mkdir(mode=0o700)
    (base / "link").symlink_to(real)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base / "link"))
    assert make_private_directory().parent == real


def test_no_base_at_all_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_directory, "_bases", lambda: ["/nowhere"])
    with pytest.raises(ConfigurationError, match="/nowhere: No such file") as caught:
        make_private_directory()
    assert "TMPDIR" in str(caught.value.hint)


def made_by_another_process(base: Path, ending: str) -> Path:
    program = f"""
import os, signal
from localllama._processes.private_directory import make_private_directory
directory = make_private_directory()
(directory / "server.sock").touch()
print(directory, flush=True)
{ending}
"""
    environment = os.environ | {"XDG_RUNTIME_DIR": str(base)}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return Path(ended.stdout.strip())


def test_directory_of_a_killed_owner_is_swept_by_the_next(base: Path) -> None:
    left = made_by_another_process(base, "os.kill(os.getpid(), signal.SIGKILL)")
    assert (left / "server.sock").exists()
    made = make_private_directory()
    assert not left.exists()
    assert list(base.iterdir()) == [made]


def test_unused_directory_goes_at_exit(base: Path) -> None:
    assert not made_by_another_process(base, "").exists()


def test_directory_in_use_is_not_swept(base: Path) -> None:
    """Not while its maker lives, and not while only a holder of the copied lock does."""
    first = make_private_directory()
    make_private_directory()
    assert first.exists()
    copy = private_directory.duplicate_lock(first)
    private_directory.release_lock(first)
    make_private_directory()
    assert first.exists()
    os.close(copy)
    make_private_directory()
    assert not first.exists()


def test_what_is_not_ours_is_never_swept(base: Path) -> None:
    kept = [
        base / "localllama-tests-0",
        base / "localllama-0123456789-backup",
        base / "localllama-012345678g",
        base / "localllama-0123456789",  # no lock yet: just being made
        base / "localllama-abcdef0123",  # others may enter: not made by us
    ]
    for path in kept:
        path.mkdir(mode=0o700)
        (path / "precious").touch()
    (kept[-1] / "lock").touch()
    kept[-1].chmod(0o755)
    outside = base / "outside"
    outside.mkdir()
    (outside / "lock").touch()
    (base / "localllama-aaaaaaaaaa").symlink_to(outside)
    make_private_directory()
    assert all((path / "precious").exists() for path in kept)
    assert (outside / "lock").exists()


def test_links_in_a_directory_are_removed_and_not_followed(base: Path) -> None:
    precious = base / "precious"
    precious.mkdir()
    (precious / "file").touch()
    directory = make_private_directory()
    (directory / "link").symlink_to(precious)
    (directory / "sub").mkdir()
    (directory / "sub" / "link").symlink_to(precious / "file")
    remove_private_directory(directory)
    assert not directory.exists()
    assert (precious / "file").exists()


def test_forked_child_removes_nothing_of_its_parents(base: Path) -> None:
    directory = make_private_directory()
    child = os.fork()
    if child == 0:
        private_directory._remove_unused()
        os._exit(0)
    os.waitpid(child, 0)
    assert directory.exists()
