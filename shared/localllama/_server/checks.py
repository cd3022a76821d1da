"""Looking at the files that the settings name, before a server is started with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from localllama.errors import ConfigurationError
from localllama.settings import PROJECTOR_OFF, ServerSettings

__all__ = ["check_setting_files"]


def check_setting_files(settings: ServerSettings) -> None:
    """See that each file named by a setting is there and can be read.

    Raises:
        ConfigurationError: Names the setting and what is wrong with its file.
    """
    for setting, path in _named_files(settings):
        fault = _fault(Path(os.path.expanduser(path)))  # noqa: PTH111  (a home that is unknown is no error)
        if fault is not None:
            raise ConfigurationError(f"{setting}={path!r}: {fault}", hint=f"Correct the path in {setting}.")


def _named_files(settings: ServerSettings) -> Iterator[tuple[str, str]]:
    for setting in ("mmproj", "chat_template_file", "draft_model"):
        path = getattr(settings, setting)
        if path is not None and (setting, path) != ("mmproj", PROJECTOR_OFF):
            yield setting, path
    for adapter in settings.lora:
        yield "lora", adapter.path


def _fault(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return None if file.read(1) else "the file is empty."
    except IsADirectoryError:
        return "it is a directory, not a file."
    except FileNotFoundError:
        return "there is no such file."
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}."
