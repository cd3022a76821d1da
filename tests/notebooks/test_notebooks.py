"""Every notebook runs from top to bottom, in an empty folder, on the real small model."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "tools/run_notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.smollm2
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path: Path, runner: ModuleType, smollm2_model: Path) -> None:
    try:
        notebook = runner.executed(path)
    except CellExecutionError as error:
        pytest.fail(f"{path.name}: {error}")
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code" and cell.source)


def test_a_cell_that_fails_is_shown(tmp_path: Path, runner: ModuleType) -> None:
    path = tmp_path / "broken.ipynb"
    cells = [nbformat.v4.new_code_cell("answer = 41"), nbformat.v4.new_code_cell("assert answer == 42, 'not quite'")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(CellExecutionError, match=r"(?s)assert answer == 42.*not quite"):
        runner.executed(path)


def test_what_is_only_this_run_s_is_not_kept(tmp_path: Path, runner: ModuleType) -> None:
    path = tmp_path / "traces.ipynb"
    source = f"import os; print('pid', os.getpid()); print({str(ROOT)!r} + '/x.py'); print(os.getcwd(), object())"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    runner.write(runner.scrubbed(runner.executed(path)), path)
    (cell,) = nbformat.read(path, as_version=4).cells
    assert cell.outputs[0].text == "pid 12345\n…\n… <object object at 0x…>\n"
    assert not cell.metadata
    assert not re.search(re.escape(str(Path.home())), path.read_text().replace(str(ROOT), ""))
