"""What a server says of itself: `GET /props`, read so that older and newer builds all give the same `ServerInfo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localllama.errors import MalformedResponseError
from localllama.types import ServerInfo, TemplateCapabilities

__all__ = ["parse_props"]


def parse_props(obj: Any) -> ServerInfo:
    """Read the decoded body of `/props`.

    A field that this build does not send gets the value of `ServerInfo`'s default.

    Raises:
        MalformedResponseError: This is not what a llama-server sends: there is no context window in it.
    """
    props = _mapping(obj)
    n_ctx = _integer(_mapping(props.get("default_generation_settings")).get("n_ctx"))
    if n_ctx is None:
        n_ctx = _integer(props.get("n_ctx"))  # builds of 2023 and 2024 had it at the top
    if n_ctx is None or n_ctx < 1:
        raise MalformedResponseError(
            "/props names no context window (default_generation_settings.n_ctx)",
            hint="Check base_url: is a llama-server behind it?",
        )
    modalities = _mapping(props.get("modalities"))
    return ServerInfo(
        n_ctx=n_ctx,
        total_slots=_integer(props.get("total_slots")) or 1,
        model_alias=_text(props.get("model_alias")) or _text(props.get("model_path")),
        build_info=_text(props.get("build_info")),
        supports_vision=modalities.get("vision") is True,
        supports_audio=modalities.get("audio") is True,
        template=_template_capabilities(props.get("chat_template_caps")),
        chat_template=_text(props.get("chat_template")),
    )


def _template_capabilities(obj: Any) -> TemplateCapabilities:
    caps = _mapping(obj)

    def has(name: str, default: bool = False) -> bool:
        value = caps.get(name)
        return value if isinstance(value, bool) else default

    return TemplateCapabilities(
        supports_system_role=has("supports_system_role", default=True),
        supports_tools=has("supports_tools"),
        supports_tool_calls=has("supports_tool_calls"),
        supports_parallel_tool_calls=has("supports_parallel_tool_calls"),
        supports_preserve_reasoning=has("supports_preserve_reasoning"),
        # The name up to b8200; since then a template that takes no plain string says so the other way round.
        requires_typed_content=has("requires_typed_content")
        or (not has("supports_string_content", default=True) and has("supports_typed_content")),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
