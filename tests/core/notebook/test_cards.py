"""What a notebook shows of a client and of both wrappers' models: right, harmless, and without a start."""

from __future__ import annotations

import builtins
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langchain_localllama import ChatLocalLlama
from llamaindex_localllama import LocalLlama
from localllama import (
    AsyncLocalLlamaClient,
    ChatRequest,
    LocalLlamaClient,
    Message,
    SamplingSettings,
    ServerSettings,
)

Make = Callable[..., Any]


def new_client(**settings: Any) -> LocalLlamaClient:
    return LocalLlamaClient(ServerSettings(**settings))


def new_async_client(**settings: Any) -> AsyncLocalLlamaClient:
    return AsyncLocalLlamaClient(ServerSettings(**settings))


KINDS = pytest.mark.parametrize("make", [new_client, new_async_client, ChatLocalLlama, LocalLlama])
SYNC = pytest.mark.parametrize("make", [new_client, ChatLocalLlama, LocalLlama])


def rows(shown: str) -> dict[str, str]:
    return dict(re.findall(r"<th[^>]*>(.*?)</th><td[^>]*>(.*?)</td>", shown))


def answer(model: Any) -> None:
    if isinstance(model, ChatLocalLlama):
        model.invoke("Hello", max_tokens=8)
    elif isinstance(model, LocalLlama):
        model.complete("Hello", max_tokens=8)
    else:
        model.chat(ChatRequest((Message("user", "Hello"),)), sampling=SamplingSettings(max_tokens=8))


@KINDS
def test_a_model_that_was_not_used_is_not_started(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(model="owner/model:Q4_K_M", n_ctx=2048)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a file was opened")

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "open", refuse)
        patched.setattr(os, "open", refuse)
        shown = rows(model._repr_html_())
    assert shown == {
        "model": "owner/model:Q4_K_M",
        "quantization": "Q4_K_M",
        "context window": "2048 tokens",
        "runtime": "auto",
        "state": "not started",
    }


@SYNC
def test_a_model_in_use_shows_its_server(make: Make, micro_model: Path) -> None:
    with make(model=str(micro_model), runtime="embedded") as model:
        answer(model)
        html = model._repr_html_()
        shown = rows(html)
        assert f"<caption>{type(model).__name__}</caption>" in html
        assert shown["model"] == str(micro_model)
        assert shown["quantization"]
        assert re.fullmatch(r"\d+ tokens", shown["context window"])
        assert "xllamacpp" in shown["runtime"]
        assert re.fullmatch(r"running, process \d+", shown["state"])
        assert re.fullmatch(r"\d+ MB", shown["memory"])
        assert re.fullmatch(r"\d+\.\d tokens per second", shown["speed so far"])
    assert rows(model._repr_html_())["state"] == "closed"


@KINDS
def test_names_are_text_and_no_html(make: Make) -> None:
    shown = make(model='./<img src=x onerror="alert(1)">.gguf')._repr_html_()
    assert "<img" not in shown
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;" in shown


@KINDS
def test_no_secret_is_shown(make: Make) -> None:
    model = make(base_url="http://user:hidden1@localhost:1/?key=hidden2", api_key="hidden3", env={"A": "hidden4"})
    shown = model._repr_html_()
    assert "hidden" not in shown
    assert rows(shown) == {"model": "http://localhost:1/", "state": "elsewhere"}


def test_no_prompt_is_shown(micro_model: Path) -> None:
    with LocalLlama(model=str(micro_model), system_prompt="hidden", chat_template="{{ messages[0].content }}") as model:
        model.complete("hidden too", max_tokens=4)
        assert "hidden" not in model._repr_html_()
        assert "messages" not in model._repr_html_()


def test_whatever_fails_the_cell_does_not(micro_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("gone")

    model = new_client(model=str(micro_model))
    monkeypatch.setattr(type(model._connection), "running", fail)
    assert rows(model._repr_html_()) == {"state": "not known: RuntimeError"}
