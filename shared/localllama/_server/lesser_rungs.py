"""What is said, once, of the rungs that do less than a llama.cpp server: one-shot programs, and the mock."""

from __future__ import annotations

import warnings

from localllama._runtime.probe import one_shot_form
from localllama._runtime.runtime import Runtime
from localllama.errors import LocalLlamaWarning, UnsupportedFeatureError
from localllama.settings import ServerSettings

__all__ = ["refuse_open_port", "warn_of_rung"]

_BETTER = 'pip install "localllama[runtime]" brings a server.'


def refuse_open_port(runtime: Runtime, settings: ServerSettings) -> None:
    """Refuse the new `llama-cli` where no port may be opened.

    Raises:
        UnsupportedFeatureError: It is that program, and the settings forbid it.
    """
    if runtime.kind != "one-shot" or one_shot_form(runtime) != "new-cli":
        return
    if not settings.allow_open_port or settings.listen == "unix":
        reason = "allow_open_port=False" if not settings.allow_open_port else "listen='unix'"
        raise UnsupportedFeatureError(
            f"{runtime.origin} opens a loopback port without a key while it answers, which {reason} forbids.",
            hint=f"Install llama-completion, which opens none, or a server: {_BETTER}",
        )


def warn_of_rung(runtime: Runtime, settings: ServerSettings, warned_about: set[tuple[str, ...]]) -> None:
    """Tell the user, once, that answers come from a lesser rung.

    Args:
        runtime: What has just started.
        settings: The user's.
        warned_about: The commands that the user was told of; a new one is added.
    """
    words = _words(runtime, settings)
    if words and ("said", *runtime.command) not in warned_about:
        warned_about.add(("said", *runtime.command))
        warnings.warn(words, LocalLlamaWarning, stacklevel=2)


def _words(runtime: Runtime, settings: ServerSettings) -> str | None:
    if runtime.kind == "mock":
        return "These answers come from the mock, not from a model: allow_mock is set, and nothing better is used."
    if runtime.kind != "one-shot":
        return None
    if one_shot_form(runtime) == "new-cli":
        return (
            f"{runtime.origin} is used, which loads the model for each call and, while it answers, listens on a loopback "
            f"port without a key: any user of this machine can reach it. allow_open_port=False forbids that. {_BETTER}"
        )
    if settings.runtime == "auto":
        return (
            f"No llama.cpp server works here, so {runtime.origin} is used: it loads the model for each call. {_BETTER}"
        )
    return None
