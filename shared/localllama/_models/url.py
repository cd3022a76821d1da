"""Models from an http or https address: resumed, checked, and in the store only when they are complete.

    STORE/urls/DIGEST/.lock             held while the address is fetched, by one process at a time
    STORE/urls/DIGEST/FILE.gguf.part    what has come so far; the next fetch goes on from there, a killed one's too
    STORE/urls/DIGEST/FILE.gguf.json    the file's size and validator, and its checksum once it is complete
    STORE/urls/DIGEST/FILE.gguf         complete

The standard library's client is enough for one body that is written to a file; httpx stays with the transports. The
address itself is not written anywhere, since its query may hold a token; DIGEST stands for it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

from localllama._whole_file import write_json
from localllama.errors import ConfigurationError, ModelCorruptError, ModelError, ModelNotFoundError

from .files import sha256_of
from .gguf import check_part, read_gguf_header
from .names import is_safe_name
from .progress import FetchProgress, ProgressCallback
from .reference import ModelReference, shown_url
from .splits import split_parts, split_position
from .store import locked, require_space, store_directory, store_errors, write_through

__all__ = ["fetch_url_model", "locate_url_model", "recorded_sha256", "url_directory"]

_READ_SECONDS = 60
_MOST_FAILURES = 5
_BACKOFF_SECONDS = 0.5
_MOST_WAIT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 20
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_TEMPORARY = (408, 429, 500, 502, 503, 504)
_REFUSED = (401, 403)
_UNSATISFIABLE_RANGE = 416
_TRY_AGAIN = "Check the address and the network; the next fetch goes on where this one ended."
_LOG_IN = (
    "No token is sent to an address. Name a model on Hugging Face as 'hf:owner/repo/file.gguf' and set HF_TOKEN; else "
    "download the file yourself and give its path."
)
_HUB_PAGE = re.compile(r"(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)/?")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class _InterruptedError(Exception):
    """The transfer may work if it is tried again."""

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect from https to anything less."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.HTTPError(req.full_url, code, "redirect away from https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def locate_url_model(reference: ModelReference) -> Path | None:
    """Where the model is in the store; None if it is not there as a whole, or with another checksum than the one given.

    Raises:
        ConfigurationError: The address is none of a GGUF file, or unsafe.
    """
    directory, name = _place(reference)
    is_here = all(_is_complete(directory / part, _digest_of(reference, part, name)) for part in split_parts(name))
    return directory / split_parts(name)[0] if is_here else None


def fetch_url_model(reference: ModelReference, on_progress: ProgressCallback | None) -> Path:
    """Download the model into the store; of a split model every part.

    Raises:
        ConfigurationError: The address is none of a GGUF file, or unsafe.
        ModelNotFoundError: It cannot be had from there.
        ModelCorruptError: What came is not the model.
        ModelError: The disk is full, or the store cannot be written.
    """
    assert reference.url is not None
    directory, name = _place(reference)
    parts = urlsplit(reference.url)
    folder = parts.path.rpartition("/")[0]
    shown = shown_url(urlsplit(reference.url))
    with store_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(directory, shown, on_progress):
            for part in split_parts(name):
                address = parts._replace(path=f"{folder}/{quote(part)}").geturl()
                transfer = _Transfer(address, shown, directory / part, on_progress)
                transfer.run(_digest_of(reference, part, name))
    return directory / split_parts(name)[0]


def url_directory(reference: ModelReference) -> Path:
    """Where in the store the model is, or would be."""
    return _place(reference)[0]


def recorded_sha256(file: Path) -> str | None:
    """The checksum that a file of the store had when it came."""
    value = _record(file).get("sha256")
    return value if isinstance(value, str) else None


class _Transfer:
    """One file on its way into the store; the caller holds the lock."""

    def __init__(self, url: str, shown: str, target: Path, on_progress: ProgressCallback | None) -> None:
        self._url = url
        self._shown = shown
        self._target = target
        self._part = target.with_name(f"{target.name}.part")
        self._on_progress = on_progress

    def run(self, sha256: str | None) -> None:
        if _is_complete(self._target, sha256):
            return
        failures = 0
        while not self._has_all():
            before = _size_bytes(self._part)
            try:
                self._go_on()
            except _InterruptedError as error:
                failures = failures + 1 if _size_bytes(self._part) <= before else 1
                wait_seconds = _BACKOFF_SECONDS * 2**failures if error.wait_seconds is None else error.wait_seconds
                if wait_seconds > _MOST_WAIT_SECONDS:
                    raise self._failed(f"{error}, and the server asks to wait {wait_seconds:.0f} seconds") from error
                if failures >= _MOST_FAILURES:
                    raise self._failed(f"{error}, {failures} times in a row") from error
                time.sleep(wait_seconds)
        self._finish(sha256)

    def _has_all(self) -> bool:
        total = _record(self._target).get("size_bytes")
        return isinstance(total, int) and self._part.is_file() and _size_bytes(self._part) == total

    def _go_on(self) -> None:
        """Ask for what is missing, and write what comes."""
        validator = _record(self._target).get("validator")
        start = _size_bytes(self._part) if validator else 0
        headers = {"Accept-Encoding": "identity", "User-Agent": "localllama"}
        if start:
            # If-Range: a file that has changed since comes whole, instead of as the end of another one.
            headers |= {"Range": f"bytes={start}-", "If-Range": str(validator)}
        request = urllib.request.Request(self._url, headers=headers)  # noqa: S310  (http and https only: _place)
        try:
            response = urllib.request.build_opener(_SecureRedirects).open(request, timeout=_READ_SECONDS)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise _InterruptedError(f"no connection ({getattr(error, 'reason', error)})") from error
        with response:
            self._receive(response, start)

    def _receive(self, response: Any, start: int) -> None:
        is_rest, total = _extent(response, start)
        offset = start if is_rest else 0
        if total is not None:
            require_space(self._target.parent, total - offset)
        etag = response.headers.get("ETag")
        strong = etag if etag and not etag.startswith("W/") else None
        validator = strong or response.headers.get("Last-Modified")
        with self._part.open("ab" if is_rest else "wb", buffering=0) as file:
            _write_record(self._target, {"size_bytes": total, "validator": validator})
            done = offset
            self._report(done, total)
            while block := _next_block(response):
                _write_all(file, block)
                done += len(block)
                self._report(done, total)
        if total is None:
            _write_record(self._target, {"size_bytes": done, "validator": validator})
        elif done > total:
            self._part.unlink()
            raise _InterruptedError(f"{done} bytes came instead of {total}")
        elif done < total:
            raise _InterruptedError(f"the connection ended after {done} of {total} bytes")

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        if error.code == _UNSATISFIABLE_RANGE:
            self._part.unlink(missing_ok=True)  # what is here is no beginning of what is there
            return _InterruptedError("the file there is another one now")
        if error.code in _TEMPORARY:
            wait = error.headers.get("Retry-After", "")
            return _InterruptedError(f"HTTP {error.code}", float(wait) if wait.isdecimal() else None)
        return self._failed(f"HTTP {error.code} ({error.reason})", _LOG_IN if error.code in _REFUSED else _TRY_AGAIN)

    def _failed(self, reason: str, hint: str = _TRY_AGAIN) -> ModelNotFoundError:
        return ModelNotFoundError(f"{self._shown} could not be fetched: {reason}.", hint=hint)

    def _finish(self, sha256: str | None) -> None:
        try:
            actual = sha256_of(self._part)
            if sha256 is not None and actual != sha256:
                raise ModelCorruptError(
                    f"{self._shown} has the SHA-256 {actual}, not {sha256} as the reference says.",
                    hint="Compare the checksum with the one that its publisher gives.",
                )
            number, count = split_position(self._target.name)
            if count == 1:
                read_gguf_header(self._part)
            else:
                check_part(self._part, number, count)  # each by itself, so that the good ones stay
        except ModelCorruptError:
            self._part.unlink()
            raise
        with self._part.open("rb+") as file:
            os.fsync(file.fileno())
        _write_record(self._target, {**_record(self._target), "sha256": actual})
        os.replace(self._part, self._target)
        write_through(self._target.parent)

    def _report(self, done_bytes: int, total_bytes: int | None) -> None:
        if self._on_progress is not None:
            self._on_progress(FetchProgress(self._shown, self._target.name, done_bytes, total_bytes))


def _place(reference: ModelReference) -> tuple[Path, str]:
    """The model's directory in the store, and its file's name."""
    assert reference.url is not None
    parts = urlsplit(reference.url)
    name = unquote(parts.path.rpartition("/")[2])
    shown = shown_url(urlsplit(reference.url))
    if parts.username or parts.password:
        raise ConfigurationError(
            f"The address {shown} has a user name or password in it.",
            hint="Download the file yourself and give its path, so that no secret is in a model's name.",
        )
    if not parts.hostname or not name.lower().endswith(".gguf") or "/" in name or not is_safe_name(name):
        page = _HUB_PAGE.fullmatch(f"{parts.hostname}{parts.path}")
        instead = f" Name a model on Hugging Face as 'hf:{page[1]}'." if page else ""
        raise ConfigurationError(
            f"{shown} is not the address of a GGUF file.",
            hint=f"Give the direct address; it ends in '.gguf'.{instead}",
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and reference.sha256 is None:
        raise ConfigurationError(
            f"{shown} is not encrypted: anybody between could send another file.",
            hint="Use https, or add '#sha256=' and the checksum.",
        )
    key = hashlib.sha256(reference.url.encode()).hexdigest()[:32]
    return store_directory() / "urls" / key, name


def _digest_of(reference: ModelReference, part: str, name: str) -> str | None:
    return reference.sha256 if part == name else None


def _is_complete(target: Path, sha256: str | None) -> bool:
    record = _record(target)
    known = record.get("sha256")
    if not target.is_file() or known is None or (sha256 is not None and known != sha256):
        return False
    return _size_bytes(target) == record.get("size_bytes")


def _record(target: Path) -> dict[str, Any]:
    try:
        value = json.loads(target.with_name(f"{target.name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_record(target: Path, values: dict[str, Any]) -> None:
    write_json(target.with_name(f"{target.name}.json"), values)


def _extent(response: Any, start: int) -> tuple[bool, int | None]:
    """Whether the body goes on at `start`, and the size of the whole file."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status == http.client.PARTIAL_CONTENT:
        if match is None or int(match[1]) != start:
            raise ModelError("The server sent another part of the file than the one asked for.", hint="Try again.")
        return True, int(match[2])
    length = response.headers.get("Content-Length", "")
    return False, int(length) if length.isdecimal() else None


def _next_block(response: Any) -> bytes:
    try:
        block: bytes = response.read1(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedError(f"the connection broke ({error})") from error
    return block


def _write_all(file: IO[bytes], block: bytes) -> None:
    """Write all of a block: an unbuffered file may take a part of it, as when the disk is nearly full."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
