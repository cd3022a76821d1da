"""Asks Hugging Face: again while it is busy, within bounds, and with errors that say in a user's words what is wrong."""

from __future__ import annotations

import errno
import itertools
import re
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from localllama.errors import LocalLlamaError, ModelError, ModelNotFoundError

from .hub_neighbours import near_repositories
from .progress import FetchProgress, ProgressCallback
from .reference import ModelReference

__all__ = ["CACHE_REMEDY", "TIMEOUT_SECONDS", "ask"]

TIMEOUT_SECONDS = 10.0
"""For answers that carry no file."""
CACHE_REMEDY = "Free some space, or give another directory in the environment variable HF_HOME."

_MOST_TRIES = 4
_BACKOFF_SECONDS = 0.5
_MOST_WAIT_SECONDS = 30.0
_TEMPORARY = (408, 429, 500, 502, 503, 504)
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_HTTP_LIBRARIES = ("hf_xet", "httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3")
# By name, since the HTTP library differs between releases of huggingface_hub.
_LOST_CONNECTIONS = ("NetworkError", "RemoteProtocolError", "TimeoutException", "ConnectionError", "Timeout")
_DISK_ERRORS = {
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "EIO", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")
    if hasattr(errno, name)
}
_QUERY = re.compile(r"\?[^\s'\"]+")
_HOW_TO_LOG_IN = "set HF_TOKEN or run 'hf auth login'"
_NETWORK_HINT = "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give the path of a GGUF file."

T = TypeVar("T")


def ask(
    reference: ModelReference,
    call: Callable[[], T],
    on_progress: ProgressCallback | None = None,
    *,
    passing: tuple[type[Exception], ...] = (),
) -> T:
    """Make a call of huggingface_hub; what may be over in a moment is tried again.

    A hub that asks for a longer wait than we are ready for is not asked again before its time.

    Raises:
        ModelNotFoundError: There is no such repository, no access or no network, or the hub stays busy.
        ModelError: The cache cannot be written.
    """
    passed: tuple[type[Exception], ...] = (LocalLlamaError, *passing)
    for tries in itertools.count(1):
        try:
            return call()
        except passed:
            raise
        except Exception as error:
            cause = _cause(error)
            wait_seconds = _wait_seconds(cause, tries)
            if tries == _MOST_TRIES or wait_seconds is None or wait_seconds > _MOST_WAIT_SECONDS:
                explained = _explained(reference, cause, tries)
                if explained is None:
                    raise
                # A cause is printed with its error, so one that quotes the token is not attached.
                raise explained from (None if _is_telling(error) else error)
        if on_progress is not None:
            on_progress(FetchProgress(reference.text, "Hugging Face (waiting to ask again)", 0, None))
        time.sleep(wait_seconds)
    raise AssertionError("itertools.count ended")


def _cause(error: Exception) -> Exception:
    """What "not in the cache" hides: the library says so whenever it could not ask the hub."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _wait_seconds(error: Exception, tries: int) -> float | None:
    """How long to wait before the next try; None if it would be of no use."""
    backoff_seconds = _BACKOFF_SECONDS * 2**tries
    if _status(error) in _TEMPORARY:
        asked = _retry_after(error)
        return backoff_seconds if asked is None else asked
    is_lost = any(base.__name__ in _LOST_CONNECTIONS for base in type(error).__mro__)
    return backoff_seconds if is_lost and _is_foreign(error) else None


def _status(error: Exception) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _retry_after(error: Any) -> float | None:
    wanted = error.response.headers.get("Retry-After", "")
    return float(wanted) if wanted.isdecimal() else None


def _is_foreign(error: Exception) -> bool:
    return type(error).__module__.split(".")[0] in _HTTP_LIBRARIES


def _is_of_xet(error: Exception) -> bool:
    """Whether it is what the compiled hf_xet raises for all faults: a RuntimeError, from a frame of huggingface_hub."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    where = str(frames[-1].f_globals.get("__name__", "")) if frames else ""
    return isinstance(error, RuntimeError) and where.startswith("huggingface_hub.")


def _explained(reference: ModelReference, error: Exception, tries: int) -> ModelError | None:
    """The error in our words; None if it is no fault of the hub, the network or the disk."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        hint = "Unset HF_HUB_OFFLINE to fetch it, or give the path of a GGUF file."
        return _failed(reference, "HF_HUB_OFFLINE forbids to ask for what is not in the cache", hint)
    if isinstance(error, errors.GatedRepoError):
        hint = f"Accept them on the page of {reference.repo}, then {_HOW_TO_LOG_IN}."
        return _failed(reference, "its owner asks you to accept terms first", hint)
    if isinstance(error, errors.RepositoryNotFoundError):
        near = near_repositories(reference)
        meant = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        hint = f"{meant}Check the spelling; for a private repository {_HOW_TO_LOG_IN}."
        return _failed(reference, f"there is no repository {reference.repo}, or it is private", hint)
    status = _status(error)
    if status is not None:
        return _refused(reference, error, status, tries)
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return ModelError(
            f"The cache of Hugging Face cannot be written while {reference.text!r} is fetched: "
            f"{error.strerror or error}" + (f" ({error.filename})." if error.filename else "."),
            hint=CACHE_REMEDY,
        )
    if _is_foreign(error) or _is_of_xet(error) or isinstance(error, OSError | errors.HFValidationError):
        return _failed(reference, _first_line(error), _NETWORK_HINT)
    if _is_telling(error):  # such as a token with a character that no header may have
        return _failed(reference, "the token cannot be sent", "Check HF_TOKEN, or run 'hf auth login'.")
    return None


def _refused(reference: ModelReference, error: Exception, status: int, tries: int) -> ModelNotFoundError:
    if status == _UNAUTHORIZED:
        return _failed(reference, f"the hub does not take the token (HTTP {status})", f"To give one, {_HOW_TO_LOG_IN}.")
    if status == _FORBIDDEN:
        hint = f"To give a token that may read it, {_HOW_TO_LOG_IN}."
        return _failed(reference, f"the hub refuses access (HTTP {status})", hint)
    if status not in _TEMPORARY:
        return _failed(reference, _first_line(error), _NETWORK_HINT)
    wanted = _retry_after(error)
    if wanted is not None and wanted > _MOST_WAIT_SECONDS:
        what = f"the hub answers HTTP {status} and asks to wait {wanted:.0f} seconds"
    else:
        what = f"the hub answers HTTP {status}, {tries} times in a row"
    return _failed(reference, what, "Try again later; a token raises the limits: " + _HOW_TO_LOG_IN + ".")


def _failed(reference: ModelReference, what: str, hint: str) -> ModelNotFoundError:
    return ModelNotFoundError(f"{reference.text!r} could not be fetched from Hugging Face: {what}.", hint=hint)


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if _is_telling(error):
        line = "the request could not be sent; check HF_TOKEN"
    return _QUERY.sub("?...", line)  # the query of a signed address is a secret


def _is_telling(error: Exception) -> bool:
    """Whether an error, or one that led to it, quotes the token."""
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        return False
    forms = (token, token.encode().decode("latin-1"), ascii(token)[1:-1])
    return any(form in text for text in _texts(error) for form in forms)


def _texts(error: BaseException) -> Iterator[str]:
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        seen.append(found)
        yield from (str(found), repr(found))
        found = found.__cause__ or found.__context__
