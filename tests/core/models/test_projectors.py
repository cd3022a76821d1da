"""The projector of a model that sees: which one is taken, fetched, found, left out, and what a bad one does to text."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from localllama import (
    ChatRequest,
    LocalLlamaClient,
    LocalLlamaWarning,
    Message,
    SamplingSettings,
    ServerSettings,
    ServerStartError,
)
from localllama._models.hub_checks import HubFile
from localllama._models.projectors import choose_projector, locate_projector
from localllama._models.store import locate_model
from support.fake_hub import COMMIT, fake_hub
from support.gguf_bytes import small_model, string
from support.hub_process import localllama

PROJECTOR = small_model(general__type=string("mmproj"), general__architecture=string("clip")).build()
MODEL = small_model().build()
REPOSITORY = "owner/sees-GGUF"


@pytest.mark.parametrize(
    ("files", "model", "chosen"),
    [
        (["m-Q4_K_M.gguf", "mmproj-F16.gguf", "mmproj-Q8_0.gguf"], "m-Q4_K_M.gguf", "mmproj-Q8_0.gguf"),
        (["m-BF16.gguf", "mmproj-Q8_0.gguf", "mmproj-F16.gguf"], "m-BF16.gguf", "mmproj-F16.gguf"),
        (["mmproj-BF16.gguf", "mmproj-F16.gguf"], "m-Q4_K_M.gguf", "mmproj-BF16.gguf"),
        (["mmproj-F16.gguf", "BF16/mmproj-F32.gguf"], "BF16/m-BF16-00001-of-00002.gguf", "BF16/mmproj-F32.gguf"),
        (["Q8/mmproj-F16.gguf"], "m-Q8_0.gguf", None),
        (["m-mmproj-model-f16.gguf", "mmproj.txt"], "m.gguf", "m-mmproj-model-f16.gguf"),
        (["m.gguf", "mmproj/m.gguf"], "mmproj/m.gguf", None),
        (["m.gguf"], "m.gguf", None),
    ],
)
def test_the_projector_that_llama_cpp_would_take(files: list[str], model: str, chosen: str | None) -> None:
    assert choose_projector(files, model) == chosen


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["m.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf"),
        (["m.gguf", "mmproj-F16.gguf", "mmproj-Q8_0.gguf"], None),
        (["m.gguf", "other.gguf", "mmproj-F16.gguf"], None),
        (["m.gguf", "m-mmproj.gguf"], None),
        (["m.gguf"], None),
    ],
)
def test_beside_a_file_only_where_there_is_no_doubt(tmp_path: Path, names: list[str], found: str | None) -> None:
    for name in names:
        (tmp_path / name).write_bytes(PROJECTOR if "mmproj" in name else MODEL)
    model = tmp_path / "m.gguf"
    assert locate_projector(str(model), model) == (tmp_path / found if found else None)


@pytest.mark.parametrize("content", [MODEL, PROJECTOR[:40], b""])
def test_a_file_that_is_no_projector_is_none(tmp_path: Path, content: bytes) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(MODEL)
    (tmp_path / "mmproj-F16.gguf").write_bytes(content)
    assert locate_projector(str(model), model) is None


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    sees = {"m-Q4_K_M.gguf": MODEL, "mmproj-F16.gguf": PROJECTOR, "mmproj-Q8_0.gguf": PROJECTOR}
    wrong = {"m-Q4_K_M.gguf": MODEL, "mmproj-F16.gguf": MODEL}
    with fake_hub({REPOSITORY: sees, "owner/wrong-GGUF": wrong, "owner/text-GGUF": {"m.gguf": MODEL}}) as endpoint:
        yield endpoint


@pytest.fixture
def pull(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`localllama models pull`; gives the exit code and standard error, and lets this process see the same cache."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    monkeypatch.setenv("LOCALLLAMA_MODELS", str(tmp_path / "store"))

    def run(*arguments: str, endpoint: str = hub) -> tuple[int, str]:
        return localllama("models", "pull", *arguments, endpoint=endpoint, cache=tmp_path)

    return run


def cached(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.rglob(f"{COMMIT}/*")}


def found(reference: str) -> str | None:
    path = locate_model(reference)
    assert path is not None
    projector = locate_projector(reference, path)
    return projector.name if projector else None


@pytest.mark.parametrize("reference", [REPOSITORY, f"hf:{REPOSITORY}/m-Q4_K_M.gguf"])
def test_it_comes_with_the_model_of_a_repository(pull, tmp_path: Path, reference: str) -> None:
    assert pull(reference)[0] == 0
    assert cached(tmp_path) == {"m-Q4_K_M.gguf", "mmproj-Q8_0.gguf"}
    assert found(reference) == "mmproj-Q8_0.gguf"
    with LocalLlamaClient(ServerSettings(model=reference)) as client:
        info = client.model_info()
        assert info is not None
        assert Path(str(info.mmproj)).name == "mmproj-Q8_0.gguf"
    with LocalLlamaClient(ServerSettings(model=reference, mmproj="off")) as client:
        info = client.model_info()
        assert info is not None
        assert info.mmproj is None


def test_not_wanted_it_stays_away_and_can_come_later(pull, tmp_path: Path) -> None:
    assert pull(REPOSITORY, "--no-projector")[0] == 0
    assert cached(tmp_path) == {"m-Q4_K_M.gguf"}
    assert found(REPOSITORY) is None
    assert pull(REPOSITORY, endpoint="http://127.0.0.1:9")[0] == 0, "the model is here, so nothing is asked for"
    assert pull(REPOSITORY, "--projector")[0] == 0
    assert found(REPOSITORY) == "mmproj-Q8_0.gguf"


def test_one_that_came_while_its_process_was_killed_is_compared_before_it_is_used(pull, tmp_path: Path) -> None:
    assert pull(REPOSITORY)[0] == 0
    projector = next(tmp_path.rglob("mmproj-Q8_0.gguf"))
    HubFile(tmp_path / "hub", REPOSITORY, "mmproj-Q8_0.gguf").expect("0" * 64)
    assert found(REPOSITORY) == "mmproj-Q8_0.gguf"
    HubFile(tmp_path / "hub", REPOSITORY, "mmproj-Q8_0.gguf").expect("0" * 64)
    projector.resolve().write_bytes(PROJECTOR[:-1] + b"?")
    assert found(REPOSITORY) is None


def test_where_there_is_none(pull) -> None:
    assert pull("owner/text-GGUF")[0] == 0
    code, err = pull("owner/text-GGUF", "--projector")
    assert code == 3
    assert "No projector" in err


def test_a_model_that_is_named_as_a_projector_is_refused_before_the_model_comes(pull, tmp_path: Path) -> None:
    code, err = pull("owner/wrong-GGUF")
    assert code == 3
    assert "mmproj-F16.gguf of owner/wrong-GGUF is named as a projector" in err
    assert "m-Q4_K_M.gguf" not in cached(tmp_path)
    assert pull("owner/wrong-GGUF", "--no-projector")[0] == 0


@pytest.fixture
def served_with_a_bad_projector(tmp_path: Path, micro_model: Path) -> ServerSettings:
    """A model with a projector beside it that has a header and nothing else."""
    model = tmp_path / "micro.gguf"
    model.write_bytes(micro_model.read_bytes())
    (tmp_path / "mmproj-F16.gguf").write_bytes(PROJECTOR)
    runtime = os.environ.get("LOCALLLAMA_TEST_LLAMA_SERVER", "auto")
    return ServerSettings(model=str(model), runtime=runtime, n_threads=1)


REQUEST, SHORT = ChatRequest((Message("user", "Hi"),)), SamplingSettings(max_tokens=3)


def test_text_goes_on_without_a_projector_that_llama_cpp_cannot_load(served_with_a_bad_projector) -> None:
    with (
        LocalLlamaClient(served_with_a_bad_projector, sampling=SHORT) as client,
        pytest.warns(LocalLlamaWarning, match=r"without its projector .*mmproj-F16\.gguf"),
    ):
        assert client.chat(REQUEST).usage.completion_tokens == 3


def test_but_not_without_the_one_that_was_asked_for(served_with_a_bad_projector, tmp_path: Path) -> None:
    settings = served_with_a_bad_projector.with_changes({"mmproj": str(tmp_path / "mmproj-F16.gguf")})
    with LocalLlamaClient(settings, sampling=SHORT) as client, pytest.raises(ServerStartError, match="Correct mmproj"):
        client.chat(REQUEST)


def test_turned_off_it_is_not_tried(served_with_a_bad_projector) -> None:
    settings = served_with_a_bad_projector.with_changes({"mmproj": "off"})
    with warnings.catch_warnings(), LocalLlamaClient(settings, sampling=SHORT) as client:
        warnings.simplefilter("error", LocalLlamaWarning)
        assert client.chat(REQUEST).usage.completion_tokens == 3
