"""Verifying and removing models of the store and of the Hugging Face cache, fetched by the real clients."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from localllama._models import url as url_module
from localllama._models.removal import plan_removal
from localllama._models.store import fetch_model, locate_model, locked
from localllama._models.verification import verify_model
from localllama.errors import ModelCorruptError, ModelError, ModelNotFoundError
from support.fake_hub import fake_hub
from support.gguf_bytes import small_model, string, u32
from support.hub_process import localllama

MODEL, OTHER = small_model().build(), small_model(general__name=string("other")).build()
PROJECTOR = small_model(general__type=string("mmproj"), general__architecture=string("clip")).build()
PARTS = {
    f"m-Q8_0-0000{number}-of-00002.gguf": small_model(split__no=u32(number - 1), split__count=u32(2)).build()
    for number in (1, 2)
}
REPOSITORY = "owner/m-GGUF"
FILES = {
    "README.md": b"",
    "m-Q4_K_M.gguf": MODEL,
    "m-Q2_K.gguf": OTHER,
    "same-Q3_K.gguf": OTHER,
    "mmproj-F16.gguf": PROJECTOR,
    **PARTS,
}


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with fake_hub({REPOSITORY: FILES}) as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(tmp_path / "store"))
    monkeypatch.setenv("LOCALLLAMA_CONFIG_DIR", str(tmp_path / "configuration"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def address(hub: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(url_module, "_BACKOFF_SECONDS", 0.001)
    return f"{hub}/{REPOSITORY}/resolve/main"


def pull(hub: str, cache: Path, *quantizations: str) -> None:
    for quantization in quantizations:
        assert localllama("models", "pull", f"{REPOSITORY}:{quantization}", endpoint=hub, cache=cache)[0] == 0


def files_below(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*.gguf")}


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.resolve().write_bytes(content)


class TestHub:
    def test_each_file_is_compared_with_the_checksum_of_its_blob(self, hub: str, tmp_path: Path) -> None:
        pull(hub, tmp_path, "Q8_0")
        checked = verify_model(f"{REPOSITORY}:Q8_0")
        assert {file.path.name: file.sha256 for file in checked} == {
            name: hashlib.sha256(content).hexdigest()
            for name, content in {**PARTS, "mmproj-F16.gguf": PROJECTOR}.items()
        }
        damage(checked[1].path)
        with pytest.raises(ModelCorruptError, match=r"m-Q8_0-00002-of-00002\.gguf has the SHA-256"):
            verify_model(f"{REPOSITORY}:Q8_0")

    def test_removing_one_leaves_the_others_and_the_last_takes_the_projector(self, hub: str, tmp_path: Path) -> None:
        pull(hub, tmp_path, "Q4_K_M", "Q8_0")
        plan = plan_removal(f"{REPOSITORY}:Q8_0")
        assert {path.name for path in plan.files} == set(PARTS)
        assert plan.size_bytes == sum(len(content) for content in PARTS.values())
        plan.remove()
        assert files_below(tmp_path / "hub") == {"m-Q4_K_M.gguf", "mmproj-F16.gguf"}
        verify_model(f"{REPOSITORY}:Q4_K_M")
        plan = plan_removal(f"{REPOSITORY}:Q4_K_M")
        assert plan.size_bytes == len(MODEL) + len(PROJECTOR)
        plan.remove()
        assert not list((tmp_path / "hub").rglob("blobs/*"))
        assert locate_model(REPOSITORY) is None
        with pytest.raises(ModelNotFoundError, match="not in the cache"):
            plan_removal(REPOSITORY)

    def test_what_another_program_fetched_goes_only_by_force(self, hub: str, tmp_path: Path) -> None:
        pull(hub, tmp_path, "Q4_K_M")
        for record in (tmp_path / "store" / "hub").iterdir():
            record.unlink()
        pull(hub, tmp_path, "Q2_K")
        assert {path.name for path in plan_removal(f"{REPOSITORY}:Q2_K").files} == {"m-Q2_K.gguf"}
        with pytest.raises(ModelError, match="--force"):
            plan_removal(f"{REPOSITORY}:Q4_K_M")
        plan_removal(f"{REPOSITORY}:Q4_K_M", is_forced=True).remove()
        assert files_below(tmp_path / "hub") == {"m-Q2_K.gguf", "mmproj-F16.gguf"}
        plan_removal(f"{REPOSITORY}:Q2_K").remove()
        assert files_below(tmp_path / "hub") == {"mmproj-F16.gguf"}, "nobody knows who fetched that"

    def test_a_file_of_the_same_content_stays(self, hub: str, tmp_path: Path) -> None:
        pull(hub, tmp_path, "Q2_K", "Q3_K")
        plan_removal(f"{REPOSITORY}:Q3_K").remove()
        assert locate_model(f"{REPOSITORY}:Q3_K") is None
        verify_model(f"{REPOSITORY}:Q2_K")


class TestAddresses:
    def test_it_is_compared_with_what_came(self, address: str) -> None:
        reference = f"{address}/m-Q8_0-00001-of-00002.gguf"
        fetch_model(reference)
        checked = verify_model(reference)
        assert [file.sha256 for file in checked] == [hashlib.sha256(part).hexdigest() for part in PARTS.values()]
        damage(checked[0].path)
        with pytest.raises(ModelCorruptError, match="models rm"):
            verify_model(reference)

    def test_it_is_removed_whole_and_its_neighbours_stay(self, address: str) -> None:
        reference, other = f"{address}/m-Q8_0-00001-of-00002.gguf", f"{address}/m-Q2_K.gguf"
        fetch_model(reference)
        fetch_model(other)
        plan = plan_removal(reference)
        assert sum(path.suffix == ".gguf" for path in plan.files) == 2
        assert plan.size_bytes >= sum(len(content) for content in PARTS.values())
        plan.remove()
        assert locate_model(reference) is None
        assert locate_model(other) is not None
        with pytest.raises(ModelNotFoundError, match="not in the store"):
            plan_removal(reference)

    def test_whoever_fetches_it_at_this_moment_is_waited_for(self, address: str) -> None:
        reference = f"{address}/m-Q2_K.gguf"
        path = fetch_model(reference)
        removing = threading.Thread(target=plan_removal(reference).remove)
        with locked(path.parent, reference, None):
            removing.start()
            removing.join(timeout=0.5)
            assert path.exists()
        removing.join(timeout=60)
        assert not path.exists()


def test_a_file_of_the_user_is_checked_and_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(MODEL)
    assert [(file.path, file.sha256) for file in verify_model(str(path))] == [(path, None)]
    with pytest.raises(ModelError, match="a file of yours"):
        plan_removal(str(path), is_forced=True)
    assert path.exists()


def test_what_is_not_here_cannot_be_checked() -> None:
    with pytest.raises(ModelNotFoundError, match="models pull"):
        verify_model(REPOSITORY)
