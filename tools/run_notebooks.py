"""Runs the notebooks from top to bottom and keeps what they show, without what is only this machine's or this run's.

    python tools/run_notebooks.py                   all of them, in place
    python tools/run_notebooks.py 1_quickstart      one of them

Each runs in an empty folder with a kernel of its own, as the tests run it.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
CELL_SECONDS = 600

_PLACES = (str(ROOT), sys.prefix, tempfile.gettempdir(), str(Path.home()))
_SCRUBBED = (
    *((re.compile(rf"{re.escape(place)}(/[^\s'\"<>,:;]*)?"), "…") for place in _PLACES),
    (re.compile(r"(?<=process )\d+|(?<=pid )\d+"), "12345"),
    (re.compile(r"0x[0-9a-f]{6,}"), "0x…"),
    (re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}\S*"), "2026-01-01 00:00:00"),
)
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


class _Client(NotebookClient):
    """Reaches its kernel over sockets in a folder: nobody else can take them, or reach the kernel.

    Attributes:
        sockets: What their paths begin with.
    """

    sockets = ""

    def create_kernel_manager(self) -> Any:
        """The kernel's owner, as nbclient makes it, but for the sockets."""
        kernels = super().create_kernel_manager()
        kernels.transport, kernels.ip = "ipc", self.sockets
        return kernels


def main(arguments: list[str] | None = None) -> int:
    """Run the notebooks that are named, or all; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="names of notebooks without .ipynb (default: all)")
    names = parser.parse_args(arguments).names
    paths = [FOLDER / f"{name}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb"))
    for path in paths:
        began = time.monotonic()
        notebook = executed(path)
        write(scrubbed(notebook), path)
        print(f"{path.name}: {time.monotonic() - began:.0f} s")
    return 0


def executed(path: Path) -> Any:
    """The notebook with the outputs of a run.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed; the message shows it, with its traceback.
    """
    notebook = _nbformat().read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="ll-") as directory:
        folder = Path(directory, "work")
        folder.mkdir()
        resources = {"metadata": {"path": str(folder)}}
        client = _Client(notebook, timeout=CELL_SECONDS, record_timing=False, resources=resources)
        client.sockets = f"{directory}/k"
        client.execute()
    return notebook


def scrubbed(notebook: Any) -> Any:
    """The notebook as another run on another machine would have it, but for words and numbers of the model."""
    notebook.metadata = type(notebook.metadata)({"kernelspec": _KERNEL, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs = [_scrubbed_output(output) for output in _joined(cell.outputs) if not _is_empty(output)]
    return notebook


def write(notebook: Any, path: Path) -> None:
    """Put the notebook in its place."""
    nbformat = _nbformat()
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook, version=4) + "\n", encoding="utf-8")


def _nbformat() -> Any:
    import nbformat

    return nbformat  # as Any: its functions have no types


def _joined(outputs: list[Any]) -> list[Any]:
    """Text that came in pieces, as one output for each run of a stream."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and output.output_type == "stream" and output.get("name") == last.get("name"):
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _is_empty(output: Any) -> bool:
    # The bar of a start, which is gone at the end.
    return output.output_type == "display_data" and not any(output.data.values())


def _scrubbed_output(output: Any) -> Any:
    if "text" in output:
        output.text = _without_traces(output.text)
    for kind, value in output.get("data", {}).items():
        if isinstance(value, str) and not kind.startswith("image/"):
            output.data[kind] = _without_traces(value)
    if output.get("transient"):
        del output["transient"]
    return output


def _without_traces(text: str) -> str:
    for pattern, replacement in _SCRUBBED:
        text = pattern.sub(replacement, text)
    return text


if __name__ == "__main__":
    sys.exit(main())
