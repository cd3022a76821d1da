"""llama-server's flags as far as the embedded library can honour them: one row each, with what it sets.

Loaded by `embedded.py`, which is run by path and knows no package; so this file imports nothing of localllama but its
neighbour, and nothing large at its top. Spellings, values and error texts are llama-server's (`common/arg.cpp`); a flag
that the library cannot honour has no row, is therefore not in `--help`, and is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING or __package__:
    from . import embedded_setters as to
    from .embedded_setters import FlagError, Setter, Settings
else:
    import embedded_setters as to
    from embedded_setters import FlagError, Setter, Settings

__all__ = ["FLAGS", "Flag", "apply_arguments", "help_text", "read_arguments"]


class Flag(NamedTuple):
    """One flag: its spellings, the name of its value ("" if it has none), its help line, what it does."""

    names: tuple[str, ...]
    value_name: str
    text: str
    apply: Setter


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
        _row(names_on, "", text, to.switch(attribute, not is_inverse)),
        _row(names_off, "", f"not: {text}", to.switch(attribute, is_inverse)),
    )


FLAGS: tuple[Flag, ...] = (
    _row("-m --model", "FNAME", "model path to load", to.string("model.path")),
    _row("-a --alias", "STRING", "model names for the API, comma-separated", to.words("model_alias")),
    _row("--tags", "STRING", "model tags, comma-separated", to.words("model_tags")),
    _row("--host", "HOST", "addresses, or UNIX socket paths ending in .sock, comma-separated", to.hosts),
    _row("--port", "PORT", "port to listen on (default: 8080)", to.integer("port")),
    _row("--reuse-port", "", "allow several sockets on one port", to.switch("reuse_port")),
    _row("--api-key", "KEY", "API keys, comma-separated", to.keys),
    _row("--api-key-file", "FNAME", "file of API keys, one per line; # begins a comment", to.key_file),
    _row("--cors-origins", "ORIGINS", "allowed origins; localhost reflects only local ones", to.origins),
    _row("--cors-methods", "METHODS", "allowed methods for CORS", to.string("cors_methods")),
    _row("--cors-headers", "HEADERS", "allowed headers for CORS", to.string("cors_headers")),
    *_pair("--cors-credentials", "--no-cors-credentials", "allow credentials for CORS", "cors_credentials"),
    *_pair("--ui --webui", "--no-ui --no-webui", "serve the Web UI (default: on)", "ui"),
    _row("-to --timeout", "N", "read and write timeout in seconds (default: 3600)", to.timeout),
    _row(
        "--sse-ping-interval",
        "N",
        "seconds between SSE pings, -1 is off (default: 30)",
        to.integer("sse_ping_interval"),
    ),
    _row("--threads-http", "N", "threads for HTTP requests", to.integer("n_threads_http")),
    _row("-t --threads", "N", "threads for generation", to.threads("cpuparams.n_threads")),
    _row("-tb --threads-batch", "N", "threads for the prompt", to.threads("cpuparams_batch.n_threads")),
    _row("--numa", "TYPE", "distribute, isolate or numactl", to.member("numa", "ggml_numa_strategy", _NUMA)),
    _row("-c --ctx-size", "N", "size of the context, all slots together (0: the model's)", to.context),
    _row("-b --batch-size", "N", "logical batch size (default: 2048)", to.integer("n_batch")),
    _row("-ub --ubatch-size", "N", "physical batch size (default: 512)", to.integer("n_ubatch")),
    _row("-np --parallel", "N", "slots (default: -1, automatic)", to.integer("n_parallel")),
    *_pair("-kvu --kv-unified", "-no-kvu --no-kv-unified", "one KV buffer shared by all slots", "kv_unified"),
    *_pair("-cb --cont-batching", "-nocb --no-cont-batching", "continuous batching (default: on)", "cont_batching"),
    *_pair("--context-shift", "--no-context-shift", "shift the context of endless answers", "ctx_shift"),
    *_pair("--cache-prompt", "--no-cache-prompt", "reuse the KV cache (default: on)", "cache_prompt"),
    *_pair("--cache-idle-slots", "--no-cache-idle-slots", "keep idle slots in RAM (default: on)", "cache_idle_slots"),
    _row("--cache-reuse", "N", "least chunk to reuse by KV shifting (default: 0, off)", to.integer("n_cache_reuse")),
    _row("-cram --cache-ram", "N", "most MiB of cached prompts (default: 8192)", to.integer("cache_ram_mib")),
    _row("-ctxcp --ctx-checkpoints --swa-checkpoints", "N", "checkpoints per slot", to.integer("n_ctx_checkpoints")),
    _row("-cms --checkpoint-min-step", "N", "tokens between checkpoints", to.integer("checkpoint_min_step")),
    _row("-sps --slot-prompt-similarity", "SIMILARITY", "likeness to reuse a slot", to.real("slot_prompt_similarity")),
    _row("--slot-save-path", "PATH", "directory to save slots in", to.directory("slot_save_path")),
    *_pair("--slots", "--no-slots", "the /slots endpoint (default: on)", "endpoint_slots"),
    _row("--metrics", "", "the /metrics endpoint", to.switch("endpoint_metrics")),
    _row("--props", "", "changing properties by POST /props", to.switch("endpoint_props")),
    _row("--sleep-idle-seconds", "SECONDS", "sleep after this long idle, -1 is off", to.integer("sleep_idle_seconds")),
    _row("--swa-full", "", "full-size cache for sliding windows", to.switch("swa_full")),
    _row(
        "-fa --flash-attn",
        "[on|off|auto]",
        "Flash Attention (default: auto)",
        to.member("flash_attn_type", "llama_flash_attn_type", _FLASH),
    ),
    _row("-ctk --cache-type-k", "TYPE", "KV cache type for K", to.member("cache_type_k", "ggml_type", _CACHE_TYPES)),
    _row("-ctv --cache-type-v", "TYPE", "KV cache type for V", to.member("cache_type_v", "ggml_type", _CACHE_TYPES)),
    *_pair("-kvo --kv-offload", "-nkvo --no-kv-offload", "KV cache on the GPU", "no_kv_offload", is_inverse=True),
    *_pair("--op-offload", "--no-op-offload", "host tensors' work on the GPU", "no_op_offload", is_inverse=True),
    *_pair("--repack", "-nr --no-repack", "repack weights (default: on)", "no_extra_bufts", is_inverse=True),
    _row("--no-host", "", "bypass the host buffer", to.switch("no_host")),
    _row(
        "-lm --load-mode",
        "MODE",
        "auto, none, mmap, mlock, mmap+mlock or dio",
        to.member("load_mode", "llama_load_mode", _LOAD),
    ),
    _row(
        "-lzm --lazy-mode", "MODE", "rows on demand: on, auto or off", to.member("lazy_mode", "llama_lazy_mode", _LAZY)
    ),
    _row("--check-tensors", "", "look for invalid values in the tensors", to.switch("check_tensors")),
    _row(
        "-ngl --gpu-layers --n-gpu-layers",
        "N",
        "layers on the GPU: a number, auto or all",
        to.layers("n_gpu_layers"),
    ),
    _row("-sm --split-mode", "MODE", "none, layer, row or tensor", to.member("split_mode", "llama_split_mode", _SPLIT)),
    _row("-ts --tensor-split", "N0,N1,...", "share of each GPU", to.tensor_split),
    _row("-mg --main-gpu", "INDEX", "the GPU for small tensors", to.integer("main_gpu")),
    _row("-fit --fit", "[on|off]", "fit unset values to memory", to.choice("fit_params", {"on": True, "off": False})),
    _row("-fitc --fit-ctx", "N", "least context that --fit may set", to.integer("fit_params_min_ctx")),
    _row("-ot --override-tensor", "PATTERN=TYPE,...", "buffer types of tensors", to.buffer_types),
    _row("-cmoe --cpu-moe", "", "experts stay on the CPU", to.experts_on_cpu),
    _row("-ncmoe --n-cpu-moe", "N", "experts of N layers stay on the CPU", to.some_experts_on_cpu),
    _row(
        "--rope-scaling",
        "TYPE",
        "none, linear or yarn",
        to.member("rope_scaling_type", "llama_rope_scaling_type", _ROPE),
    ),
    _row("--rope-scale", "N", "context scaling factor", to.rope_scale),
    _row("--rope-freq-base", "N", "base frequency", to.real("rope_freq_base")),
    _row("--rope-freq-scale", "N", "frequency scaling factor", to.real("rope_freq_scale")),
    _row("--yarn-orig-ctx", "N", "original context size", to.integer("yarn_orig_ctx")),
    _row("--yarn-ext-factor", "N", "extrapolation mix factor", to.real("yarn_ext_factor")),
    _row("--yarn-attn-factor", "N", "attention magnitude", to.real("yarn_attn_factor")),
    _row("--yarn-beta-slow", "N", "high correction dim", to.real("yarn_beta_slow")),
    _row("--yarn-beta-fast", "N", "low correction dim", to.real("yarn_beta_fast")),
    _row("--lora", "FNAME", "LoRA adapters, comma-separated", to.adapters),
    _row("--lora-scaled", "FNAME:SCALE,...", "LoRA adapters with their scales", to.scaled_adapters),
    _row("--lora-init-without-apply", "", "load adapters with scale 0", to.switch("lora_init_without_apply")),
    _row("-mm --mmproj", "FILE", "multimodal projector", to.string("mmproj.path")),
    *_pair("--mmproj-offload", "--no-mmproj-offload", "projector on the GPU", "mmproj_use_gpu"),
    _row("--image-min-tokens", "N", "least tokens of an image", to.integer("image_min_tokens")),
    _row("--image-max-tokens", "N", "most tokens of an image", to.integer("image_max_tokens")),
    _row("--media-path", "PATH", "directory of local media files", to.directory("media_path")),
    *_pair("--jinja", "--no-jinja", "Jinja templates (default: on)", "use_jinja"),
    _row("--chat-template", "JINJA_TEMPLATE", "chat template, or chatml", to.string("chat_template")),
    _row("--chat-template-file", "FILE", "file with a chat template", to.template_file),
    _row("--chat-template-kwargs", "STRING", "JSON object of template variables", to.template_variables),
    _row(
        "--reasoning-format",
        "FORMAT",
        "none, auto, deepseek or deepseek-legacy",
        to.member("reasoning_format", "common_reasoning_format", _REASONING_FORMATS),
    ),
    _row("-rea --reasoning", "[on|off|auto]", "thinking (default: auto)", to.reasoning),
    _row("--reasoning-budget", "N", "tokens of thinking, -1 no limit", to.integer("sampling.reasoning_budget_tokens")),
    _row("--reasoning-budget-message", "MESSAGE", "said at its end", to.string("sampling.reasoning_budget_message")),
    *_pair(
        "--skip-chat-parsing",
        "--no-skip-chat-parsing",
        "everything is content (default: off)",
        "force_pure_content_parser",
    ),
    *_pair("--prefill-assistant", "--no-prefill-assistant", "continue a last assistant message", "prefill_assistant"),
    _row("--embedding --embeddings", "", "embeddings only", to.switch("embedding")),
    _row("--rerank --reranking", "", "the reranking endpoint", to.rerank),
    _row(
        "--pooling", "TYPE", "none, mean, cls, last or rank", to.member("pooling_type", "llama_pooling_type", _POOLING)
    ),
    _row("--embd-normalize", "N", "normalisation of embeddings (default: 2)", to.integer("embd_normalize")),
    _row("--spec-draft-model -md --model-draft", "FNAME", "draft model", to.string("speculative.draft.mparams.path")),
    _row("--spec-type", "TYPES", "kinds of speculative decoding, such as draft-simple", to.draft_types),
    _row("--spec-draft-n-max", "N", "most tokens to draft (default: 3)", to.integer("speculative.draft.n_max")),
    _row("--spec-draft-n-min", "N", "fewest tokens to draft (default: 0)", to.integer("speculative.draft.n_min")),
    _row("--spec-draft-p-min --draft-p-min", "P", "least probability", to.real("speculative.draft.p_min")),
    _row(
        "--spec-draft-ngl -ngld --gpu-layers-draft --n-gpu-layers-draft",
        "N",
        "layers of the draft model on the GPU",
        to.layers("speculative.draft.n_gpu_layers"),
    ),
    _row(
        "--spec-draft-type-k -ctkd --cache-type-k-draft",
        "TYPE",
        "KV cache type for K of the draft model",
        to.member("speculative.draft.cache_type_k", "ggml_type", _CACHE_TYPES),
    ),
    _row(
        "--spec-draft-type-v -ctvd --cache-type-v-draft",
        "TYPE",
        "KV cache type for V of the draft model",
        to.member("speculative.draft.cache_type_v", "ggml_type", _CACHE_TYPES),
    ),
    _row("-n --predict --n-predict", "N", "tokens to predict (default: -1, no limit)", to.integer("n_predict")),
    _row("--keep", "N", "tokens kept of the first prompt", to.integer("n_keep")),
    _row("-s --seed", "SEED", "seed (default: -1, random)", to.seed),
    _row("--temp --temperature", "N", "temperature", to.sampling("temp", to.read_real, "TEMP")),
    _row("--top-k", "N", "top-k sampling", to.sampling("top_k", to.read_integer, "TOP_K")),
    _row("--top-p", "N", "top-p sampling", to.sampling("top_p", to.read_real, "TOP_P")),
    _row("--min-p", "N", "min-p sampling", to.sampling("min_p", to.read_real, "MIN_P")),
    _row("--repeat-penalty", "N", "penalty", to.sampling("penalty_repeat", to.read_real, "PENALTY_REPEAT")),
    _row("--repeat-last-n", "N", "its length", to.sampling("penalty_last_n", to.read_integer, "PENALTY_LAST_N")),
    _row("--presence-penalty", "N", "presence penalty", to.real("sampling.penalty_present")),
    _row("--frequency-penalty", "N", "frequency penalty", to.real("sampling.penalty_freq")),
    _row("--samplers", "SAMPLERS", "samplers in order, by ;", to.sampling("samplers", str, "SAMPLERS")),
    _row("--ignore-eos", "", "go on after the end token", to.switch("sampling.ignore_eos")),
    *_pair("--warmup", "--no-warmup", "an empty run first (default: on)", "warmup"),
    _row("-sp --special", "", "special tokens in the output", to.switch("special")),
    _row("-lv --verbosity --log-verbosity", "N", "0 output, 1 error, 2 warning, 3 info, ...", to.integer("verbosity")),
    _row("-v --verbose --log-verbose", "", "log everything", to.switch("verbosity", 2**31 - 1)),
    _row("--offline", "", "no network", to.switch("offline")),
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
