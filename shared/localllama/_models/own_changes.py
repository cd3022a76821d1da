"""Adding and removing the user's own names of models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from localllama._whole_file import write_json
from localllama.errors import ConfigurationError, ModelNotFoundError
from localllama.settings import nearest_name_hint

from .catalog import CATALOG
from .hub_models import HUB_MODELS
from .own_models import OwnModel, is_own_name, own_models_path, read_own_models
from .reference import parse_reference
from .store import locate_model

__all__ = ["add_own_model", "remove_own_model"]


def add_own_model(model: OwnModel, *, is_replacing: bool = False) -> OwnModel:
    """Write a name into the user's file, for good; returns it as it was written. Nothing is fetched.

    A relative path becomes an absolute one, since the name is good in every directory.

    Raises:
        ConfigurationError: The name is none or taken, the file is broken, or the reference has no known form.
        ModelNotFoundError: The reference is a path, a package or a short name of nothing.
    """
    if not is_own_name(model.name):
        raise ConfigurationError(
            f"{model.name!r} cannot be a model's name.", hint="Use letters, digits and '._+-', no '.gguf' at the end."
        )
    if model.name.lower() in CATALOG or model.name.lower() in HUB_MODELS:
        raise ConfigurationError(f"{model.name!r} is a name of the catalog already.", hint="Choose another name.")
    if model.n_ctx is not None and model.n_ctx < 1:
        raise ConfigurationError(f"context={model.n_ctx}: give 1 or more tokens.")
    parsed = parse_reference(model.reference)
    if model.reference.lower() in read_own_models():
        raise ConfigurationError(
            f"{model.reference!r} is a name of your own.", hint="Give the reference that it stands for."
        )
    located = locate_model(model.reference)
    reference = str(located) if parsed.kind == "path" else model.reference
    written = OwnModel(model.name, reference, model.n_ctx, model.licence, model.description)
    with _open_for_change() as models:
        existing = models.get(model.name.lower())
        if existing is not None and not is_replacing:
            raise ConfigurationError(
                f"{existing.name!r} is yours already and stands for {existing.reference!r}.",
                hint="Replace it with --replace, or choose another name.",
            )
        models[model.name.lower()] = written
    return written


def remove_own_model(name: str) -> OwnModel:
    """Take a name out of the user's file; the model's own files stay.

    Raises:
        ModelNotFoundError: The user has no such name.
        ConfigurationError: The file is broken.
    """
    with _open_for_change() as models:
        removed = models.pop(name.lower(), None)
        if removed is None:
            near = nearest_name_hint(name.lower(), models)
            has = f"You have {', '.join(repr(model.name) for model in models.values())}." if models else None
            raise ModelNotFoundError(
                f"{name!r} is no name of your own in {own_models_path()}.",
                hint=f"Did you mean {models[near].name!r}?" if near else has,
            )
    return removed


@contextmanager
def _open_for_change() -> Iterator[dict[str, OwnModel]]:
    """The names, to be changed; written when the block ends well. One process at a time."""
    from filelock import FileLock

    path = own_models_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), mode=0o600):
            models = read_own_models()
            yield models
            write_json(path, {model.name: _as_entry(model) for model in models.values()}, indent=2)
    except OSError as error:
        if isinstance(error, ConfigurationError | ModelNotFoundError):
            raise
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}.") from error


def _as_entry(model: OwnModel) -> dict[str, Any]:
    entry = {
        "reference": model.reference,
        "context": model.n_ctx,
        "license": model.licence,
        "description": model.description,
    }
    return {key: value for key, value in entry.items() if value}
