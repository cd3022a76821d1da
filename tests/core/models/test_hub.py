"""Hugging Face references: which file is chosen, and the real huggingface_hub client against a hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

from localllama._models.hub import choose_file
from localllama._models.hub_errors import ask
from localllama._models.reference import parse_reference
from localllama._models.splits import split_parts, split_position
from localllama._models.store import locate_model
from localllama.errors import ModelNotFoundError
from support.fake_hub import COMMIT, fake_hub
from support.gguf_bytes import small_model, string

FILES = [
    "README.md",
    "mmproj-Q4_K_M.gguf",
    "m-IQ2_XS.gguf",
    "m-q4_k_m.gguf",
    "m-Q4_K_S.gguf",
    "m-Q8_0-00001-of-00002.gguf",
    "m-Q8_0-00002-of-00002.gguf",
]

NO_MODELS = ("mmproj", "imatrix", "mtp-m", "eagle3-m", "dflash-m", "dspark-m")


@pytest.mark.parametrize(
    ("files", "quantization", "chosen"),
    [
        (FILES, None, "m-q4_k_m.gguf"),
        (FILES, "iq2_xs", "m-IQ2_XS.gguf"),
        (FILES, "Q8_0", "m-Q8_0-00001-of-00002.gguf"),
        (FILES, "Q4_K", None),
        (FILES, "Q5_K_M", None),
        (FILES[:4:-1], None, "m-Q8_0-00001-of-00002.gguf"),
        (["m-Q2_K.gguf", "m-Q6_K.gguf"], None, "m-Q2_K.gguf"),
        (["BF16/m-BF16-00001-of-00003.gguf"], "BF16", "BF16/m-BF16-00001-of-00003.gguf"),
        (["mmproj-f16.gguf", "README.md"], None, None),
        ([f"{part}-Q4_K_M.gguf" for part in NO_MODELS] + ["m-Q2_K.gguf"], None, "m-Q2_K.gguf"),
        ([f"{part}-Q4_K_M.gguf" for part in NO_MODELS] + ["m-Q2_K.gguf"], "Q4_K_M", None),
    ],
)
def test_the_file_that_llama_cpp_would_take(files: list[str], quantization: str | None, chosen: str | None) -> None:
    assert choose_file(files, quantization) == chosen


def test_a_split_model_is_all_its_parts() -> None:
    assert split_parts("Q8/m-00001-of-00002.gguf") == ("Q8/m-00001-of-00002.gguf", "Q8/m-00002-of-00002.gguf")
    assert split_parts("m.gguf") == ("m.gguf",)
    assert split_position("Q8/m-00002-of-00012.gguf") == (2, 12)
    assert split_position("m-00001-of-00001.gguf") == (1, 1)


_CACHES = (
    {"HF_HUB_CACHE": "/a/hub", "HUGGINGFACE_HUB_CACHE": "/b/hub", "HF_HOME": "/c"},
    {"HUGGINGFACE_HUB_CACHE": "/b/hub", "HF_HOME": "/c"},
    {"HF_HOME": "~/c", "XDG_CACHE_HOME": "/d"},
    {"HF_HOME": "$PLACE/c"},
    {"XDG_CACHE_HOME": "/d"},
    {},
)


@pytest.mark.parametrize("variables", _CACHES, ids=lambda variables: ",".join(variables) or "none")
def test_the_cache_is_where_the_library_has_it(variables: dict[str, str]) -> None:
    program = "from huggingface_hub.constants import HF_HUB_CACHE; from localllama._models.hub_cache import hub_cache; "
    program += "print(HF_HUB_CACHE); print(hub_cache())"
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "XDG_"))}
    run = [sys.executable, "-c", program]
    theirs, found = subprocess.check_output(run, env={**ours, "PLACE": "/e", **variables}, text=True).splitlines()
    assert found == theirs


# The library reads its settings once, at import, so each case runs in a process of its own.
def test_a_split_model_is_in_the_cache_with_all_its_parts_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--split" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(COMMIT)
    first, second = (snapshot / f"m-Q8_0-0000{number}-of-00002.gguf" for number in (1, 2))
    first.write_bytes(b"")
    assert locate_model("owner/split:Q8_0") is None
    second.write_bytes(b"")
    assert locate_model("owner/split:Q8_0") == first


_FETCH = """
import json, sys, time
time.sleep = lambda seconds: None  # the library waits 20 s between its attempts to connect
from localllama._models.store import fetch_model, locate_model
from localllama.errors import LocalLlamaError
seen = []
try:
    path = fetch_model(sys.argv[1], seen.append)
    answer = {"path": str(path), "located": str(locate_model(sys.argv[1]))}
except LocalLlamaError as error:
    answer = {"error": type(error).__name__, "text": str(error)}
