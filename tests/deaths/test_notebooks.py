"""A notebook's kernel that is interrupted, restarted, shut down, killed: by a real jupyter_client and ipykernel."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deaths.harness import GONE_SECONDS, TOKEN, repeat
from support.processes import processes_with_token
from support.waiting import wait_until

jupyter_client = pytest.importorskip("jupyter_client")
pytestmark = [pytest.mark.deaths, pytest.mark.timeout(600)]

OWNERS = Path(__file__).with_name("owners")


class Kernel:
    """A kernel in which a cell has started a server."""

    def __init__(self, mode: str, model: Path) -> None:
        self.token = secrets.token_hex(8)
        self.base = Path(tempfile.mkdtemp(prefix="lld-"))
        environment = {k: v for k, v in os.environ.items() if k not in (TOKEN, "XDG_RUNTIME_DIR")}
        environment |= {"DEATHS_TOKEN": self.token, "TMPDIR": str(self.base), "DEATHS_MODEL": str(model)}
        # Sockets in the file system: a TCP port that was free when it was chosen may be taken when the kernel binds it, by
        # one of the other kernels that start at the same moment.
        self.kernels = jupyter_client.KernelManager(kernel_name="python3", transport="ipc", ip=str(self.base / "k"))
        self.kernels.start_kernel(env=environment, cwd=str(self.base))
        self.client = self.kernels.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.run(f"import sys; sys.path.insert(0, {str(OWNERS)!r}); import cells; cells.start_once({mode!r})")
        assert self.left(), "the cell has started nothing"

    def run(self, code: str) -> None:
        reply = self.client.execute_interactive(code, timeout=60, output_hook=lambda _: None)
        assert reply["content"]["status"] == "ok", reply["content"].get("traceback")

    def pid(self) -> int:
        return int(self.kernels.provisioner.process.pid)

    def left(self) -> list[int]:
        return processes_with_token(TOKEN, self.token)

    def assert_gone(self) -> None:
        wait_until(lambda: not self.left(), seconds=GONE_SECONDS, what="the end of server and supervisor")
        wait_until(
            lambda: not list(self.base.glob("localllama-*")), seconds=GONE_SECONDS, what="the end of the directory"
        )

    def end(self) -> None:
        self.client.stop_channels()
        self.kernels.shutdown_kernel(now=True)
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.base, ignore_errors=True)


@contextmanager
def kernel(mode: str, model: Path) -> Iterator[Kernel]:
    running = Kernel(mode, model)
    try:
        yield running
    finally:
        running.end()


@pytest.mark.parametrize("mode", ["standin", "busy"])
def test_kernel_is_interrupted_and_the_server_survives(mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with kernel(mode, micro_model) as notebook:
            before = set(notebook.left())
            # Idle, then in the middle of a cell.
            notebook.kernels.interrupt_kernel()
            notebook.run("import time")
            message = notebook.client.execute("print('BUSY', flush=True); time.sleep(60)")
            wait_until(lambda: is_printed(notebook, message), seconds=20, what="the cell's first output")
            notebook.kernels.interrupt_kernel()
            assert notebook.client.get_shell_msg(timeout=20)["content"]["status"] == "error"
            assert set(notebook.left()) == before

    repeat(trial)


def is_printed(notebook: Kernel, message: str) -> bool:
    seen = notebook.client.get_iopub_msg(timeout=20)
    return seen["parent_header"].get("msg_id") == message and seen["msg_type"] == "stream"


@pytest.mark.parametrize("mode", ["standin", "busy"])
@pytest.mark.parametrize("death", ["restart", "restart now", "shutdown", "shutdown now", "SIGKILL", "exit", "os._exit"])
def test_kernel_ends(death: str, mode: str, micro_model: Path) -> None:
    def trial(_: int) -> None:
        with kernel(mode, micro_model) as notebook:
            if death.startswith("restart"):
                notebook.kernels.restart_kernel(now=death.endswith("now"))
            elif death.startswith("shutdown"):
                notebook.kernels.shutdown_kernel(now=death.endswith("now"))
            elif death == "SIGKILL":
                os.kill(notebook.pid(), signal.SIGKILL)
            else:
                notebook.client.execute("exit()" if death == "exit" else "import os; os._exit(1)")
                wait_until(lambda: not notebook.kernels.is_alive(), seconds=20, what="the end of the kernel")
            notebook.assert_gone()

    repeat(trial)
