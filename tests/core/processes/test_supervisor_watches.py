"""How the supervisor of each platform watches, function by function; that of macOS on an imitation of kqueue."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localllama._processes import supervisor_linux, supervisor_macos
from support.waiting import wait_until

IMITATION = Path(__file__).parents[2] / "deaths/owners/kqueue_imitation.py"


@pytest.fixture(params=["linux", "macos"])
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Watches this process's parent, as the supervisor does."""
    if request.param == "macos":
        imitated = types.ModuleType("select")
        imitated.__dict__.update(vars(select))
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "select", imitated)
            exec(compile(IMITATION.read_text(), str(IMITATION), "exec"), {"__name__": "imitation"})
        monkeypatch.setattr(supervisor_macos, "select", imitated)
        return supervisor_macos.OwnerWatch(os.getppid(), -1)
    # Without prctl: this process must not become the guardian of strays, nor be woken by signals.
    monkeypatch.setattr(supervisor_linux, "load_prctl", lambda: None)
    return supervisor_linux.OwnerWatch(os.getppid(), os.pidfd_open(os.getppid()))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_what_can_be_read_is_told_until_it_is_unwatched(watch: Any, pipe: tuple[int, int]) -> None:
    readable, writable = pipe
    watch.watch(readable)
    os.write(writable, b"x")
    assert watch.wait() == {readable}
    assert watch.wait() == {readable}
    other = os.pipe()
    try:
        watch.watch(other[0])
        watch.unwatch(readable)
        os.write(other[1], b"x")
        assert watch.wait() == {other[0]}
    finally:
        os.close(other[0])
        os.close(other[1])


def test_a_child_has_ended_when_it_has(watch: Any, child: subprocess.Popen[bytes]) -> None:
    assert not watch.has_ended(child.pid)
    child.kill()
    wait_until(lambda: watch.has_ended(child.pid), what="the child's end to be seen")
    assert watch.has_ended(child.pid)
    assert child.wait() == -9  # it was left unreaped


def test_an_owner_that_lives_is_not_gone(watch: Any) -> None:
    assert not watch.is_owner_gone()


def test_an_owner_that_is_another_is_gone(watch: Any, child: subprocess.Popen[bytes]) -> None:
    other = type(watch)(child.pid, -1)
    assert other.is_owner_gone()  # it is not our parent
    child.kill()
    child.wait()
    assert type(watch)(child.pid, -1).is_owner_gone()


def test_without_prctl_nothing_is_tied_and_no_stray_is_known(watch: Any) -> None:
    watch.tie_to_parent()
    assert watch.strays() == []


@pytest.mark.skipif(sys.platform != "linux", reason="on Linux only: prctl")
def test_strays_are_the_children(watch: Any, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(supervisor_linux, "load_prctl", lambda: lambda *arguments: calls.append(arguments))
    linux = supervisor_linux.OwnerWatch(os.getppid(), -1)
    assert child.pid in linux.strays()
    linux.tie_to_parent()
    assert calls == [(1, 18, 0, 0, 0), (36, 1, 0, 0, 0), (1, 9, 0, 0, 0)]
