"""The log of a server: memory that its supervisor writes and its owner reads.

No file: a full disk cannot stop the server, and nothing that it prints, parts of prompts perhaps, touches a disk. No
pipe to the owner: nobody has to drain it, and what was printed can be read after the death of everyone else.
"""

from __future__ import annotations

import mmap
import os
import secrets
import sys

from .supervisor import LOG_HEADER_BYTES


class LogMemory:
    """The owner's view of the log; layout and writer: `supervisor.LogRing`.

    Args:
        n_bytes: How much of it is kept; memory is taken only for what is written.

    Attributes:
        descriptor: For the supervisor to map; -1 if this system has no shared memory, or a limit on the size of files
            (RLIMIT_FSIZE) counts it as one, and then there is no log.
    """

    def __init__(self, n_bytes: int) -> None:
        self.descriptor = _anonymous_memory()
        self._n_bytes = n_bytes
        self._memory: mmap.mmap | None = None
        if self.descriptor < 0:
            return
        try:
            os.ftruncate(self.descriptor, LOG_HEADER_BYTES + n_bytes)
            self._memory = _view(self.descriptor, LOG_HEADER_BYTES + n_bytes)
        except OSError:
            os.close(self.descriptor)
            self.descriptor = -1

    def text(self) -> str:
        """What is in it now, without the line that was cut in two by the limit."""
        if self._memory is None:
            return ""
        while True:
            written = self._count()
            # No more than was written: the rest would become memory by being read.
            ring = self._memory[LOG_HEADER_BYTES : LOG_HEADER_BYTES + written]
            if self._count() == written:  # otherwise it was written to while we copied
                break
        if written <= self._n_bytes:
            return ring[:written].decode(errors="replace")
        start = written % self._n_bytes
        _, _, whole_lines = (ring[start:] + ring[:start]).partition(b"\n")
        return whole_lines.decode(errors="replace")

    def _count(self) -> int:
        assert self._memory is not None
        return int.from_bytes(self._memory[:8], "little")


def _view(descriptor: int, n_bytes: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        # Without a copy of the descriptor: if the host closed it, its number would be closed again when it is another's.
        return mmap.mmap(descriptor, n_bytes, access=mmap.ACCESS_READ, trackfd=False)
    else:  # noqa: RET505 - the type checker knows versions by branches
        return mmap.mmap(descriptor, n_bytes, access=mmap.ACCESS_READ)


def _anonymous_memory() -> int:
    """A descriptor of memory without a name, close-on-exec; -1 if there is no such thing."""
    try:
        return os.memfd_create("localllama-log")
    except (AttributeError, OSError):
        return _nameless_shared_memory()


def _nameless_shared_memory() -> int:
    try:
        import _posixshmem  # what multiprocessing.shared_memory uses; that class would start a resource tracker

        name = f"/localllama-{secrets.token_hex(8)}"
        descriptor: int = _posixshmem.shm_open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o600)
        _posixshmem.shm_unlink(name)
    except (ImportError, OSError):
        return -1
    return descriptor
