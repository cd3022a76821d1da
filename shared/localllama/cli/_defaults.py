"""The user's configuration file, and which model is meant where none is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from localllama._models.own_models import config_directory
from localllama._whole_file import write_json
from localllama.errors import ConfigurationError

__all__ = ["DEMO_MODEL", "chosen_model", "config_path", "read_config", "set_default_model"]

DEMO_MODEL = "smollm2-135m"
_MODEL_VARIABLE = "LOCALLLAMA_MODEL"


def config_path() -> Path:
    """`config.json` in LOCALLLAMA_CONFIG_DIR, else in the user's configuration directory."""
    return config_directory() / "config.json"


def read_config() -> dict[str, Any]:
    """What the file says; empty if there is none.

    Raises:
        ConfigurationError: It is no JSON object.
    """
    path = config_path()
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", hint="Correct it, or remove it.") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path} is not a JSON object.", hint="Correct it, or remove it.")
    return value


def set_default_model(reference: str) -> Path:
    """Write the default model; the rest of the file stays. Returns the file."""
    path = config_path()
    values = {**read_config(), "model": reference}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, values, indent=2)
    return path


def chosen_model(named: str | None) -> tuple[str, str]:
    """The model to use, and where that was said: the option, LOCALLLAMA_MODEL, the file, or the model of the demo."""
    if named:
        return named, "--model"
    if os.environ.get(_MODEL_VARIABLE):
        return os.environ[_MODEL_VARIABLE], _MODEL_VARIABLE
    configured = read_config().get("model")
    if configured is not None and not isinstance(configured, str):
        raise ConfigurationError(
            f'"model" in {config_path()} is {configured!r} and no text.', hint="Set it: localllama models use MODEL"
        )
    if configured:
        return configured, str(config_path())
    return DEMO_MODEL, "the model of the demo, since none was chosen"
