"""Where a server is started from: threads that end, forked children, workers of multiprocessing, executors."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from deaths.harness import Trial, repeat
from support.processes import ProcessIdentity

pytestmark = pytest.mark.deaths

METHODS = ["fork", "spawn", "forkserver"]


@pytest.mark.parametrize("mode", ["standin", "client"])
@pytest.mark.parametrize(
    "scenario",
    ["from_thread_that_ends", "from_thread_that_ends_later", "from_thread_pool", "from_asyncio_executor"],
)
def test_server_outlives_the_thread_that_started_it_but_not_the_process(
    scenario: str, mode: str, micro_model: Path
) -> None:
    def trial(_: int) -> None:
        with Trial(scenario, mode, model=micro_model) as owner:
            owner.hear("READY")
            owner.assert_serving()
            owner.kill()
            owner.wait_owner()
            owner.assert_gone()

    repeat(trial)


@pytest.mark.parametrize("mode", ["standin", "client"])
def test_daemon_thread_owns_it_at_finalization(mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with Trial("from_daemon_thread_at_finalization", mode, model=micro_model) as owner:
            owner.hear("READY")
            owner.wait_owner()
            owner.assert_gone()

    repeat(trial)


def owner_pid(trial: Trial) -> int:
    return int(trial.hear("OWNER").split()[1])


@pytest.mark.parametrize("mode", ["standin", "busy"])
@pytest.mark.parametrize("scenario", ["from_forked_child", *(f"from_{method}_worker" for method in METHODS)])
def test_child_of_a_living_parent_owns_it_and_is_killed(scenario: str, mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with Trial(scenario, mode, model=micro_model) as parent:
            parent.hear("READY")
            parent.assert_serving()
            os.kill(owner_pid(parent), signal.SIGKILL)
            parent.hear("OWNER-DEAD")
            assert parent.owner.is_alive()
            # The worker itself carries the token as well; it is dead by now.
            parent.assert_gone()

    repeat(trial)


@pytest.mark.parametrize("method", METHODS)
def test_worker_owns_it_and_ends_normally(method: str) -> None:
    def trial(_: int) -> None:
        with Trial(f"from_{method}_worker_that_ends") as parent:
            parent.hear("READY")
            parent.hear("OWNER-DEAD")
            parent.assert_gone()

    repeat(trial)


@pytest.mark.parametrize("mode", ["standin", "client"])
def test_parent_and_forked_child_own_one_each(mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with Trial("from_forked_child_after_a_start", mode, model=micro_model) as parent:
            parent.hear("READY")
            parent.hear("CHILD-READY")
            parents_own = ProcessIdentity.of(parent.own_server())
            assert len(parent.servers()) == 2
            os.kill(owner_pid(parent), signal.SIGKILL)
            parent.hear("OWNER-DEAD")
            parent.wait_until_servers_are([parents_own.pid])
            assert parents_own.is_alive()
            parent.kill()
            parent.wait_owner()
            parent.assert_gone()

    repeat(trial)
