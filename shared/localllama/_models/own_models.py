"""The short names that the user gives to models: `models.json` in the configuration directory.

    {
      "mine": {"reference": "owner/repo:Q4_K_M", "context": 8192, "license": "MIT", "description": "for my notes"}
    }

Only "reference" must be there. "context" is the window where the program sets no `n_ctx`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllama.errors import ConfigurationError
from localllama.settings import nearest_name_hint

from .catalog import CATALOG
from .hub_models import HUB_MODELS

__all__ = ["OwnModel", "config_directory", "is_own_name", "own_model", "own_models_path", "read_own_models"]

_DIRECTORY_VARIABLE = "LOCALLLAMA_CONFIG_DIR"
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*", re.IGNORECASE | re.ASCII)
_KEYS: Mapping[str, type] = {"reference": str, "context": int, "license": str, "description": str}


@dataclass(frozen=True)
class OwnModel:
    """A name that the user gave.

    Attributes:
        name: The short name, as it was written.
        reference: What it stands for.
        n_ctx: The context window where the program sets none, in tokens, or None.
        licence: Of the weights, for people.
        description: One line for people.
    """

    name: str
    reference: str
    n_ctx: int | None = None
    licence: str = ""
    description: str = ""


def config_directory() -> Path:
    """`LOCALLLAMA_CONFIG_DIR`, else the user's configuration directory."""
    chosen = os.environ.get(_DIRECTORY_VARIABLE)
    if chosen:
        return Path(os.path.expanduser(chosen)).absolute()  # noqa: PTH111  (a home that is unknown is no error)
    from platformdirs import user_config_path

    return user_config_path("localllama", appauthor=False)


def own_models_path() -> Path:
    """The file with the user's own names."""
    return config_directory() / "models.json"


def is_own_name(text: str) -> bool:
    """Whether a text could be a name that the user gives: letters, digits, and "._+-" inside; not the name of a file."""
    return _NAME.fullmatch(text) is not None and not text.lower().endswith(".gguf")


def own_model(text: str) -> OwnModel | None:
    """What the user means by a short name; None if it is none of theirs.

    Raises:
        ConfigurationError: The file is broken.
    """
    return read_own_models().get(text.lower()) if is_own_name(text) else None


def read_own_models() -> dict[str, OwnModel]:
    """Every name of the user's, by its lower-case form; empty if there is no file.

    Raises:
        ConfigurationError: The file is broken; names the file, the line and what is wrong.
    """
    path = own_models_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", hint="Correct it, or remove it.") from error
    try:
        value = json.loads(text, object_pairs_hook=_object_without_doubles)
    except json.JSONDecodeError as error:
        raise _fault(path, error.lineno, f"column {error.colno}: {error.msg}") from error
    except _DoubleKeyError as error:
        last = text.rfind(json.dumps(error.key, ensure_ascii=False))
        raise _fault(path, _line_at(text, max(last, 0)), f"{error.key!r} is there twice") from error
    if not isinstance(value, dict):
        raise _fault(path, 1, "the file is not a JSON object with a name for each model")
    models: dict[str, OwnModel] = {}
    for name, entry in value.items():
        try:
            model = _checked(name, entry)
            if name.lower() in models:
                raise ValueError(f"{name!r} is there twice, in capitals and small letters")
        except ValueError as error:
            raise _fault(path, _line_of(text, name), str(error)) from error
        models[name.lower()] = model
    return models


class _DoubleKeyError(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _object_without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise _DoubleKeyError(key)
        value[key] = item
    return value


def _checked(name: str, entry: Any) -> OwnModel:
    """The entry, or a `ValueError` that says what is wrong with it."""
    if not is_own_name(name):
        raise ValueError(f"{name!r} cannot be a name: use letters, digits and '._+-', no '.gguf' at the end")
    if name.lower() in CATALOG or name.lower() in HUB_MODELS:
        raise ValueError(f"{name!r} is a name of the catalog already: give yours another")
    if not isinstance(entry, dict) or "reference" not in entry:
        raise ValueError(f'{name!r} is no entry: write {{"reference": "owner/repo:Q4_K_M"}}')
    for key, value in entry.items():
        if key not in _KEYS:
            near = nearest_name_hint(key, _KEYS)
            raise ValueError(
                f"{name!r} has the unknown key {key!r}: " + (f"did you mean {near!r}?" if near else _known_keys())
            )
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            kind = "a whole number" if _KEYS[key] is int else "a text"
            raise ValueError(f"{key!r} of {name!r} is {value!r}, not {kind}")
    if not entry["reference"].strip():
        raise ValueError(f"the reference of {name!r} is empty")
    if entry.get("context", 1) < 1:
        raise ValueError(f"the context of {name!r} is {entry['context']}: give 1 or more")
    return OwnModel(
        name, entry["reference"], entry.get("context"), entry.get("license", ""), entry.get("description", "")
    )


def _known_keys() -> str:
    return "the keys are " + ", ".join(map(repr, _KEYS))


def _fault(path: Path, line: int, what: str) -> ConfigurationError:
    return ConfigurationError(f"{path}, line {line}: {what}.", hint="Correct the file, or remove it.")


def _line_of(text: str, key: str) -> int:
    match = re.search(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:", text)
    return _line_at(text, match.start()) if match else 1


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
