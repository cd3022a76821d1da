"""What a user can set: the server, the sampling of one call, the time limits of one call.

Three frozen pydantic models. `None` means "llama.cpp decides" everywhere, except where the docstring names a default.
Names are llama.cpp's own; an unknown one is refused with the nearest real one as a hint, where frameworks would swallow it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, model_validator

from ._settings_base import FrozenSettings, configuration_error, nearest_name_hint
from ._settings_base import PathText as PathText  # noqa: PLC0414  # for the wrappers, no name of the package
from .errors import ConfigurationError

__all__ = [
    "DEFAULT_N_CTX",
    "PROJECTOR_OFF",
    "KVCacheType",
    "LoraAdapter",
    "SamplingOptions",
    "SamplingSettings",
    "ServerOptions",
    "ServerSettings",
    "TimeoutSettings",
    "configuration_error",
    "nearest_name_hint",
]

DEFAULT_N_CTX = 8192
"""Upper bound of the context window where `n_ctx` is not set, in tokens.

The trained length of recent models (128k and more) would reserve many GB of KV cache that nobody asked for.
"""

PROJECTOR_OFF = "off"
"""The value of `mmproj` with which a model is served, and fetched, without its projector."""

KVCacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]


class LoraAdapter(FrozenSettings):
    """A LoRA adapter.

    Attributes:
        path: GGUF file of the adapter.
        scale: Its strength, 1.0 by default.
    """

    path: PathText
    scale: float = 1.0


def _lora_adapters(value: Any) -> Any:
    if value is None:
        return ()
    if isinstance(value, str | Path | LoraAdapter | dict):
        value = (value,)
    return tuple({"path": item} if isinstance(item, str | Path) else item for item in value)


def _string_tuple(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError("give a list of strings, one for each argument, not one string")
    return tuple(value) if isinstance(value, list) else value


def _on_or_off(value: Any) -> Any:
    return ("on" if value else "off") if isinstance(value, bool) else value


def _gpu_layers(value: Any) -> Any:
    if value == -1 and not isinstance(value, bool):
        # Otherwise pydantic names the two forms of the type, of which neither helps.
        raise ValueError('llama-cpp-python means all layers by -1; here that is "all"')
    return value


_HEX_LENGTH = 32


class ServerOptions(BaseModel):
    """The fields of `ServerSettings` that a wrapper's class inherits, so that each is declared once.

    A wrapper keeps `reasoning`, `reasoning_budget` and `chat_template_kwargs` in its `SamplingOptions`: sent with each
    call they act alike, and two objects that differ in them alone share a server.

    Attributes:
        model: A model reference: a path, `pkg:package/file.gguf`, `owner/repo:QUANT`, or a catalog name.
        runtime: "auto" walks the ladder: a path in `LOCALLLAMA_RUNTIME`, `llama-server` or `llama` on this machine, the
            embedded `xllamacpp`, and last the programs that answer once (`llama-completion`, `llama-cli`), which load the
            model for each call. "llama-server", "embedded", "one-shot" and "mock" take that rung only; anything else is
            the path of a program, tried first.
        auto_install: Where no runtime serves, do once what `localllama install` does, without sudo and without asking; each
            command is shown as a warning, and what it prints on standard error. Default False.
        allow_open_port: Whether the new `llama-cli` may be used where there is nothing else: while it answers, it listens
            on a loopback port that any user of this machine can reach. Default True, with a warning.
        allow_mock: Whether the mock, which answers without a model and says so, may be the last rung. Default False.
        n_ctx: The context window of one request, in tokens; the server gets `n_ctx * parallel`. Default: the length
            that the model was trained for, at most 8192.
        n_gpu_layers: Layers put on the GPU; "all", "auto" or a number.
        n_threads: Threads for generation.
        n_threads_batch: Threads for the prompt.
        n_batch: Most tokens of one prompt step; a cancelled request stops between two steps. Default 512.
        n_ubatch: Physical batch size.
        parallel: Slots: how many requests run at once; further ones wait. Default 1.
        flash_attn: "on", "off" or "auto"; a bool is taken as "on" or "off".
        cache_type_k: Type of the KV cache's keys.
        cache_type_v: Type of the KV cache's values.
        mmproj: Projector file of a model that sees or hears. Default: the one that lies beside the model on Hugging Face
            or, alone with it, in its directory; "off" takes and fetches none.
        lora: LoRA adapters: paths or `LoraAdapter`.
        chat_template: A Jinja template, or "chatml". Default: the model's own.
        chat_template_file: A file with such a template.
        draft_model: A small model of the same vocabulary for speculative decoding.
        draft_max: Most tokens it proposes at once.
        draft_min: Fewest tokens it proposes at once.
        extra_args: Further arguments for llama-server, as on its command line.
        env: Further environment variables of the server, such as `CUDA_VISIBLE_DEVICES`.
        listen: "unix" (a socket file that only this user can reach), "tcp" (loopback, a random port and key) or "auto", the
            default: "unix" wherever there is one.
        start_timeout_seconds: How long the server may load before it is given up. Default 600.
        idle_timeout_seconds: Stop the server after this long without a request; None keeps it warm.
        base_url: Use this llama-server instead of one of our own; nothing is started.
        api_key: The key for `base_url`.
    """

    model: PathText | None = None
    runtime: PathText = "auto"
    auto_install: bool = False
    allow_open_port: bool = True
    allow_mock: bool = False
    n_ctx: int | None = Field(default=None, ge=1)
    n_gpu_layers: Annotated[
        Annotated[int, Field(ge=0)] | Literal["all", "auto"] | None, BeforeValidator(_gpu_layers)
    ] = None
    n_threads: int | None = Field(default=None, ge=1)
    n_threads_batch: int | None = Field(default=None, ge=1)
    n_batch: int = Field(default=512, ge=1)
    n_ubatch: int | None = Field(default=None, ge=1)
    parallel: int = Field(default=1, ge=1, le=256)
    flash_attn: Annotated[Literal["on", "off", "auto"] | None, BeforeValidator(_on_or_off)] = None
    cache_type_k: KVCacheType | None = None
    cache_type_v: KVCacheType | None = None
    mmproj: PathText | None = None
    lora: Annotated[tuple[LoraAdapter, ...], BeforeValidator(_lora_adapters)] = ()
    chat_template: str | None = Field(default=None, min_length=1)
    chat_template_file: PathText | None = None
    draft_model: PathText | None = None
    draft_max: int | None = Field(default=None, ge=0)
    draft_min: int | None = Field(default=None, ge=0)
    extra_args: Annotated[Sequence[str], BeforeValidator(_string_tuple)] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    listen: Literal["auto", "unix", "tcp"] = "auto"
    start_timeout_seconds: float = Field(default=600.0, gt=0)
    idle_timeout_seconds: float | None = Field(default=None, gt=0)
    base_url: str | None = None
    api_key: SecretStr | None = None


def _check_base_url(url: str) -> None:
    if not re.match(r"https?://[^/]", url):
        raise ValueError(f"base_url={url!r} does not start with http:// or https://")
    try:
        _ = urlsplit(url).port  # read from the text only now
    except ValueError as error:
        raise ValueError(f"base_url cannot be read: {error}") from error


class ServerSettings(ServerOptions, FrozenSettings):
    """How the model is served. Objects with equal settings share one server within a process.

    The fields are all those of `ServerOptions`, and these:

    Attributes:
        chat_template_kwargs: Variables for the template, such as `{"enable_thinking": False}`.
        reasoning: "off" tells a thinking model to answer at once, "on" to think, "auto" leaves it to the template.
        reasoning_budget: Most tokens of thinking; -1 is no limit.
    """

    chat_template_kwargs: dict[str, Any] | None = None
    reasoning: Literal["on", "off", "auto"] = "auto"
    reasoning_budget: int | None = Field(default=None, ge=-1)

    @model_validator(mode="after")
    def _consistent(self) -> ServerSettings:
        if self.model is None and self.base_url is None:
            raise ValueError("model is not set: give a path, a catalog name such as 'smollm2-135m', or base_url")
        if self.base_url is not None:
            _check_base_url(self.base_url)
        if self.api_key is not None and self.base_url is None:
            raise ValueError("api_key goes with base_url; our own server makes its own key")
        if self.api_key is not None and not re.fullmatch(r"[!-~](?:[ -~]*[!-~])?", self.api_key.get_secret_value()):
            raise ValueError("api_key is empty, or has characters that no HTTP header may have")
        if self.chat_template is not None and self.chat_template_file is not None:
            raise ValueError("chat_template and chat_template_file are two ways to set one thing: give one")
        if not math.isfinite(self.start_timeout_seconds):
            raise ValueError("start_timeout_seconds must be a finite number of seconds")
        return self

    def identity(self) -> str:
        """A digest that is equal for settings that may share a server; holds no secret in the clear."""
        values = self.model_dump(mode="json", exclude={"api_key", "start_timeout_seconds"})
        values["api_key"] = self.api_key.get_secret_value() if self.api_key else None
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:_HEX_LENGTH]


def _text_keys(value: Any) -> Any:
    return {str(key): bias for key, bias in value.items()} if isinstance(value, dict) else value


def _stop_strings(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class SamplingOptions(BaseModel):
    """The fields of `SamplingSettings` that a wrapper's class inherits, so that each is declared once.

    `None` leaves the value to llama.cpp, which may take it from the model. Ranges are llama-server's hard ones; what it
    would clamp in silence is refused here instead.

    Attributes:
        max_tokens: Most tokens to generate, thinking included; -1 is no limit but the context window.
        temperature: 0 takes the likeliest token always.
        top_k: Keep the k likeliest tokens; 0 keeps all.
        top_p: Keep the likeliest tokens up to this sum of probability.
        min_p: Keep tokens of at least this share of the likeliest one's probability.
        typical_p: Locally typical sampling; 1.0 is off.
        top_n_sigma: Keep tokens within n standard deviations of the likeliest logit; -1 is off.
        xtc_probability: Chance of removing the likeliest tokens.
        xtc_threshold: Probability from which tokens count for that.
        dynatemp_range: Range of the dynamic temperature; 0 is off.
        dynatemp_exponent: Its exponent.
        repeat_last_n: Tokens looked back for penalties; 0 is off.
        repeat_penalty: Penalty for repetition; 1.0 is off.
        presence_penalty: As in the OpenAI API.
        frequency_penalty: As in the OpenAI API.
        dry_multiplier: DRY repetition penalty; 0 is off.
        dry_base: Its base.
        dry_allowed_length: Longest repetition that is free.
        dry_penalty_last_n: Tokens looked back for it.
        dry_sequence_breakers: Strings that break a repetition.
        mirostat: 0 off, 1 Mirostat, 2 Mirostat 2.0.
        mirostat_tau: Its target entropy.
        mirostat_eta: Its learning rate.
        samplers: The samplers in order.
        min_keep: Tokens that every sampler keeps at least.
        seed: Seed of the random numbers; -1 is a random one.
        stop: Strings that end the answer; they are not part of it.
        logit_bias: Token id or text to bias.
        ignore_eos: Go on after the end token.
        logprobs: Return log probabilities.
        top_logprobs: How many alternatives with each token, 0 to 20; implies `logprobs`.
        grammar: A GBNF grammar for the answer.
        json_schema: A JSON Schema for the answer.
        chat_template_kwargs: Variables for the template, for this call.
        reasoning: "on", "off" or "auto", for this call.
        reasoning_budget: Most tokens of thinking, for this call; -1 is no limit.
        cache_prompt: Reuse the KV cache of the last prompt; on by default.
        id_slot: Use this slot.
        n_keep: Tokens kept when the window is shifted.
        t_max_predict_ms: Most milliseconds of generation.
        timings_per_token: Timings in every chunk.
        extra_body: Further fields, sent as they are; the way to anything that has no name here.
    """

    max_tokens: int | None = Field(default=None, ge=-1)
    temperature: float | None = Field(default=None, ge=0)
    top_k: int | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, ge=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    typical_p: float | None = Field(default=None, ge=0, le=1)
    top_n_sigma: float | None = None
    xtc_probability: float | None = Field(default=None, ge=0, le=1)
    xtc_threshold: float | None = Field(default=None, ge=0, le=1)
    dynatemp_range: float | None = Field(default=None, ge=0)
    dynatemp_exponent: float | None = None
    repeat_last_n: int | None = Field(default=None, ge=0)
    repeat_penalty: float | None = Field(default=None, gt=0)
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = Field(default=None, ge=0)
    dry_base: float | None = None
    dry_allowed_length: int | None = Field(default=None, ge=0)
    dry_penalty_last_n: int | None = Field(default=None, ge=0)
    dry_sequence_breakers: Annotated[Sequence[str] | None, BeforeValidator(_stop_strings)] = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    samplers: Annotated[Sequence[str] | None, BeforeValidator(_string_tuple)] = None
    min_keep: int | None = Field(default=None, ge=0)
    seed: int | None = Field(default=None, ge=-1, le=2**32 - 1)
    stop: Annotated[Sequence[str] | None, BeforeValidator(_stop_strings)] = None
    logit_bias: Annotated[dict[str, float] | None, BeforeValidator(_text_keys)] = None
    ignore_eos: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning: Literal["on", "off", "auto"] | None = None
    reasoning_budget: int | None = Field(default=None, ge=-1)
    cache_prompt: bool | None = None
    id_slot: int | None = Field(default=None, ge=-1)
    n_keep: int | None = Field(default=None, ge=-1)
    t_max_predict_ms: int | None = Field(default=None, ge=0)
    timings_per_token: bool | None = None
    extra_body: dict[str, Any] | None = None


class SamplingSettings(SamplingOptions, FrozenSettings):
    """The parameters of one generation, as `/v1/chat/completions` of llama-server takes them.

    The fields are all those of `SamplingOptions`, and this one:

    Attributes:
        lora: Scales of LoRA adapters for this call, by id.
    """

    lora: tuple[dict[str, Any], ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SamplingSettings:
        if self.max_tokens == 0:
            # llama-server generates one token for 0 (seen on b11434), which is not what anybody means.
            raise ValueError("max_tokens=0: give a positive number, or -1 for no limit but the context window")
        if self.grammar is not None and self.json_schema is not None:
            raise ValueError("grammar and json_schema both set what may be generated: give one")
        return self

    def merged(self, changes: Mapping[str, Any]) -> SamplingSettings:
        """A copy with the changes that are not None; `stop` and the like are replaced, not added.

        Raises:
            ConfigurationError: An unknown name, or a value out of range.
        """
        effective = {
            name: value for name, value in changes.items() if value is not None or name not in type(self).model_fields
        }
        for name in effective:
            if name in ServerSettings.model_fields and name not in type(self).model_fields:
                raise ConfigurationError(
                    f"{name} belongs to the server and cannot change from call to call",
                    hint="Give it where the object is made.",
                )
        if not effective:
            return self
        merged: SamplingSettings = self.with_changes(effective)
        return merged


class TimeoutSettings(FrozenSettings):
    """The time limits of one call, in seconds; None is no limit. Each raises a `RequestTimeoutError` that names it.

    The start of the server has its own limit, `ServerSettings.start_timeout_seconds`, and is not part of `total`.

    Attributes:
        connect_seconds: To connect to the server. Default 10.
        first_token_seconds: From the request to the first token, waiting for a free slot included. Default 1800.
        between_tokens_seconds: Between two tokens. Default 300.
        total_seconds: For the whole call. Default None.
    """

    connect_seconds: float | None = Field(default=10.0, gt=0)
    first_token_seconds: float | None = Field(default=1800.0, gt=0)
    between_tokens_seconds: float | None = Field(default=300.0, gt=0)
    total_seconds: float | None = Field(default=None, gt=0)

    @classmethod
    def of(cls, timeout: float | TimeoutSettings | None) -> TimeoutSettings:
        """The limits for the `timeout` argument of a wrapper: a number is the limit of the whole call.

        Raises:
            ConfigurationError: The number is not positive.
        """
        if isinstance(timeout, TimeoutSettings):
            return timeout
        limits: TimeoutSettings = cls.build({"total_seconds": timeout})
        return limits
