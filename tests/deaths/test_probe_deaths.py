"""The owner dies while a program that it asks for its flags hangs, or serves in place of answering."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from deaths.harness import OWNER, Trial, repeat

pytestmark = pytest.mark.deaths


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"])
def test_owner_is_killed_while_it_asks(name: str, tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    # Its own child, one in another session, and a SIGTERM that it does not hear.
    program.write_text("#!/bin/sh\ntrap '' TERM HUP INT\nsetsid sleep 60 &\nsleep 60 &\necho > $HEARD/asked\nwait\n")
    program.chmod(0o755)

    def trial(number: int) -> None:
        heard = tmp_path / str(number)
        heard.mkdir()
        command = [sys.executable, str(OWNER.with_name("asking.py")), str(program)]
        with Trial("", command=command, environment={"HEARD": str(heard)}) as owner:
            owner.wait_for_file(heard / "asked")
            owner.kill(getattr(signal, name))
            owner.wait_owner()
            owner.assert_gone()

    repeat(trial)
