"""Every way in which an owner can die: its server goes with it, its supervisor, its socket, its directory."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from deaths.harness import GONE_SECONDS, Trial, repeat
from support.waiting import wait_until

pytestmark = pytest.mark.deaths

N_MOMENTS = 20
MODES = ["standin", "client", "busy"]
SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGKILL", "SIGSEGV"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", ["normal_exit", "exception", "sys_exit", "os_exit", "crash", "abort", "execv"])
def test_owner_ends_by_itself(scenario: str, mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with Trial(scenario, mode, model=micro_model) as owner:
            owner.hear("READY")
            if scenario != "execv":
                owner.wait_owner()
            owner.assert_gone()

    repeat(trial)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SIGNALS)
def test_owner_is_killed(name: str, mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with Trial("hold", mode, model=micro_model) as owner:
            owner.hear("READY")
            owner.assert_serving()
            owner.kill(getattr(signal, name))
            owner.wait_owner()
            owner.assert_gone()

    repeat(trial)


@pytest.mark.parametrize("mode", ["standin", "busy"])
def test_ctrl_c_in_a_terminal(mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        ours, terminal = os.openpty()
        try:
            with Trial("hold", mode, model=micro_model, terminal=os.ttyname(terminal)) as owner:
                owner.hear("READY")
                owner.assert_serving()
                os.write(ours, b"\x03")
                owner.wait_owner()
                owner.assert_gone()
        finally:
            os.close(terminal)
            os.close(ours)

    repeat(trial)


@pytest.mark.parametrize("mode", ["standin", "busy"])
def test_terminal_hangs_up(mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        ours, terminal = os.openpty()
        with Trial("hold", mode, model=micro_model, terminal=os.ttyname(terminal)) as owner:
            owner.hear("READY")
            owner.assert_serving()
            os.close(terminal)
            os.close(ours)
            owner.wait_owner()
            owner.assert_gone()

    repeat(trial)


def test_server_survives_a_ctrl_c_that_the_owner_catches() -> None:
    def trial(_: int) -> None:
        ours, terminal = os.openpty()
        try:
            with Trial("survive_interrupts", terminal=os.ttyname(terminal)) as owner:
                owner.hear("READY")
                before = owner.left()
                os.write(ours, b"\x03")
                owner.hear("INTERRUPTED")
                assert owner.left() == before
                owner.kill()
                owner.assert_gone()
        finally:
            os.close(terminal)
            os.close(ours)

    repeat(trial)


@pytest.mark.parametrize(
    "scenario",
    [
        "sigchld_ignored",
        "signals_blocked",
        "signals_ignored",
        "standard_streams_closed",
        "reaps_all_children",
        "without_pidfd",
        "with_shell_supervisor",
        "with_kqueue_supervisor",
    ],
)
def test_owner_with_habits_is_killed(scenario: str) -> None:
    def trial(_: int) -> None:
        with Trial(scenario) as owner:
            owner.hear("READY")
            owner.assert_serving()
            assert owner.is_supervised_by_python() == (scenario != "with_shell_supervisor")
            owner.kill()
            owner.wait_owner()
            owner.assert_gone()

    repeat(trial)


@pytest.mark.parametrize("mode", ["standin", "client"])
def test_owner_is_killed_during_the_start(mode: str, micro_model: Path) -> None:
    span_seconds = 0.06 if mode == "standin" else 0.8

    def trial(number: int) -> None:
        with Trial("starting", mode, model=micro_model) as owner:
            owner.hear("STARTING")
            time.sleep(span_seconds * number / N_MOMENTS)  # waits for nothing: the moment is what varies
            owner.kill()
            owner.wait_owner()
            owner.assert_gone_but_for_a_directory()

    repeat(trial, times=N_MOMENTS)


@pytest.mark.parametrize("mode", ["standin", "client"])
def test_keyboard_interrupt_during_the_start_leaves_nothing(mode: str, micro_model: Path) -> None:
    """The owner lives on, so nothing but the guard in `launch` can clean up."""
    span_seconds = 0.15 if mode == "standin" else 0.8

    def trial(number: int) -> None:
        with Trial("interrupted_start", mode, model=micro_model) as owner:
            owner.hear("STARTING")
            time.sleep(span_seconds * number / N_MOMENTS)
            owner.interrupt_until("INTERRUPTED")
            wait_until(lambda: not owner.left(), seconds=GONE_SECONDS, what="the end of server and supervisor")
            assert owner.owner.is_alive()
            owner.kill(signal.SIGTERM)
            owner.wait_owner()
            owner.assert_gone()

    repeat(trial, times=N_MOMENTS)
