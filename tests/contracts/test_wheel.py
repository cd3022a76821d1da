"""The wheel holds exactly the three packages; the source archive can build it again."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "localllama": ROOT / "shared/localllama",
    "langchain_localllama": ROOT / "langchain_localllama",
    "llamaindex_localllama": ROOT / "llamaindex_localllama",
}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The built wheel and source archive; LOCALLLAMA_TEST_DIST names a folder that has them already."""
    built = os.environ.get("LOCALLLAMA_TEST_DIST")
    out = Path(built) if built else tmp_path_factory.mktemp("dist")
    if not built:
        subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
            check=True,
            capture_output=True,
            text=True,
            timeout=180,
        )
    (wheel,) = out.glob("*.whl")
    (source,) = out.glob("*.tar.gz")
    return wheel, source


def test_wheel_holds_exactly_the_three_packages(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        f"{package}/{path.relative_to(folder)}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_wheel_says_what_it_needs(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = wheel.read(name).decode()
        assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.10" in metadata
    assert {line.partition(": ")[2] for line in metadata.splitlines() if line.startswith("Import-Name: ")} == set(
        PACKAGES
    )
    for extra in ("langchain", "llamaindex", "runtime", "cli", "all"):
        assert f"Provides-Extra: {extra}\n" in metadata
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert not any("langchain" in line or "llama" in line for line in required), "a framework is no hard dependency"


def test_source_archive_holds_what_its_tests_need(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[1]) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    for needed in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "Makefile",
        "shared/localllama/errors.py",
        "tests/conftest.py",
        "tools/setup_environment.py",
        "docs/structured-output.md",
    ):
        assert needed in names, needed
    assert not any(name.startswith((".venv", ".cache", "dist/")) for name in names)


def test_what_llamaindex_reads_is_true() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = project.partition("[tool.llamahub]\n")[2].partition("\n[tool.ruff]")[0]  # tomllib is not in Python 3.10
    found = re.search(r'^import_path = "(\w+)"$', table, re.MULTILINE)
    assert found
    package = importlib.import_module(found[1])
    authors = table.partition("[tool.llamahub.class_authors]\n")[2]
    assert re.findall(r"^(\w+) =", authors, re.MULTILINE) == package.__all__
    assert "contains_example = true" in table
    assert (ROOT / "examples/llamaindex_rag.py").exists()
