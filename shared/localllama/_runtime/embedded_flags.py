"""llama-server's flags as far as the embedded library can honour them: one row each, with what it sets.

Loaded by `embedded.py`, which is run by path and knows no package; so this file imports nothing of localllama, and
nothing large at its top. Spellings, values and error texts are llama-server's (`common/arg.cpp`); a flag that the
library cannot honour has no row, is therefore not in `--help`, and is refused by name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

__all__ = ["FLAGS", "Flag", "FlagError", "Settings", "help_text", "read_arguments"]


class FlagError(Exception):
    """The command line is wrong; the text is what llama-server would print."""


class Settings(NamedTuple):
    """What the rows write to: the library and its parameters."""

    library: Any
    params: Any


Setter = Callable[[Settings, str], None]


class Flag(NamedTuple):
    """One flag: its spellings, the name of its value ("" if it has none), its help line, what it does."""

    names: tuple[str, ...]
    value_name: str
    text: str
    apply: Setter


def _assign(settings: Settings, attribute: str, value: Any) -> None:
    target = settings.params
    *parents, last = attribute.split(".")
    for name in parents:
        target = getattr(target, name)
    setattr(target, last, value)


def _integer(attribute: str) -> Setter:
    def apply(settings: Settings, text: str) -> None:
        _assign(settings, attribute, _read_integer(text))

    return apply


def _read_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise FlagError(f"{text!r} is not a whole number") from None


def _real(attribute: str) -> Setter:
    def apply(settings: Settings, text: str) -> None:
        _assign(settings, attribute, _read_real(text))

    return apply


def _read_real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise FlagError(f"{text!r} is not a number") from None


def _sampling(attribute: str, convert: Callable[[str], Any], bit: str) -> Setter:
    # The bit says that the user chose the value; without it the model's own recommendation would win.
    def apply(settings: Settings, text: str) -> None:
        _assign(settings, f"sampling.{attribute}", convert(text))
        bits = settings.library.common_params_sampling_config
        settings.params.sampling.user_sampling_config |= int(getattr(bits, f"COMMON_PARAMS_SAMPLING_CONFIG_{bit}"))

    return apply


def _text(attribute: str) -> Setter:
    return lambda settings, text: _assign(settings, attribute, text)


def _words(attribute: str) -> Setter:
    return lambda settings, text: _assign(settings, attribute, {part.strip() for part in text.split(",") if part})


def _switch(attribute: str, value: Any = True) -> Setter:
    return lambda settings, _text: _assign(settings, attribute, value)


def _choice(attribute: str, names: dict[str, Any]) -> Setter:
    def apply(settings: Settings, text: str) -> None:
        if text not in names:
            raise FlagError(f"unknown value {text!r}; the values are: {', '.join(names)}")
        _assign(settings, attribute, names[text])

    return apply


def _member(attribute: str, enumeration: str, names: dict[str, str]) -> Setter:
    def apply(settings: Settings, text: str) -> None:
        if text not in names:
            raise FlagError(f"unknown value {text!r}; the values are: {', '.join(names)}")
        _assign(settings, attribute, getattr(getattr(settings.library, enumeration), names[text]))

    return apply


def _layers(attribute: str) -> Setter:
    special = {"auto": -1, "all": -2}

    def apply(settings: Settings, text: str) -> None:
        _assign(settings, attribute, special[text] if text in special else _read_integer(text))

    return apply


def _threads(attribute: str) -> Setter:
    def apply(settings: Settings, text: str) -> None:
        number = _read_integer(text)
        _assign(settings, attribute, number if number > 0 else os.cpu_count() or 1)

    return apply


def _context(settings: Settings, text: str) -> None:
    settings.params.n_ctx = _read_integer(text)
    if settings.params.n_ctx == 0:
        # As llama-server: "all that the model was trained for" is not to be shrunk by --fit.
        settings.params.fit_params_min_ctx = 2**32 - 1


def _hosts(settings: Settings, text: str) -> None:
    import csv

    settings.params.hostnames = [part.strip() for part in next(csv.reader([text], skipinitialspace=True))]


def _template_file(settings: Settings, text: str) -> None:
    settings.params.chat_template = _read_file(text)


def _read_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        raise FlagError(f"error: failed to open file '{path}'") from None


def _template_variables(settings: Settings, text: str) -> None:
    import json

    try:
        variables = json.loads(text)
    except ValueError as error:
        raise FlagError(f"parse error: {error}") from None
    if not isinstance(variables, dict):
        raise FlagError("not a JSON object")
    known = dict(settings.params.default_template_kwargs)
    known.update({name: json.dumps(value) for name, value in variables.items()})
    settings.params.default_template_kwargs = known


def _keys(settings: Settings, text: str) -> None:
    settings.params.api_keys = [*settings.params.api_keys, *[key for key in text.split(",") if key]]


def _key_file(settings: Settings, text: str) -> None:
    lines = [line.strip() for line in _read_file(text).splitlines()]
    settings.params.api_keys = [*settings.params.api_keys, *[line for line in lines if line and line[0] != "#"]]


def _adapters(settings: Settings, text: str) -> None:
    _add_adapters(settings, [(path, 1.0) for path in text.split(",")])


def _scaled_adapters(settings: Settings, text: str) -> None:
    pairs = [part.rpartition(":") for part in text.split(",")]
    if not all(path for path, _, _ in pairs):
        raise FlagError("lora-scaled format: FNAME:SCALE")
    _add_adapters(settings, [(path, _read_real(scale)) for path, _, scale in pairs])


def _add_adapters(settings: Settings, adapters: list[tuple[str, float]]) -> None:
    make = settings.library.CommonAdapterLoraInfo
    present = [make(adapter.path, adapter.scale) for adapter in settings.params.lora_adapters]
    settings.params.lora_adapters = present + [make(path, scale) for path, scale in adapters]


def _directory(attribute: str) -> Setter:
    def apply(settings: Settings, text: str) -> None:
        if not os.path.isdir(text):  # noqa: PTH112 - pathlib is slow to import
            raise FlagError(f"not a directory: {text}")
        # llama.cpp joins directory and file name by plain concatenation.
        _assign(settings, attribute, text if text.endswith(("/", os.sep)) else text + os.sep)

    return apply


def _origins(settings: Settings, text: str) -> None:
    settings.params.cors_origins = text
    settings.params.cors_origins_explicit = True


def _draft_types(settings: Settings, text: str) -> None:
    kinds = settings.library.common_speculative_type
    chosen = []
    for part in text.split(","):
        name = f"COMMON_SPECULATIVE_TYPE_{part.strip().upper().replace('-', '_')}"
        if not hasattr(kinds, name) or name.endswith("_COUNT"):
            raise FlagError(f"unknown speculative type: {part.strip()}")
        chosen.append(getattr(kinds, name))
    settings.params.speculative.types = chosen


def _buffer_types(settings: Settings, text: str) -> None:
    present = settings.params.tensor_buft_overrides
    settings.params.tensor_buft_overrides = f"{present},{text}" if present else text


_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"


def _experts_on_cpu(settings: Settings, _value: str) -> None:
    _buffer_types(settings, f"{_EXPERTS}=CPU")


def _some_experts_on_cpu(settings: Settings, text: str) -> None:
    for layer in range(_read_integer(text)):
        _buffer_types(settings, rf"blk\.{layer}{_EXPERTS}=CPU")


def _tensor_split(settings: Settings, text: str) -> None:
    shares = [_read_real(part) for part in text.replace("/", ",").split(",")]
    n_devices = len(settings.params.tensor_split)
    if len(shares) > n_devices:
        raise FlagError(f"got {len(shares)} shares, at most {n_devices} devices are known")
    settings.params.tensor_split = shares + [0.0] * (n_devices - len(shares))


def _rerank(settings: Settings, _value: str) -> None:
    settings.params.embedding = True
    settings.params.pooling_type = settings.library.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


_CACHE_TYPES = {
    name: f"GGML_TYPE_{name.upper()}"
    for name in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
}


def _enumerated(prefix: str, *names: str) -> dict[str, str]:
    return {name: f"{prefix}_{name.upper().replace('-', '_').replace('+', '_')}" for name in names}


_POOLING = _enumerated("LLAMA_POOLING_TYPE", "none", "mean", "cls", "last", "rank")
_ROPE = _enumerated("LLAMA_ROPE_SCALING_TYPE", "none", "linear", "yarn")
_SPLIT = _enumerated("LLAMA_SPLIT_MODE", "none", "layer", "row", "tensor")
_NUMA = _enumerated("GGML_NUMA_STRATEGY", "distribute", "isolate", "numactl")
_LOAD = {
    **_enumerated("LLAMA_LOAD_MODE", "auto", "none", "mmap", "mlock", "mmap+mlock"),
    "dio": "LLAMA_LOAD_MODE_DIRECT_IO",
}
_LAZY = _enumerated("LLAMA_LAZY_MODE", "on", "auto", "off")
_FLASH = {
    "on": "LLAMA_FLASH_ATTN_TYPE_ENABLED",
    "off": "LLAMA_FLASH_ATTN_TYPE_DISABLED",
    "auto": "LLAMA_FLASH_ATTN_TYPE_AUTO",
}
_REASONING_FORMATS = _enumerated("COMMON_REASONING_FORMAT", "none", "auto", "deepseek", "deepseek-legacy")


def _row(names: str, value_name: str, text: str, apply: Setter) -> Flag:
    return Flag(tuple(names.split()), value_name, text, apply)


def _pair(names_on: str, names_off: str, text: str, attribute: str, *, is_inverse: bool = False) -> tuple[Flag, Flag]:
    return (
        _row(names_on, "", text, _switch(attribute, not is_inverse)),
        _row(names_off, "", f"the opposite of {names_on.rsplit(maxsplit=1)[-1]}", _switch(attribute, is_inverse)),
    )


def _timeout(settings: Settings, text: str) -> None:
    settings.params.timeout_read = settings.params.timeout_write = _read_integer(text)


def _rope_scale(settings: Settings, text: str) -> None:
    factor = _read_real(text)
    if factor == 0:
        raise FlagError("the factor is 0")
    settings.params.rope_freq_scale = 1.0 / factor


def _seed(settings: Settings, text: str) -> None:
    settings.params.sampling.seed = _read_integer(text) % 2**32


FLAGS: tuple[Flag, ...] = (
    _row("-m --model", "FNAME", "model path to load", _text("model.path")),
    _row("-a --alias", "STRING", "model names for the API, comma-separated", _words("model_alias")),
    _row("--tags", "STRING", "model tags, comma-separated", _words("model_tags")),
    _row("--host", "HOST", "addresses, or UNIX socket paths ending in .sock, comma-separated", _hosts),
    _row("--port", "PORT", "port to listen on (default: 8080)", _integer("port")),
    _row("--reuse-port", "", "allow several sockets on one port", _switch("reuse_port")),
    _row("--api-key", "KEY", "API keys, comma-separated", _keys),
    _row("--api-key-file", "FNAME", "file of API keys, one per line; # begins a comment", _key_file),
    _row("--cors-origins", "ORIGINS", "allowed origins; localhost reflects only local ones", _origins),
    _row("--cors-methods", "METHODS", "allowed methods for CORS", _text("cors_methods")),
    _row("--cors-headers", "HEADERS", "allowed headers for CORS", _text("cors_headers")),
    *_pair("--cors-credentials", "--no-cors-credentials", "allow credentials for CORS", "cors_credentials"),
    *_pair("--ui --webui", "--no-ui --no-webui", "serve the Web UI (default: on)", "ui"),
    _row("-to --timeout", "N", "read and write timeout in seconds (default: 3600)", _timeout),
    _row(
        "--sse-ping-interval", "N", "seconds between SSE pings, -1 is off (default: 30)", _integer("sse_ping_interval")
    ),
    _row("--threads-http", "N", "threads for HTTP requests", _integer("n_threads_http")),
    _row("-t --threads", "N", "threads for generation", _threads("cpuparams.n_threads")),
    _row("-tb --threads-batch", "N", "threads for the prompt", _threads("cpuparams_batch.n_threads")),
    _row("--numa", "TYPE", "distribute, isolate or numactl", _member("numa", "ggml_numa_strategy", _NUMA)),
    _row("-c --ctx-size", "N", "size of the context, all slots together (0: the model's)", _context),
    _row("-b --batch-size", "N", "logical batch size (default: 2048)", _integer("n_batch")),
    _row("-ub --ubatch-size", "N", "physical batch size (default: 512)", _integer("n_ubatch")),
    _row("-np --parallel", "N", "slots (default: -1, automatic)", _integer("n_parallel")),
    *_pair("-kvu --kv-unified", "-no-kvu --no-kv-unified", "one KV buffer shared by all slots", "kv_unified"),
    *_pair("-cb --cont-batching", "-nocb --no-cont-batching", "continuous batching (default: on)", "cont_batching"),
    *_pair("--context-shift", "--no-context-shift", "shift the context of endless answers", "ctx_shift"),
    *_pair("--cache-prompt", "--no-cache-prompt", "reuse the KV cache (default: on)", "cache_prompt"),
    *_pair("--cache-idle-slots", "--no-cache-idle-slots", "keep idle slots in RAM (default: on)", "cache_idle_slots"),
    _row("--cache-reuse", "N", "least chunk to reuse by KV shifting (default: 0, off)", _integer("n_cache_reuse")),
    _row("-cram --cache-ram", "N", "most MiB of cached prompts (default: 8192)", _integer("cache_ram_mib")),
    _row("-ctxcp --ctx-checkpoints --swa-checkpoints", "N", "checkpoints per slot", _integer("n_ctx_checkpoints")),
    _row("-cms --checkpoint-min-step", "N", "tokens between checkpoints", _integer("checkpoint_min_step")),
    _row("-sps --slot-prompt-similarity", "SIMILARITY", "likeness to reuse a slot", _real("slot_prompt_similarity")),
    _row("--slot-save-path", "PATH", "directory to save slots in", _directory("slot_save_path")),
    *_pair("--slots", "--no-slots", "the /slots endpoint (default: on)", "endpoint_slots"),
    _row("--metrics", "", "the /metrics endpoint", _switch("endpoint_metrics")),
    _row("--props", "", "changing properties by POST /props", _switch("endpoint_props")),
    _row("--sleep-idle-seconds", "SECONDS", "sleep after this long idle, -1 is off", _integer("sleep_idle_seconds")),
    _row("--swa-full", "", "full-size cache for sliding windows", _switch("swa_full")),
    _row(
        "-fa --flash-attn",
        "[on|off|auto]",
        "Flash Attention (default: auto)",
        _member("flash_attn_type", "llama_flash_attn_type", _FLASH),
    ),
    _row("-ctk --cache-type-k", "TYPE", "KV cache type for K", _member("cache_type_k", "ggml_type", _CACHE_TYPES)),
    _row("-ctv --cache-type-v", "TYPE", "KV cache type for V", _member("cache_type_v", "ggml_type", _CACHE_TYPES)),
    *_pair("-kvo --kv-offload", "-nkvo --no-kv-offload", "KV cache on the GPU", "no_kv_offload", is_inverse=True),
    *_pair("--op-offload", "--no-op-offload", "host tensors' work on the GPU", "no_op_offload", is_inverse=True),
    *_pair("--repack", "-nr --no-repack", "repack weights (default: on)", "no_extra_bufts", is_inverse=True),
    _row("--no-host", "", "bypass the host buffer", _switch("no_host")),
    _row(
        "-lm --load-mode",
        "MODE",
        "auto, none, mmap, mlock, mmap+mlock or dio",
        _member("load_mode", "llama_load_mode", _LOAD),
    ),
    _row("-lzm --lazy-mode", "MODE", "rows on demand: on, auto or off", _member("lazy_mode", "llama_lazy_mode", _LAZY)),
    _row("--check-tensors", "", "look for invalid values in the tensors", _switch("check_tensors")),
    _row("-ngl --gpu-layers --n-gpu-layers", "N", "layers on the GPU: a number, auto or all", _layers("n_gpu_layers")),
    _row("-sm --split-mode", "MODE", "none, layer, row or tensor", _member("split_mode", "llama_split_mode", _SPLIT)),
    _row("-ts --tensor-split", "N0,N1,...", "share of each GPU", _tensor_split),
    _row("-mg --main-gpu", "INDEX", "the GPU for small tensors", _integer("main_gpu")),
    _row("-fit --fit", "[on|off]", "fit unset values to memory", _choice("fit_params", {"on": True, "off": False})),
    _row("-fitc --fit-ctx", "N", "least context that --fit may set", _integer("fit_params_min_ctx")),
    _row("-ot --override-tensor", "PATTERN=TYPE,...", "buffer types of tensors", _buffer_types),
    _row("-cmoe --cpu-moe", "", "experts stay on the CPU", _experts_on_cpu),
    _row("-ncmoe --n-cpu-moe", "N", "experts of N layers stay on the CPU", _some_experts_on_cpu),
    _row(
        "--rope-scaling", "TYPE", "none, linear or yarn", _member("rope_scaling_type", "llama_rope_scaling_type", _ROPE)
    ),
    _row("--rope-scale", "N", "context scaling factor", _rope_scale),
    _row("--rope-freq-base", "N", "base frequency", _real("rope_freq_base")),
    _row("--rope-freq-scale", "N", "frequency scaling factor", _real("rope_freq_scale")),
    _row("--yarn-orig-ctx", "N", "original context size", _integer("yarn_orig_ctx")),
    _row("--yarn-ext-factor", "N", "extrapolation mix factor", _real("yarn_ext_factor")),
    _row("--yarn-attn-factor", "N", "attention magnitude", _real("yarn_attn_factor")),
    _row("--yarn-beta-slow", "N", "high correction dim", _real("yarn_beta_slow")),
    _row("--yarn-beta-fast", "N", "low correction dim", _real("yarn_beta_fast")),
    _row("--lora", "FNAME", "LoRA adapters, comma-separated", _adapters),
    _row("--lora-scaled", "FNAME:SCALE,...", "LoRA adapters with their scales", _scaled_adapters),
    _row("--lora-init-without-apply", "", "load adapters with scale 0", _switch("lora_init_without_apply")),
    _row("-mm --mmproj", "FILE", "multimodal projector", _text("mmproj.path")),
    *_pair("--mmproj-offload", "--no-mmproj-offload", "projector on the GPU", "mmproj_use_gpu"),
    _row("--image-min-tokens", "N", "least tokens of an image", _integer("image_min_tokens")),
    _row("--image-max-tokens", "N", "most tokens of an image", _integer("image_max_tokens")),
    _row("--media-path", "PATH", "directory of local media files", _directory("media_path")),
    *_pair("--jinja", "--no-jinja", "Jinja templates (default: on)", "use_jinja"),
    _row("--chat-template", "JINJA_TEMPLATE", "chat template, or chatml", _text("chat_template")),
    _row("--chat-template-file", "FILE", "file with a chat template", _template_file),
    _row("--chat-template-kwargs", "STRING", "JSON object of template variables", _template_variables),
    _row(
        "--reasoning-format",
        "FORMAT",
        "none, auto, deepseek or deepseek-legacy",
        _member("reasoning_format", "common_reasoning_format", _REASONING_FORMATS),
    ),
    _row(
        "-rea --reasoning",
        "[on|off|auto]",
        "thinking (default: auto)",
        _choice("enable_reasoning", {"on": 1, "off": 0, "auto": -1}),
    ),
    _row("--reasoning-budget", "N", "tokens of thinking, -1 no limit", _integer("sampling.reasoning_budget_tokens")),
    _row("--reasoning-budget-message", "MESSAGE", "said at its end", _text("sampling.reasoning_budget_message")),
    *_pair(
        "--skip-chat-parsing",
        "--no-skip-chat-parsing",
        "everything is content (default: off)",
        "force_pure_content_parser",
    ),
    *_pair("--prefill-assistant", "--no-prefill-assistant", "continue a last assistant message", "prefill_assistant"),
    _row("--embedding --embeddings", "", "embeddings only", _switch("embedding")),
    _row("--rerank --reranking", "", "the reranking endpoint", _rerank),
    _row("--pooling", "TYPE", "none, mean, cls, last or rank", _member("pooling_type", "llama_pooling_type", _POOLING)),
    _row("--embd-normalize", "N", "normalisation of embeddings (default: 2)", _integer("embd_normalize")),
    _row("--spec-draft-model -md --model-draft", "FNAME", "draft model", _text("speculative.draft.mparams.path")),
    _row("--spec-type", "TYPES", "kinds of speculative decoding, such as draft-simple", _draft_types),
    _row("--spec-draft-n-max", "N", "most tokens to draft (default: 3)", _integer("speculative.draft.n_max")),
    _row("--spec-draft-n-min", "N", "fewest tokens to draft (default: 0)", _integer("speculative.draft.n_min")),
    _row("--spec-draft-p-min --draft-p-min", "P", "least probability", _real("speculative.draft.p_min")),
    _row(
        "--spec-draft-ngl -ngld --gpu-layers-draft --n-gpu-layers-draft",
        "N",
        "layers of the draft model on the GPU",
        _layers("speculative.draft.n_gpu_layers"),
    ),
    _row(
        "--spec-draft-type-k -ctkd --cache-type-k-draft",
        "TYPE",
        "KV cache type for K of the draft model",
        _member("speculative.draft.cache_type_k", "ggml_type", _CACHE_TYPES),
    ),
    _row(
        "--spec-draft-type-v -ctvd --cache-type-v-draft",
        "TYPE",
        "KV cache type for V of the draft model",
        _member("speculative.draft.cache_type_v", "ggml_type", _CACHE_TYPES),
    ),
    _row("-n --predict --n-predict", "N", "tokens to predict (default: -1, no limit)", _integer("n_predict")),
    _row("--keep", "N", "tokens kept of the first prompt", _integer("n_keep")),
    _row("-s --seed", "SEED", "seed (default: -1, random)", _seed),
    _row("--temp --temperature", "N", "temperature", _sampling("temp", _read_real, "TEMP")),
    _row("--top-k", "N", "top-k sampling", _sampling("top_k", _read_integer, "TOP_K")),
    _row("--top-p", "N", "top-p sampling", _sampling("top_p", _read_real, "TOP_P")),
    _row("--min-p", "N", "min-p sampling", _sampling("min_p", _read_real, "MIN_P")),
    _row("--repeat-penalty", "N", "penalty", _sampling("penalty_repeat", _read_real, "PENALTY_REPEAT")),
    _row("--repeat-last-n", "N", "its length", _sampling("penalty_last_n", _read_integer, "PENALTY_LAST_N")),
    _row("--presence-penalty", "N", "presence penalty", _real("sampling.penalty_present")),
    _row("--frequency-penalty", "N", "frequency penalty", _real("sampling.penalty_freq")),
    _row("--samplers", "SAMPLERS", "samplers in order, by ;", _sampling("samplers", str, "SAMPLERS")),
    _row("--ignore-eos", "", "go on after the end token", _switch("sampling.ignore_eos")),
    *_pair("--warmup", "--no-warmup", "an empty run first (default: on)", "warmup"),
    _row("-sp --special", "", "special tokens in the output", _switch("special")),
    _row("-lv --verbosity --log-verbosity", "N", "0 output, 1 error, 2 warning, 3 info, ...", _integer("verbosity")),
    _row("-v --verbose --log-verbose", "", "log everything", _switch("verbosity", 2**31 - 1)),
    _row("--offline", "", "no network", _switch("offline")),
)


_HELP_COLUMN = 40


def help_text() -> str:
    """The `--help` output, in llama-server's layout, so that one parser reads both."""
    lines = ["----- common params -----", "", "-h,    --help, --usage                  print usage and exit"]
    lines.append("--version                               show version and build info")
    for flag in FLAGS:
        left = f"{', '.join(flag.names)} {flag.value_name}".rstrip()
        if len(left) > _HELP_COLUMN - 3:
            lines += [left, " " * _HELP_COLUMN + flag.text]
        else:
            lines.append(f"{left:<{_HELP_COLUMN}}{flag.text}")
    return "\n".join(lines) + "\n"


