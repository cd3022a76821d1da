"""The command line and the environment of a server, as pure values."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from localllama._server.command import child_environment, redacted_command, server_arguments
from localllama.errors import ConfigurationError, RuntimeBrokenError, UnsupportedFeatureError
from localllama.settings import ServerSettings
from localllama.types import ModelInfo

ESSENTIAL = ("--model", "--host", "--port", "--api-key-file", "--ctx-size", "--parallel", "--batch-size")
# What builds knew in the middle of 2025, as far as it matters here.
OLD = frozenset(
    {*ESSENTIAL, "--alias", "--no-webui", "--jinja", "-ngl", "--gpu-layers", "--n-gpu-layers", "-md", "--model-draft"}
    | {"--draft-max", "--draft-min", "--chat-template-kwargs", "--reasoning-budget", "--reasoning-format", "--top-k"}
)
NEW = (OLD - {"--draft-max", "--draft-min"}) | {
    *("--no-ui", "--no-kv-unified", "--no-context-shift", "--cors-origins", "--offline", "--reasoning"),
    *("--spec-draft-model", "--spec-draft-n-max", "--spec-draft-n-min", "--spec-type", "--lora", "--lora-scaled"),
    *("--mmproj", "--flash-attn", "--chat-template", "--chat-template-file", "--cache-type-k", "--metrics", "-hf"),
    *("--models-dir", "--log-file", "--gpt-oss-20b-default"),
}


def line(
    flags: frozenset[str] = NEW, *, n_ctx: int = 512, name: str = "micro", found: str | None = None, **values: Any
) -> list[str]:
    model = ModelInfo(name=name, path="/models/micro.gguf", n_ctx=n_ctx, mmproj=found)
    settings = ServerSettings.build({"model": "micro.gguf", **values})
    return server_arguments(settings, model, socket_path="/s/x.sock", port=None, api_key_file=None, flags=flags)


def value_of(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def test_the_window_of_one_request_is_multiplied_by_the_slots() -> None:
    arguments = line(parallel=4, n_ctx=1000)
    assert value_of(arguments, "--ctx-size") == "4000"
    assert value_of(arguments, "--parallel") == "4"
    assert "--no-kv-unified" in arguments


def test_the_number_of_slots_is_never_left_to_the_build() -> None:
    assert value_of(line(), "--parallel") == "1"


def test_a_unix_socket_has_neither_port_nor_key() -> None:
    arguments = line()
    assert value_of(arguments, "--host") == "/s/x.sock"
    assert not {"--port", "--api-key-file"} & set(arguments)


def test_a_port_is_on_loopback_and_has_its_key_in_a_file() -> None:
    model = ModelInfo(name="micro", path="/models/micro.gguf", n_ctx=512)
    settings = ServerSettings(model="micro.gguf")
    arguments = server_arguments(settings, model, socket_path=None, port=4711, api_key_file="/s/api-key", flags=NEW)
    assert value_of(arguments, "--host") == "127.0.0.1"
    assert value_of(arguments, "--port") == "4711"
    assert value_of(arguments, "--api-key-file") == "/s/api-key"
    assert "--api-key" not in arguments


def test_renamed_flags_are_spelled_as_the_build_knows_them() -> None:
    new, old = (line(flags, draft_model="/d.gguf", draft_max=3) for flags in (NEW, OLD))
    assert "--no-ui" in new
    assert value_of(new, "--spec-draft-n-max") == "3"
    assert value_of(new, "--spec-type") == "draft-simple"
    assert "--no-webui" in old
    assert value_of(old, "--draft-max") == "3"
    assert "--spec-type" not in old


def test_what_is_merely_preferred_is_left_out_where_unknown() -> None:
    arguments = line(frozenset(ESSENTIAL))
    assert set(filter(lambda item: item.startswith("--"), arguments)) <= set(ESSENTIAL)


@pytest.mark.parametrize(
    ("setting", "value", "flag"),
    [
        ("flash_attn", "on", "--flash-attn"),
        ("n_gpu_layers", 3, "--n-gpu-layers"),
        ("mmproj", "p.gguf", "--mmproj"),
        ("cache_type_k", "q8_0", "--cache-type-k"),
        ("draft_model", "d.gguf", "--spec-draft-model"),
        ("lora", "a.gguf", "--lora"),
        ("chat_template_kwargs", {"a": 1}, "--chat-template-kwargs"),
        ("reasoning", "off", "--reasoning"),
        ("reasoning_budget", 5, "--reasoning-budget"),
    ],
)
def test_what_was_asked_for_and_is_unknown_is_refused_by_name(setting: str, value: Any, flag: str) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        line(frozenset(ESSENTIAL), **{setting: value})
    assert setting in caught.value.message
    assert flag in caught.value.message


def test_a_projector_that_was_found_is_given_unless_another_was_or_none_is_wanted() -> None:
    assert value_of(line(found="/models/mmproj.gguf"), "--mmproj") == "/models/mmproj.gguf"
    assert value_of(line(found="/models/mmproj.gguf", mmproj="/own.gguf"), "--mmproj") == "/own.gguf"
    assert "--mmproj" not in line(found="/models/mmproj.gguf", mmproj="off")
    assert "--mmproj" not in line(frozenset(ESSENTIAL), found="/models/mmproj.gguf")


def test_a_program_without_the_essential_flags_is_broken() -> None:
    with pytest.raises(RuntimeBrokenError, match="--ctx-size"):
        line(frozenset(ESSENTIAL) - {"--ctx-size"})


def test_reasoning_uses_the_template_variable_on_builds_without_the_flag() -> None:
    new = line(reasoning="off")
    assert value_of(new, "--reasoning") == "off"
    assert "--chat-template-kwargs" not in new
    old = line(OLD, reasoning="off", chat_template_kwargs={"city": "Bonn"})
    assert json.loads(value_of(old, "--chat-template-kwargs")) == {"city": "Bonn", "enable_thinking": False}
    assert value_of(old, "--reasoning-budget") == "0"


def test_paths_are_absolute_because_the_server_runs_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    arguments = line(
        mmproj="p.gguf",
        lora=["a.gguf", {"path": "~/b.gguf", "scale": 0.5}],
        chat_template_file="t.jinja",
        draft_model="d.gguf",
    )
    assert value_of(arguments, "--mmproj") == str(tmp_path / "p.gguf")
    assert value_of(arguments, "--lora") == str(tmp_path / "a.gguf")
    assert value_of(arguments, "--lora-scaled") == "/home/ada/b.gguf:0.5"
    assert value_of(arguments, "--chat-template-file") == str(tmp_path / "t.jinja")
    assert value_of(arguments, "--spec-draft-model") == str(tmp_path / "d.gguf")


def test_a_name_with_a_comma_stays_one_alias() -> None:
    assert value_of(line(name="a,b"), "--alias") == "a b"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["-c", "1"], "n_ctx="),
        (["--ctx_size", "1"], "n_ctx="),
        (["-np", "2"], "parallel="),
        (["-m", "x"], "model="),
        (["--lora-scaled", "x:1"], "lora="),
        (["--host", "0.0.0.0"], "--host is not allowed"),
        (["--port=80"], "--port is not allowed"),
        (["--api-key", "hunter2"], "--api-key is not allowed"),
        (["--api-prefix", "/x"], "--api-prefix is not allowed"),
        (["--ssl-key-file", "x"], "--ssl-key-file is not allowed"),
        (["-hf", "a/b"], "-hf is not allowed"),
        (["--models-dir", "x"], "router"),
        (["--log-file", "x"], "errors quote"),
        (["--gpt-oss-20b-default"], "download"),
        (["--metrcs"], "Did you mean --metrics?"),
        (["--top-k=5"], "Give two items"),
    ],
)
def test_extra_args_may_not_touch_what_is_ours_or_unknown(extra: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        line(extra_args=extra)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_other_extra_args_come_last_and_unchanged() -> None:
    extra = ["--top-k", "-1", "--metrics"]
    assert line(extra_args=extra)[-3:] == extra


def test_the_environment_is_shut_out_but_for_what_the_machine_needs() -> None:
    environ = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "LD_LIBRARY_PATH": "/lib",
        "GGML_VK_VISIBLE_DEVICES": "0",
        "LLAMA_ARG_HOST": "0.0.0.0",
        "LLAMA_API_KEY": "k",
        "LLAMA_SERVER_ROUTER_PORT": "1",
        "GGML_BACKEND_PATH": "/evil.so",
        "AIP_MODE": "PREDICTION",
        "HF_TOKEN": "t",
        "HUGGING_FACE_HUB_TOKEN": "t",
        "MTMD_BACKEND_DEVICE": "x",
        "XDG_CONFIG_HOME": "/home/ada/.config",
        "AppData": "C:\\Users\\ada",
    }
    settings = ServerSettings(model="m", env={"CUDA_VISIBLE_DEVICES": "0", "GGML_CUDA_NO_PINNED": "1"})
    child = child_environment(environ, settings, config_directory="/s/config")
    assert child == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "LD_LIBRARY_PATH": "/lib",
        "GGML_VK_VISIBLE_DEVICES": "0",
        "GGML_CUDA_NO_PINNED": "1",
        "GGML_NO_BACKTRACE": "1",
        "XDG_CONFIG_HOME": "/s/config",
        "AppData": "/s/config",
    }


@pytest.mark.parametrize(
    "name",
    [
        *(
            "LLAMA_ARG_HOST",
            "LLAMA_ARG_PORT",
            "LLAMA_API_KEY",
            "LLAMA_ARG_API_PREFIX",
            "LLAMA_ARG_NO_MODEL",
            "AIP_MODE",
        ),
        *("LLAMA_SERVER_ROUTER_PORT", "XDG_CONFIG_HOME", "LLAMA_ARG_LOG_FILE", "llama_arg_host"),
    ],
)
def test_env_may_not_move_the_listener_or_the_log(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        child_environment({}, ServerSettings(model="m", env={name: "hunter2"}), config_directory="/c")


def test_the_command_for_people_can_be_pasted_and_holds_no_secret() -> None:
    argv = ["/my bin/llama-server", "--api-key", "hunter2", "--alias", "hunter3 model"]
    shown = redacted_command(argv, secrets=["hunter3"])
    assert "hunter" not in shown
    assert shlex.split(shown) == ["/my bin/llama-server", "--api-key", "***", "--alias", "*** model"]


@pytest.mark.parametrize("flag", ["--api-key", "--hf-token", "-hft"])
def test_what_follows_the_flag_of_a_key_is_never_shown(flag: str) -> None:
    assert redacted_command(["llama-server", flag, "hunter2", "-c", "8"]) == f"llama-server {flag} '***' -c 8"
