"""Other processes that hold copies of the owner's descriptors, and outlive it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deaths.harness import Trial, repeat
from support.processes import ProcessIdentity

pytestmark = pytest.mark.deaths


@pytest.mark.parametrize("mode", ["standin", "client"])
@pytest.mark.parametrize(
    "scenario",
    [
        "with_forked_child",
        "with_c_forked_child",
        "with_inheriting_child",
        "without_pidfd_and_leaked",
        "with_fork_worker",
        "with_spawn_worker",
        "with_forkserver_worker",
    ],
)
def test_owner_is_killed_while_a_child_of_it_lives(scenario: str, mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with Trial(scenario, mode, model=micro_model) as owner:
            owner.hear("READY")
            if scenario != "with_forked_child":
                owner.hear("FORKED")
            owner.assert_serving()
            owner.kill()
            owner.wait_owner()
            owner.assert_gone()

    repeat(trial)


@pytest.mark.parametrize("mode", ["standin", "client"])
def test_forked_child_exits_with_all_its_finalizers(mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with Trial("forked_child_exits_normally", mode, model=micro_model) as owner:
            owner.hear("READY")
            server = ProcessIdentity.of(owner.server())
            owner.hear("CHILD-EXITED")
            assert server.is_alive()
            owner.kill()
            owner.wait_owner()
            owner.assert_gone()

    repeat(trial)


@pytest.mark.parametrize("mode", ["standin", "client"])
def test_stop_while_a_child_holds_the_lifeline(mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with Trial("stop_while_c_forked_child_lives", mode, model=micro_model) as owner:
            owner.hear("READY")
            seconds = float(owner.hear("STOPPED").split()[1])
            # Later, `stop` would have reached for its second means.
            assert seconds < 1.2
            owner.assert_gone(0.5)

    repeat(trial)
