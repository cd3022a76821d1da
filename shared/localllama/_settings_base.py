"""What all settings are: frozen, strict about names, and wrong values are a `ConfigurationError`; part of `settings`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from .errors import ConfigurationError

__all__ = ["FrozenSettings", "PathText", "configuration_error", "nearest_name_hint"]


_NAMES_ELSEWHERE = {
    "api_base": "base_url",
    "context_window": "n_ctx",
    "f16_kv": "cache_type_k",
    "format": "json_schema",
    "generate_kwargs": "extra_body",
    "json_mode": "json_schema",
    "keep_alive": "idle_timeout_seconds",
    "last_n_tokens_size": "repeat_last_n",
    "max_new_tokens": "max_tokens",
    "model_path": "model",
    "model_url": "model",
    "num_ctx": "n_ctx",
    "num_gpu": "n_gpu_layers",
    "num_predict": "max_tokens",
    "num_thread": "n_threads",
    "openai_api_base": "base_url",
    "request_timeout": "timeout",
    "rope_freq_base": "extra_args",
    "thinking": "reasoning",
    "use_mlock": "extra_args",
    "use_mmap": "extra_args",
}
"""What the classes for Ollama, llama-cpp-python and OpenAI call a thing, and what it is called here."""


def nearest_name_hint(name: str, names: Iterable[str]) -> str | None:
    """The real name nearest to a misspelt one, or to that of another package; None if none is near."""
    known = list(names)
    if _NAMES_ELSEWHERE.get(name) in known:
        return _NAMES_ELSEWHERE[name]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return close[0] if close else None


PathText = Annotated[
    str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value), Field(min_length=1)
]


class FrozenSettings(BaseModel):
    # `hide_input_in_errors`: a traceback would show the wrong value of a key.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Any:
        """Validate `values`; a `ConfigurationError` names each wrong value and the remedy.

        Raises:
            ConfigurationError: An unknown name, or a value out of range.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise configuration_error(cls, error) from error

    def with_changes(self, changes: Mapping[str, Any]) -> Any:
        """A validated copy with `changes` applied.

        Raises:
            ConfigurationError: An unknown name, or a value out of range.
        """
        return type(self).build({**{name: getattr(self, name) for name in self.model_fields_set}, **changes})


def configuration_error(cls: type[BaseModel], error: ValidationError) -> ConfigurationError:
    """What pydantic found wrong, as our error: each wrong value, and the nearest real name of an unknown one."""
    messages: list[str] = []
    hints: list[str] = []
    for item in _one_of_each_union(cls, error):
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            near = nearest_name_hint(name, cls.model_fields)
            messages.append(f"unknown argument {name!r}")
            names = ", ".join(sorted(cls.model_fields))
            hints.append(f"Did you mean {near!r}?" if near else f"The names are: {names}.")
        elif not name:
            messages.append(str(item["msg"]).removeprefix("Value error, "))
        else:
            shown = "a secret" if name.split(".")[0] in ("api_key", "env") else repr(item.get("input"))
            messages.append(f"{name}={shown}: {str(item['msg']).removeprefix('Value error, ')}")
    return ConfigurationError(f"{cls.__name__}: " + "; ".join(messages), hint=" ".join(dict.fromkeys(hints)) or None)


def _one_of_each_union(cls: type[BaseModel], error: ValidationError) -> list[dict[str, Any]]:
    """What pydantic found; where it has an entry for each member of a union, under the name of its type, one for all."""
    found: list[dict[str, Any]] = []
    for item in error.errors():
        field, *inner = item["loc"] or ("",)
        if not inner or not _is_union(cls.model_fields.get(str(field))):
            found.append({**item})
            continue
        # The first name below the field is that of the member.
        message = ": ".join([*(str(name) for name in inner[1:]), item["msg"]])
        if found and found[-1]["loc"] == (field,):
            found[-1]["msg"] += f"; or: {message}"
        else:
            found.append({"type": "union", "loc": (field,), "msg": message, "input": item["input"]})
    return found


def _is_union(field: FieldInfo | None) -> bool:
    """Whether the values of a field are of one of several types, None apart."""
    if field is None:
        return False
    members = [member for member in get_args(field.annotation) if member is not type(None)]
    return get_origin(field.annotation) in (Union, UnionType) and len(members) > 1
