"""A worker of pytest-xdist that owns a server and dies in the middle of a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deaths.harness import Trial, repeat

pytestmark = pytest.mark.deaths

OWNERS = Path(__file__).with_name("owners")
SUITE = """
import ctypes, os, signal, sys
sys.path.insert(0, {owners!r})
from starting import start, token_into_environment

kept = []

def test_it():
    token_into_environment()
    kept.append(start({mode!r}))
    os.write({out}, b"READY\\n")
    {death}
"""
DEATHS = {
    "ends": "pass",
    "os._exit": "os._exit(1)",
    "crashes": "ctypes.string_at(0)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("mode", ["standin", "client"])
@pytest.mark.parametrize("death", list(DEATHS))
def test_worker_dies(death: str, mode: str, micro_model: Path, tmp_path: Path) -> None:
    def trial(number: int) -> None:
        suite = tmp_path / f"test_suite_{number}.py"
        marker = tmp_path / f"started_{number}"
        suite.write_text(
            SUITE.format(
                owners=str(OWNERS),
                mode=mode,
                death=DEATHS[death],
                out=f"os.open({str(marker)!r}, os.O_WRONLY | os.O_CREAT)",
            )
        )
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n1",
            "-p",
            "xdist",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
        ]
        # Without the other plugins that are installed a start takes a third of the time.
        environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        with Trial("", model=micro_model, command=[*command, str(suite)], environment=environment) as session:
            session.wait_owner(60)
            assert marker.exists(), session.errors()
            session.assert_gone()

    repeat(trial)
