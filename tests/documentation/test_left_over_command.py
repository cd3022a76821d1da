"""The command with which users look for servers that are left over shows a server, wherever it is written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from localllama import LocalLlamaClient, ServerSettings
from support.documents import ROOT, blocks

PLACES = ["README.md", "docs/lifecycle.md", "docs/troubleshooting.md", ".github/ISSUE_TEMPLATE/bug.yml"]


def _command() -> str:
    (command,) = [
        block.text.strip() for block in blocks(ROOT / "docs" / "lifecycle.md") if block.text.startswith("ps ")
    ]
    return command


@pytest.mark.parametrize("place", PLACES)
def test_it_is_the_same_everywhere(place: str) -> None:
    text = (ROOT / place).read_text(encoding="utf-8").replace("\\|", "|").replace("&#124;", "|")
    assert re.findall(r"ps -eww [^`<\n]*", text) == [_command()]


@pytest.mark.filterwarnings("ignore:These answers come from the mock")
@pytest.mark.parametrize("runtime", ["embedded", "mock"])
def test_it_shows_the_server_and_its_owner(runtime: str, micro_model: Path) -> None:
    settings = ServerSettings(model=str(micro_model), runtime=runtime, allow_mock=True)
    with LocalLlamaClient(settings) as client:
        client.start()
        shown = subprocess.run(_command(), shell=True, capture_output=True, text=True, check=True).stdout
        assert re.search(rf"(?m)^ *{client.server_pid} ", shown)
