"""Whatever is wrong with the input: a clear error with the remedy, before anything starts, within seconds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localllama import (
    ChatRequest,
    ConfigurationError,
    ContextOverflowError,
    LocalLlamaClient,
    LocalLlamaError,
    LocalLlamaWarning,
    Message,
    ModelCorruptError,
    ModelError,
    ModelNotFoundError,
    SamplingSettings,
    ServerSettings,
)

HELLO = ChatRequest((Message("user", "Hello"),))
MakeSettings = Callable[..., ServerSettings]


def ask(settings: ServerSettings) -> None:
    with LocalLlamaClient(settings, sampling=SamplingSettings(max_tokens=4)) as client:
        try:
            client.chat(HELLO)
        finally:
            assert not client.is_running


def missing(path: Path, _: bytes) -> None:
    assert not path.exists()


def directory(path: Path, _: bytes) -> None:
    path.mkdir()


def empty(path: Path, _: bytes) -> None:
    path.write_bytes(b"")


def truncated(path: Path, good: bytes) -> None:
    path.write_bytes(good[: len(good) // 2])


def random_bytes(path: Path, _: bytes) -> None:
    path.write_bytes(os.urandom(100_000))


def html(path: Path, _: bytes) -> None:
    path.write_bytes(b"<!DOCTYPE html><html><body>Please log in</body></html>")


def future_version(path: Path, good: bytes) -> None:
    path.write_bytes(good[:4] + (99).to_bytes(4, "little") + good[8:])


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (missing, ModelNotFoundError),
        (directory, ModelError),
        (empty, ModelCorruptError),
        (truncated, ModelCorruptError),
        (random_bytes, ModelCorruptError),
        (html, ModelCorruptError),
        (future_version, ModelCorruptError),
    ],
)
def test_a_broken_model_file(
    spoil: Callable[[Path, bytes], None],
    error: type[LocalLlamaError],
    micro_model: Path,
    tmp_path: Path,
    make_settings: MakeSettings,
) -> None:
    path = tmp_path / "model.gguf"
    spoil(path, micro_model.read_bytes())
    with pytest.raises(error) as caught:
        ask(make_settings(model=str(path)))
    assert str(path) in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"n_ctx": 0}, "n_ctx"),
        ({"n_ctx": -5}, "n_ctx"),
        ({"n_ctx": "many"}, "n_ctx"),
        ({"n_ctxx": 512}, "n_ctx"),
        ({"parallel": 0}, "parallel"),
        ({"temprature": 1}, "temprature"),
        ({"chat_template": "a", "chat_template_file": "b"}, "chat_template_file"),
        ({"api_key": "k"}, "base_url"),
        ({"model": ""}, "model"),
        ({"extra_args": "--one string"}, "extra_args"),
    ],
)
def test_wrong_settings_name_the_value(values: dict[str, Any], name: str, make_settings: MakeSettings) -> None:
    with pytest.raises(ConfigurationError, match=name):
        make_settings(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"n_ctx": 10_000_000},
        {"mmproj": "/nowhere/mmproj.gguf"},
        {"lora": ["/nowhere/adapter.gguf"]},
        {"chat_template_file": "/nowhere/template.jinja"},
        {"draft_model": "/nowhere/draft.gguf"},
        {"runtime": "/nowhere/llama-server"},
        {"extra_args": ["--no-such-flag"]},
        {"extra_args": ["--port", "80"]},
        {"extra_args": ["--api-key", "secret"]},
    ],
)
def test_settings_that_cannot_work_start_nothing(values: dict[str, Any], make_settings: MakeSettings) -> None:
    with pytest.raises(LocalLlamaError) as caught:
        ask(make_settings(**values))
    assert caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"max_tokens": -7}, {"max_tokens": 0}, {"temperature": -1}, {"top_p": 2}, {"temperatur": 1}]
)
def test_wrong_sampling_names_the_value(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(values))):
        SamplingSettings.build(values)


def test_a_broken_template_says_so(make_settings: MakeSettings) -> None:
    with pytest.raises(LocalLlamaError, match=r"(?i)template|jinja"):
        ask(make_settings(chat_template="{% if %}"))


def test_a_prompt_that_is_too_long_is_never_cut(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings(n_ctx=256)) as client, pytest.raises(ContextOverflowError) as caught:
        client.chat(ChatRequest((Message("user", "many words " * 200),)))
    assert caught.value.n_ctx == 256
    assert caught.value.n_prompt_tokens is not None
    assert caught.value.n_prompt_tokens > 2000
    assert "many words" not in str(caught.value)


def test_text_that_is_no_unicode_is_refused_before_it_is_sent(make_settings: MakeSettings) -> None:
    with LocalLlamaClient(make_settings()) as client, pytest.raises(ConfigurationError, match="surrogate"):
        client.chat(ChatRequest((Message("user", "half a \ud83d emoji"),)))


HARMONY = (
    "{% for m in messages %}<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}{# <|channel|> selects llama.cpp's gpt-oss parser #}"
)


def test_an_answer_that_llama_cpp_cannot_parse_is_not_lost(make_settings: MakeSettings) -> None:
    """The micro model writes nothing like what the parser of this template wants, and the server drops it all."""
    settings = make_settings(chat_template=HARMONY)
    with LocalLlamaClient(settings, sampling=SamplingSettings(max_tokens=12)) as client:
        with pytest.warns(LocalLlamaWarning, match="as the model writes it"):
            assert client.chat(HELLO).text
        with pytest.warns(LocalLlamaWarning, match="as the model writes it"):
            assert "".join(chunk.text for chunk in client.stream_chat(HELLO))
