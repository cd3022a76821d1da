"""Models from an address: cut, resumed, changed, refused and killed transfers, against a server on loopback."""

from __future__ import annotations

import email.message
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from localllama._models import url as url_module
from localllama._models.progress import FetchProgress
from localllama._models.store import fetch_model, locate_model
from localllama.errors import ConfigurationError, ModelCorruptError, ModelError, ModelNotFoundError
from support.gguf_bytes import GGUFBytes, small_model, string, u32
from support.waiting import wait_until

CONTENT = small_model().build()
OTHER = small_model(general__name=string("another model")).build()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Site:
    """What the server does; the tests change it."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.parts: dict[str, bytes] = {}
        self.statuses: list[int] = []
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.paths: list[str] = []
        self.hold: threading.Event | None = None
        self.root = ""
        self.elsewhere = ""
        self.retry_after: str | None = None
        self.etag_prefix = ""
        self.shift = 0
        self.headers: list[dict[str, str]] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.paths.append(request.path)
        self.headers.append(dict(request.headers))
        if request.path.startswith("/moved/"):
            request.send_response(302)
            request.send_header("Location", self.elsewhere + urlsplit(request.path).path.removeprefix("/moved"))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        self.ranges.append(request.headers.get("Range"))
        content = self.parts.get(request.path, self.content)
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        status = self.statuses.pop(0) if self.statuses else 200
        body, start = content, 0
        wanted = request.headers.get("Range")
        if status == 200 and wanted and request.headers.get("If-Range") == etag:
            status, start = 206, int(wanted.removeprefix("bytes=").rstrip("-")) + self.shift
        body = content[start:] if status in (200, 206) else b""
        request.send_response(status)
        request.send_header("ETag", f"{self.etag_prefix}{etag}")
        request.send_header("Content-Length", str(len(body)))
        if self.retry_after is not None:
            request.send_header("Retry-After", self.retry_after)
        if status == 206:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        sent = self.cuts.pop(0) if self.cuts and body else len(body)
        request.wfile.write(body[:sent])
        if self.hold is not None:
            self.hold.wait(30)
        request.close_connection = True


@pytest.fixture
def site(tmp_path: Path, monkeypatch) -> Iterator[Site]:
    site = Site()

    class Requests(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *args: object) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site.root = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("LOCALLLAMA_MODELS", str(tmp_path / "store"))
    monkeypatch.setattr(url_module, "_BACKOFF_SECONDS", 0.001)
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


def test_fetched_once_and_found_without_network(site: Site) -> None:
    reference = f"{site.root}/m.gguf#sha256={SHA256}"
    seen = []
    assert locate_model(reference) is None
    path = fetch_model(reference, seen.append)
    assert path.read_bytes() == CONTENT
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert (seen[-1].done_bytes, seen[-1].total_bytes) == (len(CONTENT), len(CONTENT))
    assert locate_model(reference) == fetch_model(reference) == path
    assert site.ranges == [None]


def test_a_cut_transfer_goes_on_where_it_ended(site: Site) -> None:
    site.cuts = [100, 50]
    assert fetch_model(f"{site.root}/m.gguf").read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=100-", "bytes=150-"]


def test_a_line_that_is_cut_again_and_again_brings_it_all_the_same(site: Site) -> None:
    site.cuts = [20] * 10
    assert fetch_model(f"{site.root}/m.gguf").read_bytes() == CONTENT


def test_another_part_than_the_one_asked_for_is_not_taken(site: Site) -> None:
    site.cuts, site.shift = [100], 8
    with pytest.raises(ModelError, match="another part"):
        fetch_model(f"{site.root}/m.gguf")
    site.shift = 0
    assert fetch_model(f"{site.root}/m.gguf").read_bytes() == CONTENT


def test_with_a_weak_validator_it_begins_anew(site: Site) -> None:
    """Equal weak validators do not promise equal bytes."""
    site.cuts, site.etag_prefix = [100], "W/"
    assert fetch_model(f"{site.root}/m.gguf").read_bytes() == CONTENT
    assert site.ranges == [None, None]


def test_a_file_that_changed_in_between_comes_whole(site: Site) -> None:
    site.cuts, site.statuses = [100], [200, 404]
    reference = f"{site.root}/m.gguf"
    with pytest.raises(ModelNotFoundError, match="404"):
        fetch_model(reference)
    site.content = OTHER
    assert fetch_model(reference).read_bytes() == OTHER
    assert site.ranges == [None, "bytes=100-", "bytes=100-"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(site: Site, status: int) -> None:
    site.statuses = [status, status]
    assert fetch_model(f"{site.root}/m.gguf").read_bytes() == CONTENT


def test_but_not_for_ever(site: Site) -> None:
    site.statuses = [503] * 50
    with pytest.raises(ModelNotFoundError, match=rf"^{site.root}/\S+ could not be fetched: HTTP 503, 5 times in a row"):
        fetch_model(f"{site.root}/m.gguf?token=geheim")
    assert len(site.paths) == 5


def test_the_server_says_how_long_to_wait(site: Site, monkeypatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(url_module.time, "sleep", waits.append)
    site.statuses, site.retry_after = [429, 503], "7"
    assert fetch_model(f"{site.root}/m.gguf").read_bytes() == CONTENT
    assert waits == [7, 7]


def test_but_an_hour_is_not_waited(site: Site) -> None:
    site.statuses, site.retry_after = [429], "3600"
    with pytest.raises(ModelNotFoundError, match="HTTP 429, and the server asks to wait 3600 seconds"):
        fetch_model(f"{site.root}/m.gguf")
    assert len(site.paths) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_an_address_that_wants_a_token(site: Site, status: int, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_geheim")
    site.statuses = [status]
    with pytest.raises(ModelNotFoundError, match=f"HTTP {status}") as caught:
        fetch_model(f"{site.root}/m.gguf")
    assert "HF_TOKEN" in str(caught.value)
    assert "geheim" not in str(site.headers) + str(caught.value)


def test_a_redirect_to_another_origin_takes_no_secret_along(site: Site) -> None:
    site.elsewhere = site.root.replace("127.0.0.1", "localhost")
    assert fetch_model(f"{site.root}/moved/m.gguf?token=geheim").read_bytes() == CONTENT
    assert site.paths == ["/moved/m.gguf?token=geheim", "/m.gguf"]
    assert site.headers[1]["Host"].startswith("localhost")
    assert "geheim" not in str(site.headers[1])


def test_a_redirect_is_followed(site: Site) -> None:
    site.cuts = [64]
    assert fetch_model(f"{site.root}/moved/m.gguf").read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=64-"]


def test_a_redirect_leads_from_https_to_nothing_less() -> None:
    redirects = url_module._SecureRedirects()
    asked = urllib.request.Request("https://a.example/m.gguf")
    found = (asked, io.BytesIO(), 302, "Found", email.message.Message())
    for less in ("http://a.example/m.gguf", "ftp://a.example/m.gguf"):
        with pytest.raises(urllib.error.HTTPError, match="away from https"):
            redirects.redirect_request(*found, less)
    followed = redirects.redirect_request(*found, "https://b.example/m.gguf")
    assert followed is not None
    assert followed.full_url == "https://b.example/m.gguf"


def test_a_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ModelCorruptError, match=SHA256):
        fetch_model(f"{site.root}/m.gguf#sha256={'0' * 64}")
    assert not [path for path in (tmp_path / "store").rglob("*") if ".gguf" in path.suffixes and path.suffix != ".json"]


def test_after_a_wrong_file_the_right_one_comes_whole(site: Site) -> None:
    reference = f"{site.root}/m.gguf#sha256={SHA256}"
    site.content = CONTENT[:-1] + b"!"
    with pytest.raises(ModelCorruptError) as caught:
        fetch_model(reference)
    assert SHA256 in str(caught.value)
    assert hashlib.sha256(site.content).hexdigest() in str(caught.value)
    site.content = CONTENT
    assert fetch_model(reference).read_bytes() == CONTENT
    assert site.ranges == [None, None]


def test_a_page_instead_of_a_model_leaves_nothing(site: Site) -> None:
    site.content = b"<html>log in</html>"
    with pytest.raises(ModelCorruptError, match="HTML page"):
        fetch_model(f"{site.root}/m.gguf")
    assert locate_model(f"{site.root}/m.gguf") is None


def part(number: int, count: int = 3) -> bytes:
    return small_model(split__no=u32(number - 1), split__count=u32(count), general__name=string(f"{number}")).build()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"<html>log in</html>", "HTML page"),
        (part(2)[:-1], "00002-of-00003"),
        (part(3), r"00002-of-00003.* is named as part 2 of 3, but its header says part 3 of 3"),
        (CONTENT, "says part 1 of 1"),
    ],
)
def test_a_bad_part_of_a_split_model_goes_and_the_good_ones_stay(site: Site, bad: bytes, words: str) -> None:
    paths = [f"/m-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    site.parts = {path: part(number) for number, path in enumerate(paths, 1)}
    site.parts[paths[1]] = bad
    reference = site.root + paths[0]
    with pytest.raises(ModelCorruptError, match=words):
        fetch_model(reference)
    assert locate_model(reference) is None
    site.paths.clear()
    site.parts[paths[1]] = part(2)
    assert fetch_model(reference).read_bytes() == part(1)
    assert site.paths == paths[1:]


def test_a_first_part_without_an_architecture_goes_too(site: Site) -> None:
    path = "/m-00001-of-00002.gguf"
    site.parts = {path: GGUFBytes({"split.no": u32(0), "split.count": u32(2)}).build()}
    with pytest.raises(ModelCorruptError, match="names no architecture"):
        fetch_model(site.root + path)
    assert locate_model(site.root + path) is None


def test_a_stored_file_that_was_cut_short_is_fetched_anew(site: Site) -> None:
    reference = f"{site.root}/m.gguf"
    fetch_model(reference).write_bytes(CONTENT[:-1])
    assert locate_model(reference) is None
    assert fetch_model(reference).read_bytes() == CONTENT


def test_another_checksum_than_the_stored_one_is_not_overlooked(site: Site) -> None:
    fetch_model(f"{site.root}/m.gguf")
    assert locate_model(f"{site.root}/m.gguf#sha256={'0' * 64}") is None


def test_secrets_stay_out_of_messages_and_store(site: Site, tmp_path: Path) -> None:
    site.statuses = [403]
    with pytest.raises(ModelNotFoundError) as caught:
        fetch_model(f"{site.root}/m.gguf?token=geheim")
    fetch_model(f"{site.root}/m.gguf?token=geheim")
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert "geheim" not in str(caught.value)
    assert not any("geheim" in str(path) or b"geheim" in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("https://user:word@example.org/m.gguf", "password"),
        ("https://example.org/page", "direct address"),
        ("https://example.org/..%2Fm.gguf", "direct address"),
        ("https://example.org/%2Fetc%2Fm.gguf", "direct address"),
        ("https://example.org/..%5Cm.gguf", "direct address"),
        ("https://example.org/C:m.gguf", "direct address"),
        ("https://example.org/m%00.gguf", "direct address"),
        ("https://example.org/m%0A.gguf", "direct address"),
        ("http://example.org/m.gguf", "#sha256="),
    ],
)
def test_unsafe_addresses_are_refused(reference: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        locate_model(reference)


def test_no_room_is_said_before_anything_is_written(site: Site, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1})())
    with pytest.raises(ModelError, match="Not enough disk space"):
        fetch_model(f"{site.root}/m.gguf")
    assert locate_model(f"{site.root}/m.gguf") is None


_FETCH = "import sys; from localllama._models.store import fetch_model; print(fetch_model(sys.argv[1]))"


class _ShortFile(io.BytesIO):
    """Takes a few bytes at a time, as a file does when its disk is nearly full."""

    def write(self, data) -> int:
        return super().write(data[:7])


def test_a_part_that_the_disk_took_is_followed_by_the_rest() -> None:
    file = _ShortFile()
    url_module._write_all(file, CONTENT)
    assert file.getvalue() == CONTENT


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_disk_that_fills_up_is_said_and_the_fetch_goes_on_later(site: Site) -> None:
    script = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)); " + _FETCH
    reference = f"{site.root}/m.gguf"
    command = [sys.executable, "-B", "-c", script, reference]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert "ModelError: The model store" in run.stderr
    assert "LOCALLLAMA_MODELS" in run.stderr
    assert locate_model(reference) is None
    assert fetch_model(reference).read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=300-"]


def test_a_killed_fetch_is_resumed(site: Site, tmp_path: Path) -> None:
    site.cuts, site.hold = [100], threading.Event()
    reference = f"{site.root}/m.gguf"
    process = subprocess.Popen([sys.executable, "-c", _FETCH, reference], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: any(part.stat().st_size == 100 for part in (tmp_path / "store").rglob("*.part")))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        site.hold.set()
    site.hold = None
    assert locate_model(reference) is None
    assert fetch_model(reference).read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=100-"]


def test_two_processes_fetch_it_once(site: Site) -> None:
    site.cuts, site.hold = [100], threading.Event()
    reference = f"{site.root}/m.gguf"
    other = subprocess.Popen([sys.executable, "-c", _FETCH, reference], stdout=subprocess.PIPE, text=True)
    seen: list[FetchProgress] = []
    found: list[Path] = []
    ours = threading.Thread(target=lambda: found.append(fetch_model(reference, seen.append)))
    try:
        wait_until(lambda: len(site.paths) == 1, what="the first request")
        ours.start()
        wait_until(lambda: [each for each in seen if "another process" in each.source], what="the news that it waits")
    finally:
        site.hold.set()
        said = other.communicate(timeout=60)[0]
    ours.join(timeout=60)
    assert (other.returncode, said.strip()) == (0, str(found[0]))
    assert site.ranges == [None, "bytes=100-"]
