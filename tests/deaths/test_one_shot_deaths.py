"""A program that answers once is gone with whoever it works for: the owner, the supervisor, the stand-in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deaths.harness import repeat
from support.one_shot_program import make_one_shot_program
from support.processes import ProcessIdentity
from support.waiting import wait_until

pytestmark = pytest.mark.deaths

OWNER = """
import sys
from localllama import ChatRequest, LocalLlamaClient, Message, ServerSettings

client = LocalLlamaClient(ServerSettings(model=sys.argv[1], runtime=sys.argv[2], n_ctx=512))
stream = client.stream_chat(ChatRequest((Message("user", "Hi"),)))
print(next(stream).text, client.server_pid, flush=True)
sys.stdin.read()
"""
# A wrapper script: the program that works is a child of the one that was started.
BODY = "out.write(b'a'); out.flush(); os.system('sleep 1000')"


@pytest.mark.parametrize("victim", ["owner", "supervisor", "stand-in", "owner and supervisor", "nobody"])
def test_nothing_of_it_is_left(victim: str, micro_model: Path, tmp_path: Path) -> None:
    program = make_one_shot_program(tmp_path, BODY)

    def trial(_: int) -> None:
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(micro_model), str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert owner.stdin is not None
        assert owner.stdout is not None
        with owner, owner.stdin:
            try:
                text, pid = owner.stdout.readline().decode().split()
                assert text == "a"
                stand_in = psutil.Process(int(pid))
                supervisor = stand_in.parent()
                assert supervisor is not None
                wait_until(lambda: len(stand_in.children(recursive=True)) >= 2, what="the program and what it started")
                everyone = [ProcessIdentity.of(p.pid) for p in (stand_in, *stand_in.children(recursive=True))]
                if "supervisor" in victim:
                    os.kill(supervisor.pid, signal.SIGKILL)
                if "stand-in" in victim:
                    os.kill(stand_in.pid, signal.SIGKILL)
                if "owner" in victim:
                    owner.kill()
                if victim == "nobody":
                    owner.stdin.close()
                wait_until(lambda: not [one for one in everyone if one.is_alive()], seconds=5, what="the end of all")
            finally:
                owner.kill()
                for one in everyone:
                    if one.is_alive():
                        os.kill(one.pid, signal.SIGKILL)

    repeat(trial)
