"""What a user may give to the constructor, what becomes of it, and what objects say and share."""

from __future__ import annotations

import copy
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumps, loads
from langchain_core.runnables import ConfigurableField

from langchain_localllama import ChatLocalLlama
from localllama import ConfigurationError, SamplingSettings, ServerSettings, TimeoutSettings

SERVER = {
    "n_ctx": 4096,
    "n_gpu_layers": "all",
    "parallel": 2,
    "flash_attn": True,
    "cache_type_k": "q8_0",
    "lora": "a.gguf",
    "extra_args": ["--no-warmup"],
    "runtime": "embedded",
    "draft_model": "d.gguf",
}
SAMPLING = {
    "temperature": 0,
    "max_tokens": 256,
    "stop": ["END"],
    "seed": 1,
    "top_k": 5,
    "reasoning": "off",
    "chat_template_kwargs": {"a": 1},
    "extra_body": {"n_probs": 2},
}


def test_arguments_reach_the_core_as_its_settings(script) -> None:
    llm = ChatLocalLlama(model="m.gguf", timeout=60, max_retries=0, streaming=True, **SERVER, **SAMPLING)
    llm.invoke("hi")
    assert script.last.settings == ServerSettings(model="m.gguf", **SERVER)
    assert script.last.sampling == SamplingSettings(**SAMPLING)
    assert script.last.timeouts == TimeoutSettings(total_seconds=60)


def test_every_name_of_the_core_can_be_given_but_what_belongs_to_one_call() -> None:
    names = set(ChatLocalLlama.model_fields)
    assert set(ServerSettings.model_fields) <= names
    assert set(SamplingSettings.model_fields) <= names


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({"temperatur": 1}, "temperatur", "Did you mean 'temperature'"),
        ({"n_gpu_layer": 1}, "n_gpu_layer", "Did you mean 'n_gpu_layers'"),
        ({"max_token": 1}, "max_token", "Did you mean 'max_tokens'"),
        ({"num_predict": 1}, "num_predict", "Did you mean 'max_tokens'"),
        ({"format": "json"}, "format", "Did you mean 'json_schema'"),
        ({"keep_alive": "5m"}, "keep_alive", "Did you mean 'idle_timeout_seconds'"),
        ({"n_gpu_layers": -1}, 'n_gpu_layers=-1: llama-cpp-python means all layers by -1; here that is "all"', None),
        ({"zzz": 1}, "zzz", "temperature"),
        ({"temperature": -1}, "temperature=-1", None),
        ({"max_tokens": 0}, "max_tokens=0", None),
        ({"n_ctx": "big"}, "n_ctx='big'", None),
        ({"n_gpu_layers": "alll"}, "as an integer; or: Input should be 'all' or 'auto'", None),
        ({"n_gpu_layers": 1.5}, "ChatLocalLlama: n_gpu_layers=1.5: ", None),
        ({"timeout": {"total": 1}}, "; or: total: Extra inputs", None),
        ({"lora": [5, 5]}, "; lora.1=5: ", None),
        ({"timeout": 0}, "total_seconds", None),
        ({"max_retries": -1}, "max_retries=-1", None),
        ({"model": None}, "model is not set", None),
        ({"grammar": "root ::= [a]", "json_schema": {}}, "grammar and json_schema", None),
        ({"model_name": "b.gguf"}, "model_name", None),
        ({"base_url": "localhost:8080"}, "base_url", None),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ChatLocalLlama(**{"model": "m.gguf", **arguments})
    assert message in caught.value.message
    if hint:
        assert hint in (caught.value.hint or "")


def test_the_usual_names_of_langchain_are_taken() -> None:
    llm = ChatLocalLlama(model_name="m.gguf", stop_sequences=["x"])
    assert (llm.model, llm.stop) == ("m.gguf", ("x",))


def test_a_key_without_an_address_is_no_error_and_reaches_nobody(script) -> None:
    ChatLocalLlama(model="m.gguf", api_key="secret").invoke("hi")
    assert script.last.settings.api_key is None
    ChatLocalLlama(base_url="http://127.0.0.1:1", api_key="secret").invoke("hi")
    assert script.last.settings.api_key.get_secret_value() == "secret"


def test_the_model_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALLLAMA_MODEL", "from-environment.gguf")
    assert ChatLocalLlama().model == "from-environment.gguf"
    assert ChatLocalLlama(model="given.gguf").model == "given.gguf"


