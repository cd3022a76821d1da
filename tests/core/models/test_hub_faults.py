"""Hugging Face when something goes wrong: the real huggingface_hub client against a hub on loopback that misbehaves."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fake_hub import SIGNATURE, FakeHub, Kind, Refusal, serving_hub
from support.gguf_bytes import small_model, string
from support.hub_fetch import fetch, fetch_killed, has_own_mounts, hub_environment
from support.waiting import wait_until

CONTENT = small_model().build()
OTHER = small_model(general__name=string("a newer one")).build()
# The library hands on whole chunks of 10 MiB, so a file that is to be resumed is larger.
CHUNK = 10 << 20
BIG = CONTENT + bytes(range(256)) * (12 << 12)
MARGIN = 64 << 20  # is to be free beside a model
TOKEN = "hf_geheim"
GOOD = "hf:owner/good-GGUF/m-Q4_K_M.gguf"
BIG_FILE = "hf:owner/big-GGUF/m-Q4_K_M.gguf"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    repositories = {
        "owner/good-GGUF": {"README.md": b"", "m-Q4_K_M.gguf": CONTENT, "m-Q2_K.gguf": CONTENT},
        "owner/big-GGUF": {"m-Q4_K_M.gguf": BIG},
        "owner/outside": dict.fromkeys(("../../x-Q4_K_M.gguf", "..\\x.gguf", "/x.gguf", "C:x.gguf"), CONTENT),
        "owner/half-outside": {"..\\mmproj-x.gguf": CONTENT, "m.gguf": CONTENT},
    }
    with serving_hub(repositories) as hub:
        yield hub


def gguf_files(cache: Path) -> list[Path]:
    """Everything in the cache that could be taken for a model."""
    return [path for path in cache.rglob("*") if path.name.endswith(".gguf") or path.parent.name == "blobs"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_cut_connection_is_resumed_where_it_broke(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts.append(CHUNK + 100)
    outcome = fetch(hub, BIG_FILE, tmp_path)
    assert outcome.content() == BIG
    assert hub.starts() == [0, CHUNK]
    assert outcome.progress[-1] == ["Hugging Face (m-Q4_K_M.gguf, checksum)", len(BIG), len(BIG)]


def test_a_connection_that_is_always_cut_ends_with_an_error(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts.extend([10] * 100)
    outcome = fetch(hub, GOOD, tmp_path)
    assert outcome.error == "ModelNotFoundError"
    assert "HF_ENDPOINT" in outcome.text
    assert outcome.located is None
    assert hub.cuts, "it tried for ever"
    hub.cuts.clear()
    assert fetch(hub, GOOD, tmp_path).content() == CONTENT


def test_a_wrong_checksum_names_both_and_leaves_nothing(hub: FakeHub, tmp_path: Path) -> None:
    false = CONTENT[:-1] + b"!"
    hub.false_bytes[CONTENT] = false
    outcome = fetch(hub, GOOD, tmp_path)
    assert outcome.error == "ModelCorruptError"
    assert sha256(CONTENT) in outcome.text
    assert sha256(false) in outcome.text
    assert outcome.located is None
    assert not gguf_files(tmp_path)
    hub.false_bytes.clear()
    again = fetch(hub, GOOD, tmp_path)
    assert again.content() == CONTENT
    assert again.located == again.path


@pytest.mark.parametrize("is_right", [True, False])
def test_a_process_killed_before_the_comparison_leaves_it_to_the_next(
    hub: FakeHub, tmp_path: Path, is_right: bool
) -> None:
    if not is_right:
        hub.false_bytes[BIG] = BIG[:-1] + b"!"
    fetch_killed(hub, BIG_FILE, tmp_path)
    assert gguf_files(tmp_path)
    outcome = fetch(hub, BIG_FILE, tmp_path, HF_HUB_OFFLINE="1")
    assert (outcome.path is not None) == is_right
    assert bool(gguf_files(tmp_path)) == is_right
    assert not list(tmp_path.rglob("*.unchecked"))


def test_the_token_does_not_go_to_another_origin(hub: FakeHub, tmp_path: Path) -> None:
    hub.tokens["owner/good-GGUF"] = TOKEN
    hub.has_storage = True
    outcome = fetch(hub, "owner/good-GGUF", tmp_path, HF_TOKEN=TOKEN)
    assert outcome.content() == CONTENT
    assert {request.token for request in hub.seen if not request.is_at_storage} == {f"Bearer {TOKEN}"}
    assert [(request.kind, request.token) for request in hub.seen if request.is_at_storage] == [("BYTES", None)]


def test_a_signed_address_is_not_in_the_error(hub: FakeHub, tmp_path: Path) -> None:
    hub.has_storage = True
    hub.refusals["BYTES"].append(Refusal(416))
    outcome = fetch(hub, GOOD, tmp_path)
    assert outcome.error == "ModelNotFoundError"
    assert "416" in outcome.text
    assert SIGNATURE not in outcome.text


@pytest.mark.parametrize("reference", [GOOD, "owner/good-GGUF"])
def test_a_private_repository_wants_a_token(hub: FakeHub, tmp_path: Path, reference: str) -> None:
    hub.tokens["owner/good-GGUF"] = TOKEN
    without = fetch(hub, reference, tmp_path)
    assert without.error == "ModelNotFoundError"
    assert "HF_TOKEN" in without.text
    wrong = fetch(hub, reference, tmp_path, HF_TOKEN="hf_falsch")
    assert wrong.error == "ModelNotFoundError"
    assert "does not take the token (HTTP 401)" in wrong.text
    assert "HF_TOKEN" in wrong.text
    assert "hf_falsch" not in wrong.traceback + wrong.log
    right = fetch(hub, reference, tmp_path, HF_TOKEN=TOKEN)
    assert right.content() == CONTENT
    assert TOKEN not in right.log


@pytest.mark.parametrize("token", ["hf_ge\x01heim", "hf_gehäim", "hf_ge\nheim"])
def test_a_token_that_cannot_be_sent_is_not_told(hub: FakeHub, tmp_path: Path, token: str) -> None:
    hub.refusals["HEAD"].append(Refusal(403))
    outcome = fetch(hub, GOOD, tmp_path, HF_TOKEN=token)
    assert outcome.error == "ModelNotFoundError"
    assert "HF_TOKEN" in outcome.text
    shown = outcome.traceback + outcome.log
    assert not any(form in shown for form in (token, ascii(token)[1:-1], repr(token.encode())[2:-1]))


def test_access_that_is_refused_says_how_to_give_a_token(hub: FakeHub, tmp_path: Path) -> None:
    hub.refusals["HEAD"].append(Refusal(403))
    outcome = fetch(hub, GOOD, tmp_path, HF_TOKEN=TOKEN)
    assert outcome.error == "ModelNotFoundError"
    assert "refuses access (HTTP 403)" in outcome.text
    assert "HF_TOKEN" in outcome.text
    assert TOKEN not in outcome.traceback + outcome.log


@pytest.mark.parametrize(("kind", "status"), [("LIST", 429), ("HEAD", 503), ("BYTES", 429), ("BYTES", 503)])
def test_a_busy_hub_is_asked_again(hub: FakeHub, tmp_path: Path, kind: Kind, status: int) -> None:
    hub.refusals[kind].extend([Refusal(status, {"Retry-After": "7"})] * 2)
    outcome = fetch(hub, "owner/good-GGUF", tmp_path)
    assert outcome.content() == CONTENT
    if (kind, status) != ("BYTES", 429):  # that one is waited for by the library, whose releases differ
        assert [wait for wait in outcome.waits if wait >= 7] == [7, 7]


@pytest.mark.parametrize("kind", ["HEAD", "BYTES"])
def test_but_not_for_ever(hub: FakeHub, tmp_path: Path, kind: Kind) -> None:
    hub.refusals[kind].extend([Refusal(503)] * 100)
    outcome = fetch(hub, "owner/good-GGUF", tmp_path)
    assert outcome.error == "ModelNotFoundError"
    assert "HTTP 503, 4 times in a row" in outcome.text
    assert hub.refusals[kind]
    assert outcome.located is None


@pytest.mark.parametrize("kind", ["LIST", "HEAD"])
def test_a_hub_that_asks_for_an_hour_is_believed(hub: FakeHub, tmp_path: Path, kind: Kind) -> None:
    hub.refusals[kind].extend([Refusal(429, {"Retry-After": "3600"})] * 2)
    outcome = fetch(hub, "owner/good-GGUF", tmp_path)
    assert outcome.error == "ModelNotFoundError"
    assert "HTTP 429 and asks to wait 3600 seconds" in outcome.text
    assert max(outcome.waits, default=0) < 3600
    assert hub.count(kind) == 1


def test_offline_mode_takes_what_is_in_the_cache(hub: FakeHub, tmp_path: Path) -> None:
    fetch(hub, GOOD, tmp_path)
    n_requests = len(hub.seen)
    assert fetch(hub, "owner/good-GGUF", tmp_path, HF_HUB_OFFLINE="1").content() == CONTENT
    for reference in ("owner/good-GGUF:Q2_K", "hf:owner/good-GGUF/m-Q2_K.gguf"):
        missing = fetch(hub, reference, tmp_path, HF_HUB_OFFLINE="1")
        assert missing.error == "ModelNotFoundError"
        assert "HF_HUB_OFFLINE" in missing.text
    assert len(hub.seen) == n_requests


def test_another_file_of_the_repository_brings_the_newer_one_with_it(hub: FakeHub, tmp_path: Path) -> None:
    assert fetch(hub, GOOD, tmp_path).content() == CONTENT
    hub.commit = "f" * 40
    hub.repositories = {"owner/good-GGUF": {"m-Q4_K_M.gguf": OTHER, "m-Q2_K.gguf": CONTENT}}
    # What is here is not asked for again; the other file brings the new commit with it, and with that the newer one.
    assert fetch(hub, GOOD, tmp_path).content() == CONTENT
    assert fetch(hub, "owner/good-GGUF:Q2_K", tmp_path).content() == CONTENT
    assert hub.starts() == [0], "the same bytes were fetched twice"
    assert fetch(hub, GOOD, tmp_path).content() == OTHER


def test_a_file_that_changes_while_it_is_fetched_is_not_mixed(hub: FakeHub, tmp_path: Path) -> None:
    newer = BIG[:-1] + b"!"
    hub.cuts.append(CHUNK + 100)
    hub.false_bytes[BIG] = b"?" + BIG[1:]  # the beginning is of another version than the end
    outcome = fetch(hub, BIG_FILE, tmp_path)
    assert outcome.error == "ModelCorruptError"
    assert not gguf_files(tmp_path)
    hub.false_bytes.clear()
    hub.repositories = {"owner/big-GGUF": {"m-Q4_K_M.gguf": newer}}
    assert fetch(hub, BIG_FILE, tmp_path).content() == newer


def test_no_room_is_said_before_a_byte_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    outcome = fetch(hub, GOOD, tmp_path, free_bytes=len(CONTENT))
    assert outcome.error == "ModelError"
    assert "Not enough disk space" in outcome.text
    assert "HF_HOME" in outcome.text
    assert hub.starts() == []


def test_room_is_wanted_only_for_what_is_still_to_come(hub: FakeHub, tmp_path: Path) -> None:
    hub.refusals["BYTES"].append(Refusal(403))
    assert fetch(hub, BIG_FILE, tmp_path).error == "ModelNotFoundError"
    (part,) = tmp_path.rglob("*.incomplete")
    part.write_bytes(BIG[:CHUNK])
    rest = len(BIG) - CHUNK
    assert fetch(hub, BIG_FILE, tmp_path, free_bytes=MARGIN + rest - 1).error == "ModelError"
    assert fetch(hub, BIG_FILE, tmp_path, free_bytes=MARGIN + rest).content() == BIG


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_disk_that_fills_up_is_said_and_mended(hub: FakeHub, tmp_path: Path) -> None:
    outcome = fetch(hub, BIG_FILE, tmp_path, most_file_bytes=1 << 20)
    assert outcome.error == "ModelError"
    assert "cannot be written" in outcome.text
    assert "HF_HOME" in outcome.text
    assert outcome.located is None
    assert fetch(hub, BIG_FILE, tmp_path).content() == BIG


@pytest.mark.skipif(not has_own_mounts(), reason="this user may not mount a file system of its own")
def test_a_full_disk_is_said(hub: FakeHub, tmp_path: Path) -> None:
    outcome = fetch(hub, BIG_FILE, tmp_path, disk_bytes=4 << 20, free_bytes=1 << 40)
    assert outcome.error == "ModelError"
    assert "No space left on device" in outcome.text
    assert "HF_HOME" in outcome.text


def test_names_that_lead_outside_are_not_taken(hub: FakeHub, tmp_path: Path) -> None:
    outcome = fetch(hub, "owner/outside", tmp_path)
    assert outcome.error == "ModelNotFoundError"
    assert "has no GGUF file" in outcome.text
    assert [request.kind for request in hub.seen] == ["LIST"]
    assert fetch(hub, "owner/half-outside", tmp_path).content() == CONTENT


def test_a_commit_that_leads_outside_is_not_taken(hub: FakeHub, tmp_path: Path) -> None:
    hub.commit = "../../../outside"
    outcome = fetch(hub, GOOD, tmp_path)
    assert outcome.error == "ModelNotFoundError"
    assert "is no checksum" in outcome.text
    assert hub.starts() == []


def pull(hub: FakeHub, cache: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "localllama", "models", "pull", *(arguments or (BIG_FILE,))],
        env=hub_environment(hub.endpoint, cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pulled(process: subprocess.Popen[str]) -> bytes:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return Path(out.strip()).read_bytes()


def test_an_update_fetches_a_newer_file_once(hub: FakeHub, tmp_path: Path) -> None:
    assert pulled(pull(hub, tmp_path, GOOD)) == CONTENT
    hub.commit = "f" * 40
    hub.repositories = {"owner/good-GGUF": {"m-Q4_K_M.gguf": OTHER}}
    assert pulled(pull(hub, tmp_path, GOOD)) == CONTENT
    assert pulled(pull(hub, tmp_path, "--update", GOOD)) == OTHER
    assert pulled(pull(hub, tmp_path, "--update", "owner/good-GGUF")) == OTHER
    assert hub.starts() == [0, 0]


def kill_a_pull(hub: FakeHub, tmp_path: Path) -> None:
    """Pull until the first piece is on disk, and end that by SIGKILL."""
    hub.hold = threading.Event()
    hub.cuts.append(CHUNK + 100)
    process = pull(hub, tmp_path)
    try:
        wait_until(lambda: any(path.stat().st_size == CHUNK for path in tmp_path.rglob("*.incomplete")), seconds=60)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        hub.hold.set()


def test_a_killed_pull_leaves_no_model_and_the_next_one_ends_right(hub: FakeHub, tmp_path: Path) -> None:
    kill_a_pull(hub, tmp_path)
    assert fetch(hub, BIG_FILE, tmp_path, HF_HUB_OFFLINE="1").located is None
    assert pulled(pull(hub, tmp_path)) == BIG
    assert hub.starts() == [0, CHUNK]
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_pull_that_was_killed_when_all_had_come_fetches_nothing(hub: FakeHub, tmp_path: Path) -> None:
    kill_a_pull(hub, tmp_path)
    (part,) = tmp_path.rglob("*.incomplete")
    part.write_bytes(BIG)
    assert pulled(pull(hub, tmp_path)) == BIG
    assert hub.starts() == [0]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal of Ctrl-C for one process")
def test_an_interrupted_pull_is_gone_on_with(hub: FakeHub, tmp_path: Path) -> None:
    hub.hold = threading.Event()
    hub.cuts.append(CHUNK + 100)
    process = pull(hub, tmp_path)
    try:
        wait_until(lambda: any(path.stat().st_size == CHUNK for path in tmp_path.rglob("*.incomplete")), seconds=60)
    finally:
        process.send_signal(signal.SIGINT)
        hub.hold.set()
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert pulled(pull(hub, tmp_path)) == BIG
    assert hub.starts() == [0, CHUNK]


def test_who_asked_for_xet_gets_the_way_of_the_library(hub: FakeHub, tmp_path: Path) -> None:
    assert fetch(hub, BIG_FILE, tmp_path, HF_XET_HIGH_PERFORMANCE="1").content() == BIG
    assert "/resolve/main/" in next(request.path for request in hub.seen if request.kind == "BYTES")


def test_a_beginning_that_is_longer_than_the_file_is_thrown_away(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts.append(10)
    hub.refusals["BYTES"].append(Refusal(403))
    assert fetch(hub, BIG_FILE, tmp_path).error == "ModelNotFoundError"
    (part,) = tmp_path.rglob("*.incomplete")
    part.write_bytes(bytes(len(BIG) + 1))
    hub.cuts.clear()
    assert fetch(hub, BIG_FILE, tmp_path).content() == BIG


def test_two_pulls_at_once_fetch_it_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.hold = threading.Event()
    first = pull(hub, tmp_path)
    second = None
    try:
        wait_until(lambda: hub.count("BYTES") == 1, seconds=60)
        n_asked = hub.count("HEAD")
        second = pull(hub, tmp_path)
        wait_until(lambda: hub.count("HEAD") > n_asked, seconds=60)
    finally:
        hub.hold.set()
        contents = [pulled(process) for process in (first, second) if process is not None]
    assert contents == [BIG, BIG]
    assert hub.starts() == [0]
