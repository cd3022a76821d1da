"""What settings take and refuse, what they show of secrets, and which of them tell two servers apart."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from localllama import ChatRequest, LocalLlamaClient, Message, SamplingSettings, ServerSettings
from localllama.errors import ConfigurationError
from localllama.settings import LoraAdapter
from support.scripted_server import ScriptedServer

HELLO = ChatRequest((Message("user", "Hello"),))


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (ServerSettings, {"chat_template": "chatml", "chat_template_file": "a.jinja"}, "give one"),
        (ServerSettings, {"start_timeout_seconds": float("inf")}, "finite"),
        (ServerSettings, {"extra_args": "--metrics --verbose"}, "a list of strings"),
        (ServerSettings, {"parallel": 257}, "parallel=257"),
        (ServerSettings, {"api_key": "hush"}, "api_key goes with base_url"),
        (SamplingSettings, {"samplers": "top_k"}, "a list of strings"),
        (SamplingSettings, {"top_logprobs": 21}, "top_logprobs=21"),
        (SamplingSettings, {"seed": 2**32}, f"seed={2**32}"),
    ],
)
def test_what_cannot_be_meant_is_refused(kind: type[Any], values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        kind.build({"model": "m.gguf", **values} if kind is ServerSettings else values)


@pytest.mark.parametrize(
    ("kind", "name", "given", "kept"),
    [
        (ServerSettings, "flash_attn", True, "on"),
        (ServerSettings, "flash_attn", False, "off"),
        (ServerSettings, "lora", "a.gguf", (LoraAdapter(path="a.gguf"),)),
        (ServerSettings, "parallel", 256, 256),
        (SamplingSettings, "stop", "END", ("END",)),
        (SamplingSettings, "top_logprobs", 20, 20),
        (SamplingSettings, "seed", 2**32 - 1, 2**32 - 1),
        (SamplingSettings, "logit_bias", {5: -1.0}, {"5": -1.0}),
    ],
)
def test_short_ways_to_say_it_and_the_ends_of_ranges(kind: type[Any], name: str, given: Any, kept: Any) -> None:
    values = {"model": "m.gguf", name: given} if kind is ServerSettings else {name: given}
    assert getattr(kind.build(values), name) == kept


def test_what_a_call_leaves_out_stays_and_a_setting_of_the_server_is_none_of_a_call() -> None:
    settings = SamplingSettings(temperature=0.5, stop=("END",))
    assert settings.merged({"temperature": None, "stop": ["X", "Y"]}) == SamplingSettings(
        temperature=0.5, stop=("X", "Y")
    )
    with pytest.raises(ConfigurationError, match="belongs to the server"):
        settings.merged({"n_ctx": 512})


@pytest.mark.parametrize(
    "values", [{"env": {"TOKEN": ["hush-hush"]}}, {"base_url": "http://127.0.0.1:1", "api_key": ["hush-hush"]}]
)
def test_a_secret_of_the_wrong_kind_is_in_no_traceback(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServerSettings.build({"model": "m.gguf", **values})
    assert "hush-hush" not in "".join(traceback.format_exception(caught.value))


def test_the_environment_of_a_server_is_not_shown() -> None:
    assert "hush-hush" not in repr(ServerSettings(model="m.gguf", env={"TOKEN": "hush-hush"}))


def test_each_client_of_an_address_sends_its_own_key(script: ScriptedServer) -> None:
    first, second = (LocalLlamaClient(ServerSettings.build({"base_url": script.url, "api_key": key})) for key in "ab")
    with first, second:
        first.chat(HELLO)
        second.chat(HELLO)
    assert script.keys == ["Bearer a", "Bearer b"]


def test_who_waits_longer_for_a_start_shares_the_server(make_settings: Any) -> None:
    patient = LocalLlamaClient(make_settings(start_timeout_seconds=500), sampling=SamplingSettings(max_tokens=1))
    with LocalLlamaClient(make_settings(), sampling=SamplingSettings(max_tokens=1)) as hasty, patient:
        hasty.chat(HELLO)
        patient.chat(HELLO)
        pids = {running.process.pid for client in (hasty, patient) if (running := client._connection.running())}
        assert len(pids) == 1