answer["progress"] = [[item.source, item.done_bytes, item.total_bytes] for item in seen]
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    repositories = {
        "owner/good-GGUF": {
            "README.md": b"",
            "m-Q4_K_M.gguf": small_model().build(),
            "m-Q2_K.gguf": small(name="two bits"),
        },
        "owner/page-GGUF": {"m-Q4_K_M.gguf": b"<html>moved</html>"},
        "owner/escapes-GGUF": {
            "../m-Q4_K_M.gguf": small_model().build(),
            "/etc/m-Q8_0.gguf": small_model().build(),
            "..\\m-Q4_K_M.gguf": small_model().build(),
            "ok-Q2_K.gguf": small_model().build(),
        },
        "owner/none": {"README.md": b""},
    }
    with fake_hub(repositories) as endpoint:
        yield endpoint


def small(name: str) -> bytes:
    return small_model(general__name=string(name)).build()


def fetch(reference: str, cache: Path, **environment: str) -> dict:
    run = subprocess.run(
        [sys.executable, "-c", _FETCH, reference],
        env={**os.environ, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(run.stdout)


def test_a_model_is_fetched_into_the_cache_and_found_there_without_network(
    hub: str, tmp_path: Path, monkeypatch
) -> None:
    answer = fetch("owner/good-GGUF", tmp_path, HF_ENDPOINT=hub)
    size = len(small_model().build())
    path = tmp_path / f"hub/models--owner--good-GGUF/snapshots/{COMMIT}/m-Q4_K_M.gguf"
    assert answer["path"] == answer["located"] == str(path)
    assert ["Hugging Face (m-Q4_K_M.gguf)", size, size] in answer["progress"]
    assert answer["progress"][-1] == ["Hugging Face (m-Q4_K_M.gguf, checksum)", size, size]
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert locate_model("owner/good-GGUF:q4_k_m") == path
    assert locate_model("hf:owner/good-GGUF/m-Q4_K_M.gguf") == path
    assert locate_model("owner/good-GGUF:Q2_K") is None


@pytest.mark.parametrize(
    ("reference", "error", "words"),
    [
        ("owner/good-GGUF:Q5_K_M", "ModelNotFoundError", "It has: m-Q4_K_M.gguf, m-Q2_K.gguf."),
        ("owner/good-GGUF:Q3_K", "ModelNotFoundError", "It has: m-Q2_K.gguf, m-Q4_K_M.gguf."),
        ("hf:owner/good-GGUF/m-Q4_K_S.gguf", "ModelNotFoundError", "It has: m-Q4_K_M.gguf, m-Q2_K.gguf."),
        ("owner/escapes-GGUF:Q4_K_M", "ModelNotFoundError", "It has: ok-Q2_K.gguf."),
        ("owner/none", "ModelNotFoundError", "ends in '-GGUF'"),
        ("owner/missing", "ModelNotFoundError", "no repository owner/missing"),
        ("owner/god-GGUF", "ModelNotFoundError", "Did you mean 'owner/good-GGUF'"),
        ("bartowski/Llama-3.2-1B-instruct-gguf", "ModelNotFoundError", "'bartowski/Llama-3.2-1B-Instruct-GGUF'"),
        ("owner/gated", "ModelNotFoundError", "HF_TOKEN"),
        ("owner/page-GGUF", "ModelCorruptError", "HTML page"),
    ],
)
def test_what_cannot_be_had_says_why(hub: str, tmp_path: Path, reference: str, error: str, words: str) -> None:
    answer = fetch(reference, tmp_path, HF_ENDPOINT=hub)
    assert answer.get("error") == error
    assert words in answer["text"]


@pytest.mark.parametrize(
    ("reference", "environment"),
    [
        ("owner/good-GGUF", {"HF_ENDPOINT": "http://127.0.0.1:9"}),
        ("hf:owner/good-GGUF/m-Q4_K_M.gguf", {"HF_HUB_OFFLINE": "1"}),
    ],
)
def test_without_a_network_the_error_says_so(tmp_path: Path, reference: str, environment: dict[str, str]) -> None:
    answer = fetch(reference, tmp_path, **environment)
    assert answer.get("error") == "ModelNotFoundError"
    assert "HF_HUB_OFFLINE" in answer["text"]


def _fail() -> None:
    raise RuntimeError("the connection to the storage was lost")


@pytest.mark.parametrize(
    ("module", "error"), [("huggingface_hub.file_download", ModelNotFoundError), ("of_the_user", RuntimeError)]
)
def test_what_the_compiled_downloader_raises_is_told_from_faults_of_the_user(
    module: str, error: type[Exception]
) -> None:
    call = FunctionType(_fail.__code__, {"__name__": module})
    with pytest.raises(error, match="connection to the storage was lost"):
        ask(parse_reference("owner/repo"), call)
