"""The command line and the environment of a server. Pure: nothing is started, opened or looked up.

Every flag is checked against what the build lists in `--help`, since llama-server dies of a flag that it does not know
and flags are renamed often. What the user asked for and the build cannot do is refused by name; what we merely prefer is
left out in silence.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from localllama._runtime.environment import without_llama_variables
from localllama.errors import ConfigurationError, RuntimeBrokenError, UnsupportedFeatureError
from localllama.settings import PROJECTOR_OFF, LoraAdapter, ServerSettings, nearest_name_hint
from localllama.types import ModelInfo

__all__ = ["child_environment", "redacted", "redacted_command", "server_arguments"]

_MASK = "***"

# Spellings of one flag through the years, the newest first.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "model": ("--model", "-m"),
    "host": ("--host",),
    "port": ("--port",),
    "api_key_file": ("--api-key-file",),
    "alias": ("--alias", "-a"),
    "n_ctx": ("--ctx-size", "-c"),
    "parallel": ("--parallel", "-np"),
    "n_batch": ("--batch-size", "-b"),
    "n_ubatch": ("--ubatch-size", "-ub"),
    "n_threads": ("--threads", "-t"),
    "n_threads_batch": ("--threads-batch", "-tb"),
    "n_gpu_layers": ("--n-gpu-layers", "--gpu-layers", "-ngl"),
    "flash_attn": ("--flash-attn", "-fa"),
    "cache_type_k": ("--cache-type-k", "-ctk"),
    "cache_type_v": ("--cache-type-v", "-ctv"),
    "mmproj": ("--mmproj", "-mm"),
    "lora": ("--lora",),
    "lora_scaled": ("--lora-scaled",),
    "chat_template": ("--chat-template",),
    "chat_template_file": ("--chat-template-file",),
    "chat_template_kwargs": ("--chat-template-kwargs",),
    "reasoning": ("--reasoning", "-rea"),
    "reasoning_budget": ("--reasoning-budget",),
    "reasoning_format": ("--reasoning-format",),
    "draft_model": ("--spec-draft-model", "--model-draft", "-md"),
    "draft_max": ("--spec-draft-n-max", "--draft-max", "--draft"),
    "draft_min": ("--spec-draft-n-min", "--draft-min"),
    "spec_type": ("--spec-type",),
    "no_ui": ("--no-ui", "--no-webui"),
    "no_kv_unified": ("--no-kv-unified", "-no-kvu"),
    "no_context_shift": ("--no-context-shift",),
    "cors_origins": ("--cors-origins",),
    "api_prefix": ("--api-prefix",),
    "jinja": ("--jinja",),
    "offline": ("--offline",),
    "n_predict": ("--predict", "--n-predict", "-n"),
}
_SETTINGS_WITH_FLAGS = (
    "model", "n_ctx", "parallel", "n_batch", "n_ubatch", "n_threads", "n_threads_batch", "n_gpu_layers", "flash_attn",
    "cache_type_k", "cache_type_v", "mmproj", "lora", "chat_template", "chat_template_file", "chat_template_kwargs",
    "reasoning", "reasoning_budget", "draft_model", "draft_max", "draft_min",
)  # fmt: skip
# What `extra_args` may not touch, and what to use instead.
_SETTING_OF_FLAG: dict[str, str] = {
    flag: setting for setting in _SETTINGS_WITH_FLAGS for flag in _SPELLINGS[setting]
} | {"--lora-scaled": "lora", "--draft-n": "draft_max", "--draft-n-min": "draft_min"}
_OURS = "it belongs to localllama, which keeps the server private and finds it again"
_REASONS_AGAINST: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"--host|--port|--reuse-port|--api-prefix|--api-key.*|--ssl-.*|--alias|-a|--path"), _OURS),
    (re.compile(r"--models-.*|--no-models-.*"), "it turns llama-server into a router that starts servers of its own"),
    (
        re.compile(
            r"--hf-.*|-hf\w*|--model-url|-mu|--docker-repo|-dr|--mmproj-url|-mmu|--spec-draft-hf|.*-default"
            r"|--fim-qwen-.*|--hf-repo-.*"
        ),
        "it lets the server download files; give a reference in model, mmproj or draft_model",
    ),
    (
        re.compile(r"-h|--help|--usage|--version|--list-devices|-cl|--cache-list|--completion-bash"),
        "it starts no server",
    ),
    (re.compile(r"--log-disable|--log-file|--log-jsonl"), "it hides the log, which errors quote"),
)
_ALLOWED_DEFAULTS = frozenset({"--spec-default"})
_FORBIDDEN_VARIABLES = re.compile(
    r"LLAMA_API_KEY|LLAMA_SERVER_.*|AIP_.*|XDG_CONFIG_HOME|APPDATA"
    r"|LLAMA_ARG_(?:NO_)?(?:HOST|PORT|API_KEY\w*|API_PREFIX|SSL_\w+|REUSE_PORT|STATIC_PATH|MODEL|MODEL_URL|DOCKER_REPO"
    r"|HF_\w+|MODELS_\w+|LOG_\w+|CORS_\w+|ALIAS)"
)
_NEGATIVE_NUMBER = re.compile(r"-\.?\d")


def server_arguments(
    settings: ServerSettings,
    model: ModelInfo,
    *,
    socket_path: str | None,
    port: int | None,
    api_key_file: str | None,
    flags: frozenset[str],
    runtime_name: str = "This llama-server",
) -> list[str]:
    """The flags behind the program's name.

    Args:
        settings: What the user asked for.
        model: Its file and its window; the server gets `model.n_ctx * settings.parallel` tokens, so that each slot has
            a window of its own.
        socket_path: Where to listen; or
        port: the loopback port to listen on.
        api_key_file: File with the key, for a port.
        flags: What this build knows, from `supported_flags`.
        runtime_name: The build, for errors.

    Raises:
        UnsupportedFeatureError: A setting needs a flag that this build does not know.
        ConfigurationError: `extra_args` touches what a setting or localllama itself decides, or is unknown.
        RuntimeBrokenError: The build lacks a flag without which it cannot serve us at all.
    """
    if model.path is None:
        raise ConfigurationError(f"The model {model.name} has no file, so no server can be started for it.")
    line = _Line(flags, runtime_name)
    line.own("model", _absolute(model.path))
    line.prefer("alias", model.name.replace(",", " ").strip() or "model")
    _add_listener(line, socket_path, port, api_key_file)
    _add_sizes(line, settings, model)
    _add_adapters(line, settings, model)
    _add_template(line, settings)
    _add_draft(line, settings)
    for name in ("no_ui", "jinja", "no_context_shift", "offline"):
        line.prefer(name)
    # llama.cpp's own default, said aloud: /etc/llama.cpp/config.ini, which nobody can shut out, may have another.
    line.prefer("n_predict", "-1")
    # Without it thinking could come back inside the answer: older builds have other defaults.
    line.prefer("reasoning_format", "deepseek")
    line.arguments += _checked_extra_args(settings.extra_args, flags, runtime_name)
    return line.arguments


class _Line:
    """A command line under construction, for one build."""

    def __init__(self, flags: frozenset[str], runtime_name: str) -> None:
        self._flags = flags
        self._runtime_name = runtime_name
        self.arguments: list[str] = []

    def knows(self, name: str) -> bool:
        return self._spelling(name) is not None

    def own(self, name: str, *values: str) -> None:
        """A flag that no llama-server lacks."""
        spelling = self._spelling(name)
        if spelling is None:
            raise RuntimeBrokenError(
                f"{self._runtime_name} does not know {_SPELLINGS[name][0]}, so it is not a llama-server that localllama "
                "can use.",
                hint="Install a current llama.cpp.",
                runtime=self._runtime_name,
            )
        self.arguments += [spelling, *values]

    def prefer(self, name: str, *values: str) -> None:
        """A flag that is left out where it is not known."""
        spelling = self._spelling(name)
        if spelling is not None:
            self.arguments += [spelling, *values]

    def need(self, setting: str, value: Any, *, name: str | None = None, text: str | None = None) -> None:
        """A flag that the user asked for by a setting; nothing if the setting is None."""
        if value is None:
            return
        spelling = self._spelling(name or setting)
        if spelling is None:
            raise self.lacks(setting, value, _SPELLINGS[name or setting][0])
        self.arguments += [spelling, str(value) if text is None else text]

    def lacks(self, setting: str, value: Any, flag: str) -> UnsupportedFeatureError:
        return UnsupportedFeatureError(
            f"{setting}={value!r} needs {flag}, which {self._runtime_name} does not know.",
            hint=f"Leave {setting} out, or use a newer llama.cpp: brew upgrade llama.cpp, or "
            'pip install -U xllamacpp and runtime="embedded".',
        )

    def _spelling(self, name: str) -> str | None:
        return next((flag for flag in _SPELLINGS[name] if flag in self._flags), None)


def _add_listener(line: _Line, socket_path: str | None, port: int | None, api_key_file: str | None) -> None:
    if socket_path is not None:
        line.own("host", _list_item(socket_path))
    elif port is not None and api_key_file is not None:
        line.own("host", "127.0.0.1")
        line.own("port", str(port))
        line.own("api_key_file", api_key_file)
    else:
        raise ValueError("a server needs a socket, or a port and a key")
    line.prefer("cors_origins", "localhost")
    # /etc/llama.cpp/config.ini cannot be shut out; a prefix set there would move even /health.
    line.prefer("api_prefix", "")


def _add_sizes(line: _Line, settings: ServerSettings, model: ModelInfo) -> None:
    line.own("n_ctx", str(model.n_ctx * settings.parallel))
    # Never left to the build: since 2025 the default is four slots that share one window.
    line.own("parallel", str(settings.parallel))
    if settings.parallel > 1:
        line.prefer("no_kv_unified")
    line.own("n_batch", str(settings.n_batch))
    for setting in ("n_ubatch", "n_threads", "n_threads_batch", "flash_attn", "cache_type_k", "cache_type_v"):
        line.need(setting, getattr(settings, setting))
    line.need("n_gpu_layers", settings.n_gpu_layers)


def _add_adapters(line: _Line, settings: ServerSettings, model: ModelInfo) -> None:
    if settings.mmproj is None and model.mmproj is not None:
        line.prefer("mmproj", model.mmproj)  # found, not asked for: a program that only writes is served without it
    elif settings.mmproj != PROJECTOR_OFF:
        line.need("mmproj", settings.mmproj, text=_absolute(settings.mmproj))
    for adapter in settings.lora:
        _add_adapter(line, adapter)


def _add_adapter(line: _Line, adapter: LoraAdapter) -> None:
    path = _absolute(adapter.path)
    if adapter.scale == 1.0:
        line.need("lora", adapter.path, text=_list_item(path))
        return
    if ":" in path:
        raise ConfigurationError(
            f"lora={adapter.path!r} with scale={adapter.scale:g}: llama-server splits this at the colon.",
            hint="Rename the file, or give the scale with the call: lora=[{'id': 0, 'scale': ...}].",
        )
    line.need("lora", adapter.path, name="lora_scaled", text=_list_item(f"{path}:{adapter.scale:g}"))


def _add_template(line: _Line, settings: ServerSettings) -> None:
    line.need("chat_template", settings.chat_template)
    line.need("chat_template_file", settings.chat_template_file, text=_absolute(settings.chat_template_file))
    variables = dict(settings.chat_template_kwargs or {})
    budget = settings.reasoning_budget
    if settings.reasoning != "auto":
        if line.knows("reasoning"):
            line.need("reasoning", settings.reasoning)
        elif line.knows("chat_template_kwargs"):
            # Before `--reasoning` this variable was the switch; templates that think know it.
            variables.setdefault("enable_thinking", settings.reasoning == "on")
            if settings.reasoning == "off" and budget is None and line.knows("reasoning_budget"):
                budget = 0
        else:
            raise line.lacks("reasoning", settings.reasoning, "--reasoning")
    if variables:
        line.need("chat_template_kwargs", settings.chat_template_kwargs or variables, text=json.dumps(variables))
    line.need("reasoning_budget", budget)


def _add_draft(line: _Line, settings: ServerSettings) -> None:
    if settings.draft_model is None:
        for setting in ("draft_max", "draft_min"):
            if getattr(settings, setting) is not None:
                raise ConfigurationError(
                    f"{setting}={getattr(settings, setting)} is set, but draft_model is not.", hint="Set draft_model."
                )
        return
    line.need("draft_model", settings.draft_model, text=_absolute(settings.draft_model))
    # Newer builds load the draft model and then do not use it unless they are told how (seen on b11434).
    line.prefer("spec_type", "draft-simple")
    line.need("draft_max", settings.draft_max)
    line.need("draft_min", settings.draft_min)


def _checked_extra_args(extra_args: Sequence[str], flags: frozenset[str], runtime_name: str) -> list[str]:
    for argument in extra_args:
        if argument.startswith("-") and not _NEGATIVE_NUMBER.match(argument):
            _check_extra_flag(argument, flags, runtime_name)
    return list(extra_args)


def _check_extra_flag(argument: str, flags: frozenset[str], runtime_name: str) -> None:
    # llama-server takes --ctx_size for --ctx-size.
    flag = argument.replace("_", "-") if argument.startswith("--") else argument
    name, equals, _ = flag.partition("=")
    setting = _SETTING_OF_FLAG.get(name)
    if setting is not None:
        raise ConfigurationError(f"extra_args: {name} has a setting of its own.", hint=f"Use {setting}=... instead.")
    for pattern, reason in _REASONS_AGAINST:
        if pattern.fullmatch(name) and name not in _ALLOWED_DEFAULTS:
            raise ConfigurationError(f"extra_args: {name} is not allowed: {reason}.", hint="Leave it out.")
    if flag in flags:
        return
    if equals and name in flags:
        raise ConfigurationError(
            f"extra_args: llama-server does not take {name}=VALUE.", hint=f"Give two items: {name!r}, VALUE."
        )
    near = nearest_name_hint(name, flags)
    raise ConfigurationError(
        f"extra_args: {runtime_name} does not know {name}.",
        hint=f"Did you mean {near}?" if near else "Run it with --help to see its flags.",
    )


def child_environment(environ: Mapping[str, str], settings: ServerSettings, *, config_directory: str) -> dict[str, str]:
    """The whole environment of the server: the user's, without what would change it behind our back.

    Args:
        environ: The environment of this process.
        settings: `env` goes on top.
        config_directory: An empty private directory that stands in for ~/.config, where llama.cpp looks for a config.ini
            that it applies before the command line.

    Raises:
        ConfigurationError: `env` would move the listener or the log.
    """
    for name in settings.env:
        if _FORBIDDEN_VARIABLES.fullmatch(name.upper()):
            raise ConfigurationError(f"env: {name} is not allowed: {_OURS}.", hint="Leave it out.")
    child = without_llama_variables(environ)
    child["XDG_CONFIG_HOME"] = config_directory
    # On Windows it looks there instead.
    child.update({name: config_directory for name in child if name.upper() == "APPDATA"})
    # A crash would otherwise run gdb, if there is one, and be held up by it.
    child["GGML_NO_BACKTRACE"] = "1"
    child.update(settings.env)
    return child


def redacted_command(argv: Iterable[str], secrets: Iterable[str] = ()) -> str:
    """The command line for people to run by hand: quoted for a shell, keys masked.

    Args:
        argv: Program and arguments.
        secrets: Further texts that must not be shown.
    """
    shown = []
    is_secret = False
    for argument in argv:
        shown.append(_MASK if is_secret else argument)
        is_secret = argument in ("--api-key", "--hf-token", "-hft")
    return redacted(shlex.join(shown), secrets)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """`text` with each of `secrets` masked."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, _MASK)
    return text


def _list_item(text: str) -> str:
    # A list in newer builds, split at commas unless quoted; older builds take one value, and no quotes.
    return f'"{text}"' if "," in text else text


def _absolute(path: str | None) -> str:
    # The child runs in another directory than the caller. (That of the caller may be gone, which only matters to a path.)
    return os.path.abspath(os.path.expanduser(path)) if path is not None else ""  # noqa: PTH111
