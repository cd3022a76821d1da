"""The stop button: the generation ends, the server stays, the next cell is answered; and a restart leaves nothing.

SmolLM2 and not the micro model: left alone, its answer would fill the window for minutes, so a free slot proves that it was
stopped.
"""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from support.notebook import Notebook
from support.processes import ProcessIdentity
from support.waiting import wait_until

ENDLESS = "max_tokens=-1 ignore_eos=true temperature=0 seed=1"

LANGCHAIN = """
from langchain_localllama import ChatLocalLlama
llm = ChatLocalLlama(model={model!r}, max_tokens=-1, ignore_eos=True, temperature=0)
for chunk in llm.stream("Tell me a long story."):
    print(chunk.text, end="", flush=True)
"""

LLAMAINDEX = """
from llamaindex_localllama import LocalLlama
llm = LocalLlama(model={model!r}, max_tokens=-1, ignore_eos=True, temperature=0)
for part in llm.stream_complete("Tell me a long story."):
    print(part.delta, end="", flush=True)
"""

AWAITED = """
from langchain_localllama import ChatLocalLlama
llm = ChatLocalLlama(model={model!r}, max_tokens=-1, ignore_eos=True, temperature=0)
async for chunk in llm.astream("Tell me a long story."):
    print(chunk.text, end="", flush=True)
"""

MAGIC = f"%%llm {{model}} {ENDLESS}\nTell me a long story."

# A client with the same settings shares the server that the cell has started.
LOOK = """
from localllama import LocalLlamaClient, ServerSettings
look = LocalLlamaClient(ServerSettings(model={model!r}))
"""


@pytest.mark.parametrize(
    "cell", [MAGIC, LANGCHAIN, LLAMAINDEX, AWAITED], ids=["magic", "langchain", "llamaindex", "async"]
)
def test_the_stop_button_ends_the_generation_and_not_the_server(
    notebook: Notebook, smollm2_model: Path, cell: str
) -> None:
    model = str(smollm2_model)
    notebook.run_well(LOOK.format(model=model))
    assert notebook.run_interrupted(cell.format(model=model)).reply.get("ename") in (
        "KeyboardInterrupt",
        "CancelledError",
    )
    pid = notebook.run_well("look.server_pid").result["text/plain"]
    assert pid != "None"
    busy = "look._ask('GET', '/slots', None)[0]['is_processing']"
    wait_until(
        lambda: notebook.run_well(busy).result["text/plain"] == "False", seconds=20, what="the slot to be free again"
    )
    notebook.run_well(f"%%llm {model} max_tokens=4\nHello")
    assert notebook.run_well("look.server_pid").result["text/plain"] == pid


def test_a_restarted_kernel_leaves_no_process(notebook: Notebook, micro_model: Path) -> None:
    notebook.run_well(f"%%llm {micro_model} max_tokens=8\nHello")
    kernel = psutil.Process(notebook.kernels.provisioner.process.pid)
    left = [ProcessIdentity.of(child.pid) for child in kernel.children(recursive=True)]
    assert len(left) >= 2, "a supervisor and a server"
    notebook.kernels.restart_kernel(now=True)
    wait_until(lambda: not any(process.is_alive() for process in left), seconds=10, what="the end of all children")