def read_arguments(arguments: Sequence[str]) -> Iterator[tuple[Flag, str, str]]:
    """The command line as rows of the table, each with the spelling used and its value.

    Raises:
        FlagError: An unknown flag, or a value is missing.
    """
    by_name = {name: flag for flag in FLAGS for name in flag.names}
    rest = iter(arguments)
    for name in rest:
        # llama.cpp takes --long_name for --long-name too (common/arg.cpp).
        flag = by_name.get(name.replace("_", "-") if name.startswith("--") else name)
        if flag is None:
            raise FlagError(f"error: invalid argument: {name}")
        value = next(rest, None) if flag.value_name else ""
        if value is None:
            raise FlagError(f'error while handling argument "{name}": expected value for argument')
        yield flag, name, value


def apply_arguments(library: Any, arguments: Sequence[str]) -> Any:
    """llama-server's parameters for this command line, defaults included.

    Raises:
        FlagError: A flag or a value is wrong; nothing has been started.
    """
    settings = Settings(library, library.CommonParams())
    # Where the library's defaults are not those of llama-server.
    settings.params.n_parallel = -1
    settings.params.port = 8080
    for flag, name, value in read_arguments(arguments):
        _apply(flag, name, value, settings)
    return settings.params


def _apply(flag: Flag, name: str, value: str, settings: Settings) -> None:
    try:
        flag.apply(settings, value)
    except (FlagError, ValueError, OverflowError, TypeError, RuntimeError) as error:
        raise FlagError(f'error while handling argument "{name}": {error}') from None


if __name__ == "__main__":
    sys.stdout.write(help_text())
