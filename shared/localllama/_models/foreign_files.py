"""Says what a file is that is not GGUF, so that the error can say what probably happened."""

from __future__ import annotations

__all__ = ["PROBE_BYTES", "describe_foreign_file"]

PROBE_BYTES = 512
"""How much of the file's beginning is looked at."""

_DOWNLOAD_AGAIN = "Download the file again"
_CONVERT = "Convert it with llama.cpp's convert_hf_to_gguf.py, or look for a GGUF version of the model"

_MARKUP = (b"<!doctype html", b"<html", b"<head", b"<!--", b"<body")
_LEGACY_MAGICS = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla"}
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive, such as a PyTorch checkpoint or a wheel",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
}


def describe_foreign_file(head: bytes) -> tuple[str, str]:
    """What a file that does not begin with "GGUF" is, and what to do.

    Args:
        head: Its first `PROBE_BYTES` bytes, fewer if it is shorter.

    Returns:
        A phrase that continues "the file ...", and the remedy as an imperative sentence.
    """
    return (
        _described_by_magic(head)
        or _described_by_text(head)
        or (
            f"begins with the bytes {head[:8].hex(' ')}, not with 'GGUF'",
            _DOWNLOAD_AGAIN,
        )
    )


def _described_by_magic(head: bytes) -> tuple[str, str] | None:
    if head[:4] in _LEGACY_MAGICS:
        name = _LEGACY_MAGICS[head[:4]]
        return f"is in the old {name} format, which llama.cpp no longer reads", "Look for a GGUF version of the model"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32:
        return "is a safetensors file", _CONVERT
    for magic, name in _ARCHIVES.items():
        if head.startswith(magic):
            return f"is {name}", "Unpack it and give the .gguf file inside, if there is one"
    if head[:2] in _PICKLES:
        return "is a Python pickle, such as an old PyTorch checkpoint", _CONVERT
    if not head.strip(b"\0"):
        return "begins with zero bytes only: a download that was never written", _DOWNLOAD_AGAIN
    return None


def _described_by_text(head: bytes) -> tuple[str, str] | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_MARKUP):
        return (
            "is an HTML page: the download was probably a login or error page",
            f"{_DOWNLOAD_AGAIN}, from a direct link to the .gguf file",
        )
    if text.startswith(b"<?xml"):
        return "is an XML document, probably the error message of a download", _DOWNLOAD_AGAIN
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the model itself", "Run 'git lfs pull' in its repository"
    if text.startswith((b"{", b"[")):
        return "is JSON text: a manifest, or the error message of a download", _DOWNLOAD_AGAIN
    if head.isascii() and all(chr(byte).isprintable() or byte in b"\t\r\n" for byte in head):
        return f"is text that begins with {head[:40].decode('ascii')!r}", _DOWNLOAD_AGAIN
    return None
