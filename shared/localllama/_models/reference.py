"""Parses model references: the ways to name a model."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit
from urllib.request import url2pathname

from localllama.errors import ConfigurationError

from .catalog import CATALOG
from .hub_models import HUB_MODELS
from .names import is_safe_name
from .own_models import OwnModel, is_own_name, own_model, own_models_path

__all__ = ["REFERENCE_FORMS", "ModelReference", "parse_reference", "shown_url"]

REFERENCE_FORMS = (
    "a path such as './model.gguf', 'pkg:package/file.gguf', 'owner/repo:QUANT' or 'hf:owner/repo/file.gguf' "
    "for Hugging Face, or a catalog name such as 'smollm2-135m'"
)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_PACKAGE = re.compile(r"(?P<package>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)/(?P<file>.+)", re.ASCII)
_HUB_NAME = r"[A-Za-z0-9][\w.-]*"
_HUB = re.compile(
    rf"(?P<repo>{_HUB_NAME}/{_HUB_NAME})(?:/(?P<file>[^:]+\.gguf)|:(?P<quant>[\w.-]+))?", re.ASCII | re.IGNORECASE
)
_CATALOG_NAME = re.compile(r"[\w.+:-]+")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class ModelReference:
    """A parsed reference; only the fields of its kind are set.

    Attributes:
        text: As the user wrote it.
        kind: Which form it has.
        path: "path": the path, `~` expanded, otherwise as written.
        package: "package": the dotted name of an importable package.
        file: "package": the file's path below the package, with "/"; "hub": the file in the repository, or None.
        name: "catalog": the name.
        repo: "hub": "owner/repo".
        quantization: "hub": such as "Q4_K_M", or None to let the repository's files decide.
        url: "url": without the fragment.
        sha256: "url": the digest of the fragment `#sha256=`, lower case, or None.
        n_ctx: The context window that a name of the user's asks for, in tokens, or None.
    """

    text: str
    kind: Literal["path", "package", "catalog", "hub", "url"]
    path: str | None = None
    package: str | None = None
    file: str | None = None
    name: str | None = None
    repo: str | None = None
    quantization: str | None = None
    url: str | None = None
    sha256: str | None = None
    n_ctx: int | None = None


def parse_reference(text: str) -> ModelReference:
    """Parse a model reference.

    A catalog name, or one of the user's own, is never taken for a path, so what it means does not depend on the current directory. `owner/repo`
    is a path only if there is such a file; everything that ends in ".gguf" is a path unless it has a prefix.

    Raises:
        ConfigurationError: It has none of the forms.
    """
    if not text.strip():
        raise ConfigurationError("The model reference is empty.", hint=f"Give {REFERENCE_FORMS}.")
    if any(ord(character) < ord(" ") for character in text):
        raise ConfigurationError(
            f"The model reference {text!r} has a control character in it.", hint=f"Give {REFERENCE_FORMS}."
        )
    if text.startswith("pkg:"):
        return _package(text)
    if text.startswith("hf:"):
        return _hub(text, text.removeprefix("hf:"))
    if _SCHEME.match(text):
        return _with_scheme(text)
    own = own_model(text)
    if own is not None:
        return _own_name(text, own)
    return _without_prefix(text)


def _without_prefix(text: str) -> ModelReference:
    if text.lower() in CATALOG or text.lower() in HUB_MODELS:
        return _short_name(text)
    if _looks_like_path(text) or (os.access(text, os.F_OK) and Path(text).is_file()):
        return ModelReference(text, "path", path=_expanded(text))
    if _HUB.fullmatch(text):
        return _hub(text, text)
    if _CATALOG_NAME.fullmatch(text):
        return ModelReference(text, "catalog", name=text)
    return ModelReference(text, "path", path=_expanded(text))


def _own_name(text: str, own: OwnModel) -> ModelReference:
    # A name of the user's stands for anything but another one, so there are no circles.
    meant = _without_prefix(own.reference) if is_own_name(own.reference) else parse_reference(own.reference)
    if meant.kind == "path" and not Path(str(meant.path)).is_absolute():
        raise ConfigurationError(
            f"{own.name!r} stands for {own.reference!r} in {own_models_path()}, which means another file in each directory.",
            hint="Write the absolute path there.",
        )
    return replace(meant, text=text, n_ctx=own.n_ctx)


def _short_name(text: str) -> ModelReference:
    name = text.lower()
    if name in HUB_MODELS:
        return _hub(text, HUB_MODELS[name].reference)
    return ModelReference(text, "catalog", name=name)


def _looks_like_path(text: str) -> bool:
    return (
        text.startswith(("/", ".", "~"))
        or "\\" in text
        or text.lower().endswith(".gguf")
        or _DRIVE.match(text) is not None
    )


def _expanded(text: str) -> str:
    # Not Path.expanduser: that raises RuntimeError where there is no home directory.
    return os.path.expanduser(text)  # noqa: PTH111


def _package(text: str) -> ModelReference:
    match = _PACKAGE.fullmatch(text.removeprefix("pkg:"))
    if match is None or not is_safe_name(match["file"]):
        raise ConfigurationError(
            f"{text!r} does not name a file in a package.", hint="Write it as 'pkg:package/file.gguf'."
        )
    return ModelReference(text, "package", package=match["package"], file=match["file"])


def _hub(text: str, rest: str) -> ModelReference:
    match = _HUB.fullmatch(rest)
    if match is None or not is_safe_name(match["file"] or "m.gguf") or ".." in rest.split("/"):
        raise ConfigurationError(
            f"{text!r} does not name a model on Hugging Face.",
            hint="Write it as 'owner/repo', 'owner/repo:Q4_K_M' or 'hf:owner/repo/file.gguf'.",
        )
    return ModelReference(text, "hub", repo=match["repo"], file=match["file"], quantization=match["quant"])


def shown_url(parts: SplitResult) -> str:
    """An address without what may be a secret: the user's name and password, the query."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _with_scheme(text: str) -> ModelReference:
    try:
        parts = urlsplit(text)
        _ = parts.port  # read from the text only now
    except ValueError as error:
        raise ConfigurationError(
            f"The model's address cannot be read: {error}.", hint="Write it as 'https://host/model.gguf'."
        ) from error
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ConfigurationError(
                f"{text!r} names a file on the host {parts.netloc!r}.",
                hint="A file on this machine has three slashes: 'file:///path/model.gguf'.",
            )
        return ModelReference(text, "path", path=url2pathname(parts.path))
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"{text!r} has an unknown scheme.", hint=f"Give {REFERENCE_FORMS}.")
    digest = parts.fragment.removeprefix("sha256=") if parts.fragment else None
    if digest is not None and not _SHA256.fullmatch(digest):
        raise ConfigurationError(
            f"{shown_url(parts)} has a fragment that is not a checksum.",
            hint="Write '#sha256=' and 64 hexadecimal digits.",
        )
    return ModelReference(
        text, "url", url=parts._replace(fragment="").geturl(), sha256=digest.lower() if digest else None
    )
