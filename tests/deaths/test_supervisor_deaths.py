"""Server and supervisor are killed one by one, stopped, and killed together with the owner."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from deaths.harness import GONE_SECONDS, Trial, repeat
from support.waiting import wait_until

pytestmark = pytest.mark.deaths

MODES = ["standin", "busy"]


def test_supervisor_is_killed_and_the_owner_clears_up() -> None:
    def trial(_: int) -> None:
        with Trial("notices_the_servers_death") as owner:
            owner.hear("READY")
            owner.assert_serving()
            os.kill(owner.supervisor(), signal.SIGKILL)
            assert owner.hear("EXIT") == "EXIT None None True"
            owner.assert_gone()

    repeat(trial)


def test_server_is_killed_and_the_owner_is_told() -> None:
    def trial(_: int) -> None:
        with Trial("notices_the_servers_death") as owner:
            owner.hear("READY")
            os.kill(owner.server(), signal.SIGSEGV)
            assert owner.hear("EXIT") == f"EXIT None {signal.SIGSEGV.value} False"
            owner.assert_gone()

    repeat(trial)


@pytest.mark.parametrize("mode", ["client", "busy"])
def test_supervisor_is_killed_then_the_owner(mode: str, micro_model: Path) -> None:
    """The server dies with its supervisor, even if the owner never looks."""

    def trial(_: int) -> None:
        with Trial("hold", mode, model=micro_model) as owner:
            owner.hear("READY")
            server = owner.server()
            os.kill(owner.supervisor(), signal.SIGKILL)
            wait_until(lambda: server not in owner.left(), seconds=GONE_SECONDS, what="the end of the server")
            owner.kill()
            owner.wait_owner()
            owner.assert_gone_but_for_a_directory()

    repeat(trial)


def test_supervisor_is_killed_and_the_server_is_a_script_around_another_program() -> None:
    """All that the server has started dies too, although the kernel knows the script alone as our child."""

    def trial(_: int) -> None:
        with Trial("hold") as owner:
            owner.hear("READY")
            owner.assert_serving()
            assert len(owner.left()) == 3, f"supervisor, script and program: {owner.left()}"
            os.kill(owner.supervisor(), signal.SIGKILL)
            wait_until(lambda: not owner.left(), seconds=GONE_SECONDS, what="the end of all that the server started")

    repeat(trial)


@pytest.mark.parametrize("mode", ["client", "busy"])
def test_supervisor_and_owner_are_killed_together(mode: str, micro_model: Path) -> None:
    """Nobody is left who could remove the directory: the next start does."""

    def trial(_: int) -> None:
        with Trial("hold", mode, model=micro_model) as owner:
            owner.hear("READY")
            os.kill(owner.supervisor(), signal.SIGKILL)
            owner.kill()
            owner.wait_owner()
            owner.assert_gone_but_for_a_directory()
            assert not owner.directories()

    repeat(trial)


@pytest.mark.parametrize("scenario", ["hold", "from_thread_that_ends_later", "from_asyncio_executor", "without_pidfd"])
@pytest.mark.parametrize("mode", MODES)
def test_supervisor_is_stopped_then_the_owner_is_killed(scenario: str, mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with Trial(scenario, mode, model=micro_model) as owner:
            owner.hear("READY")
            owner.assert_serving()
            os.kill(owner.supervisor(), signal.SIGSTOP)
            owner.kill()
            owner.wait_owner()
            owner.assert_gone()

    repeat(trial)


@pytest.mark.parametrize("mode", ["standin", "client"])
def test_supervisor_is_asked_to_end(mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with Trial("hold", mode, model=micro_model) as owner:
            owner.hear("READY")
            os.kill(owner.supervisor(), signal.SIGTERM)
            owner.assert_gone()

    repeat(trial)
