"""Looking at real processes: by pid *and* start time, so that a reused pid is never mistaken for the old process."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, now and for ever."""

    pid: int
    create_time: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        return cls(pid, psutil.Process(pid).create_time())

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.create_time and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def processes_with_token(variable: str, token: str) -> list[int]:
    """Pids of live processes whose environment holds `variable=token` exactly; used to prove that nothing is left."""
    found = []
    wanted = f"{variable}={token}".encode()
    for process in psutil.process_iter(["pid", "status"]):
        if process.pid == os.getpid() or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(process.pid)
        except OSError:
            continue
    return found