def test_paths_and_timeouts_in_other_shapes(script) -> None:
    limits = TimeoutSettings(first_token_seconds=5)
    llm = ChatLocalLlama(model=Path("m.gguf"), timeout=limits)
    llm.invoke("hi")
    assert script.last.settings.model == "m.gguf"
    assert script.last.timeouts == limits
    llm.invoke("hi", timeout=3)
    assert script.last.timeouts == TimeoutSettings(total_seconds=3)


def test_repr_names_the_model_and_no_secret() -> None:
    llm = ChatLocalLlama(
        model="m.gguf", temperature=0, base_url="http://h:1", api_key="sk-secret", env={"TOKEN": "also-secret"}
    )
    for text in (repr(llm), str(llm)):
        assert "m.gguf" in text
        assert "temperature=0" in text
        assert "secret" not in text
        assert "n_batch" not in text, "a default says nothing"


@pytest.mark.parametrize("secret", [{"api_key": ["sk-secret"]}, {"env": {"TOKEN": ["sk-secret"]}}], ids=str)
def test_a_traceback_shows_no_secret(secret: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ChatLocalLlama(model="m.gguf", base_url="http://h:1", **secret)
    assert "sk-secret" not in "".join(traceback.format_exception(caught.value))


def test_serialized_objects_come_back_and_hold_no_secret() -> None:
    llm = ChatLocalLlama(
        model="m.gguf",
        base_url="http://h:1",
        api_key="sk-secret",
        env={"TOKEN": "also-secret"},
        lora=["a.gguf"],
        timeout=TimeoutSettings(total_seconds=9),
        stop=["x"],
        logit_bias={"12": -1.0},
    )
    text = dumps(llm)
    assert "secret" not in text.replace('"type": "secret"', "")
    with pytest.warns(Warning, match="beta"):
        again = loads(
            text,
            allowed_objects=[ChatLocalLlama],
            valid_namespaces=["langchain_localllama"],
            secrets_map={"LOCALLLAMA_API_KEY": "sk-secret"},
        )
    assert again.asdict() == llm.asdict()
    assert again.timeout == llm.timeout
    assert again.lora == llm.lora
    assert again.api_key == llm.api_key


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "model_copy": lambda llm: llm.model_copy(),
    "model_copy deep": lambda llm: llm.model_copy(deep=True),
    "pickle": lambda llm: pickle.loads(pickle.dumps(llm)),
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_closing_a_copy_closes_nothing_else(script, make) -> None:
    llm = ChatLocalLlama(model="m.gguf", temperature=0.5, api_key="k", base_url="http://h:1")
    llm.invoke("hi")
    made = make(llm)
    assert made == llm
    made.invoke("hi")
    assert script.sent[0].settings == script.sent[1].settings
    made.close()
    assert script.closed_clients == 1
    assert llm.invoke("hi").content == "Hello"


def test_changes_count_from_the_next_call_on(script) -> None:
    llm = ChatLocalLlama(model="m.gguf", temperature=0.5)
    llm.invoke("hi")
    before = llm._get_llm_string()
    llm.temperature = 0.9
    llm.invoke("hi")
    assert script.last.sampling.temperature == 0.9
    assert llm._get_llm_string() != before
    llm.model_copy(update={"n_ctx": 99}).invoke("hi")
    assert script.last.settings.n_ctx == 99
    llm.stop, llm.lora = "END", "a.gguf"
    llm.invoke("hi")
    assert script.last.sampling.stop == ("END",)
    assert llm._get_ls_params()["ls_stop"] == ["END"]
    assert '"a.gguf"' in dumps(llm)
    llm.temperature = -1
    with pytest.raises(ConfigurationError, match="temperature=-1"):
        llm.invoke("hi")


def test_a_new_key_counts_from_the_next_call_on(script) -> None:
    llm = ChatLocalLlama(base_url="http://h:1", api_key="old")
    llm.invoke("hi")
    llm.api_key = "new"
    llm.invoke("hi")
    assert script.last.settings.api_key.get_secret_value() == "new"


def test_configurable_fields(script) -> None:
    llm = ChatLocalLlama(model="m.gguf").configurable_fields(temperature=ConfigurableField(id="t"))
    llm.with_config(configurable={"t": 0.25}).invoke("hi")
    assert script.last.sampling.temperature == 0.25
