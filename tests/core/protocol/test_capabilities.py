"""`/props` of different builds."""

from __future__ import annotations

from typing import Any

import pytest

from localllama import MalformedResponseError, ServerInfo, TemplateCapabilities
from localllama._protocol.capabilities import parse_props

B11434 = {
    "default_generation_settings": {"params": {"seed": 1}, "n_ctx": 512},
    "total_slots": 2,
    "model_alias": "micro",
    "model_path": "/models/micro.gguf",
    "modalities": {"vision": True, "video": False, "audio": False},
    "chat_template": "{{ messages }}",
    "chat_template_caps": {
        "supports_object_arguments": False,
        "supports_parallel_tool_calls": False,
        "supports_preserve_reasoning": False,
        "supports_reasoning_effort": False,
        "supports_string_content": True,
        "supports_system_role": True,
        "supports_tool_calls": True,
        "supports_tools": True,
        "supports_typed_content": False,
    },
    "build_info": "b11434-abc",
}


def test_a_build_of_today() -> None:
    assert parse_props(B11434) == ServerInfo(
        n_ctx=512,
        total_slots=2,
        model_alias="micro",
        build_info="b11434-abc",
        supports_vision=True,
        template=TemplateCapabilities(supports_tools=True, supports_tool_calls=True),
        chat_template="{{ messages }}",
    )


def test_an_old_build() -> None:
    props = {"default_generation_settings": {"n_ctx": 2048, "model": "x"}, "total_slots": 1, "chat_template": "t"}
    assert parse_props(props) == ServerInfo(n_ctx=2048, chat_template="t")


@pytest.mark.parametrize(
    ("caps", "expected"),
    [
        ({"requires_typed_content": True}, True),
        ({"supports_string_content": False, "supports_typed_content": True}, True),
        ({"supports_string_content": True, "supports_typed_content": True}, False),
        ({"supports_string_content": False}, False),
    ],
)
def test_typed_content_under_both_names(caps: dict[str, Any], expected: bool) -> None:
    props = {**B11434, "chat_template_caps": caps}
    assert parse_props(props).template.requires_typed_content is expected


def test_odd_fields_have_no_effect() -> None:
    props = {
        "default_generation_settings": {"n_ctx": 8},
        "total_slots": "x",
        "modalities": [],
        "chat_template_caps": {"supports_tools": "yes"},
        "build_info": 7,
    }
    assert parse_props(props) == ServerInfo(n_ctx=8)


@pytest.mark.parametrize(
    "obj", [None, [], "x", {}, {"default_generation_settings": {"n_ctx": "8"}}, {"default_generation_settings": {"n_ctx": 0}}]
)  # fmt: skip
def test_something_else_is_refused(obj: Any) -> None:
    with pytest.raises(MalformedResponseError, match="n_ctx"):
        parse_props(obj)
