"""A notebook without a page: a real kernel that runs cells, and what a page would show of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupyter_client


@dataclass
class Outputs:
    """What one cell has put out.

    Attributes:
        reply: How it ended: `status`, and `ename` of an error.
        streams: Text by stream, "stdout" and "stderr".
        displays: Every display and every change of one, in order.
        result: The value of the last line, by MIME type.
    """

    reply: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=lambda: {"stdout": "", "stderr": ""})
    displays: list[dict[str, str]] = field(default_factory=list)
    result: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What was printed."""
        return self.streams["stdout"]

    def take(self, message: dict[str, Any]) -> None:
        """Add what one message of the kernel says."""
        content = message["content"]
        if message["msg_type"] == "stream":
            self.streams[content["name"]] += content["text"]
        elif message["msg_type"] in ("display_data", "update_display_data"):
            self.displays.append(content["data"])
        elif message["msg_type"] == "execute_result":
            self.result = content["data"]


class Notebook:
    """A kernel that lives in `directory`.

    Args:
        directory: Where its cells run.
    """

    def __init__(self, directory: Path) -> None:
        self._sockets = Path(tempfile.mkdtemp(prefix="ll-"))
        # Sockets in the file system: a TCP port that was free when it was chosen may be taken when the kernel binds it.
        self.kernels = jupyter_client.KernelManager(kernel_name="python3", transport="ipc", ip=str(self._sockets / "k"))
        self.kernels.start_kernel(cwd=str(directory))
        self.client = self.kernels.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str, at_text: Callable[[], None] = lambda: None) -> Outputs:
        """Run a cell; `at_text` is called for every piece of text that it prints."""
        outputs = Outputs()

        def note(message: dict[str, Any]) -> None:
            outputs.take(message)
            if message["msg_type"] == "stream":
                at_text()

        outputs.reply = self.client.execute_interactive(code, timeout=120, output_hook=note)["content"]
        return outputs

    def run_well(self, code: str) -> Outputs:
        """Run a cell that must not fail."""
        outputs = self.run(code)
        assert outputs.reply["status"] == "ok", outputs.reply
        return outputs

    def run_interrupted(self, code: str) -> Outputs:
        """Run a cell, and interrupt it as the button does once it has printed something."""
        is_interrupted = False

        def interrupt() -> None:
            nonlocal is_interrupted
            if not is_interrupted:
                is_interrupted = True
                self.kernels.interrupt_kernel()

        return self.run(code, interrupt)

    def end(self) -> None:
        """Kill the kernel."""
        self.client.stop_channels()
        self.kernels.shutdown_kernel(now=True)
        shutil.rmtree(self._sockets, ignore_errors=True)
