"""Why a server ended before it was ready, from its exit status and the end of its log. Pure.

The kind decides what happens next: a fault of the runtime sends the walk down the ladder on to the next rung, while one
of the model or of the settings would be the same with any rung. The texts are llama.cpp's own; `tests/core/server/
start_logs` holds the logs they were seen in. Since llama.cpp's log can lose its last lines when a process exits, an exit
status without any text is "unknown" and never guessed at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from localllama._runtime.exit_reason import fault_words, loader_fault, signal_behind, signal_name

__all__ = ["FailureKind", "StartFailure", "classify_start_failure"]

FailureKind = Literal["runtime", "model", "settings", "resources", "address", "unknown"]


@dataclass(frozen=True)
class StartFailure:
    """Why a server did not start.

    Attributes:
        kind: "runtime", this program cannot do it, another may; "model"; "settings"; "resources", not enough memory;
            "address", the socket or port is taken; or "unknown".
        reason: One sentence for people.
        hint: What to do about it.
    """

    kind: FailureKind
    reason: str
    hint: str


NEXT_RUNTIME = 'Update or reinstall llama.cpp, or use the embedded runtime: pip install "localllama[runtime]"'
_FIX_SETTING = "Correct the setting."
_SMALLER = "Use a smaller model or quantization, a smaller n_ctx, fewer parallel slots or fewer n_gpu_layers."
_LIMITS = "Raise the limits on memory and processes that this program runs under: see `ulimit -v` and `ulimit -u`."
_FETCH_AGAIN = "Fetch or copy the file again, and compare its size or checksum with the source's."

# In the order in which they are looked for: what is said in passing by many failures comes after what explains one.
_RULES: tuple[tuple[FailureKind, str, str], ...] = (
    # The program's own limits.
    ("runtime", r"error: invalid argument: [^\n]+", NEXT_RUNTIME),
    ("runtime", r"the argument has been removed\.[^\n]*", NEXT_RUNTIME),
    # A file that is newer than the build: another build may know it, and our own reader has found no fault with it.
    ("runtime", r"unknown (?:model architecture|pre-tokenizer type|tokenizer): '[^'\n]*'", NEXT_RUNTIME),
    ("runtime", r"this GGUF file is version \d+ but this software only supports up to version \d+", NEXT_RUNTIME),
    ("runtime", r"tensor '[^'\n]*' has invalid ggml type [^\n]+", NEXT_RUNTIME),
    ("runtime", r"error: cannot load xllamacpp[^\n]*", "Run: pip install --force-reinstall --no-deps xllamacpp"),
    ("runtime", r"no backends are loaded[^\n]*", NEXT_RUNTIME),
    # Where it was to listen.
    ("address", r"couldn't bind HTTP server socket[^\n]*", "Try again."),
    # Memory, of either kind. Before "failed to create context", which follows in the log.
    ("resources", r"(?:CUDA error: out of memory|cudaMalloc failed: out of memory)[^\n]*", _SMALLER),
    ("resources", r"[^\n:]*(?:ErrorOutOfDeviceMemory|ErrorOutOfHostMemory)[^\n]*", _SMALLER),
    ("resources", r"insufficient memory \(attempted to allocate [^)\n]+\)", _SMALLER),
    ("resources", r"Device memory allocation of size \d+ failed[^\n]*", _SMALLER),
    ("resources", r"failed to allocate (?:compute )?(?:\S+ )?buffer[^\n]*", _SMALLER),
    ("resources", r"unable to allocate [^\n]+", _SMALLER),
    ("resources", r"(?:std::)?bad_alloc", _SMALLER),
    # A thread that cannot be made: no memory for its stack, or too many of them.
    ("resources", r"(?:Resource temporarily unavailable|can't start new thread)[^\n]*", _LIMITS),
    ("resources", r"(?:Cannot allocate memory|mmap failed)[^\n]*", _SMALLER),
    # What the user set.
    ("settings", r'error while handling (?:argument|environment variable) "[^\n]+', _FIX_SETTING),
    ("settings", r"error: the supplied chat template is not supported[^\n]*", "Correct chat_template."),
    (
        "settings",
        r"(?:failed to initialize chat template|parser: Parser Error|Parser Error:)[^\n]*",
        "Correct the template.",
    ),
    ("settings", r"[^\n:]*(?:failed to (?:load|apply) lora adapter|llama_adapter_lora_init)[^\n]*", "Correct lora."),
    ("settings", r"[^\n:]*(?:failed to load multimodal model|clip_init|mtmd_init_from_file)[^\n]*", "Correct mmproj."),
    ("settings", r"[^\n:]*failed to load draft model[^\n]*", "Correct draft_model."),
    (
        "settings",
        r"(?:V cache quantization requires flash_attn|quantized V cache)[^\n]*",
        "Set flash_attn='on'.",
    ),
    ("settings", r"[KV] cache type \S+ with block size[^\n]*", "Choose another cache type."),
    # The model's file.
    ("model", r"tensor '[^'\n]*' (?:data is not within)[^\n]*", _FETCH_AGAIN),
    ("model", r"model is corrupted or incomplete[^\n]*", _FETCH_AGAIN),
    ("model", r"gguf_init_from_(?:file|reader)\w*: [^\n]+", _FETCH_AGAIN),
    ("model", r"error loading model[^\n:]*: [^\n]+", _FETCH_AGAIN),
    (
        "settings",
        r"[^\n:]*failed to create context[^\n]*",
        "Try a smaller n_ctx, or leave cache types and flash_attn out.",
    ),
    ("settings", r"[^\n:]*failed to (?:create|initialize) the context[^\n]*", "Try a smaller n_ctx."),
    ("model", r"failed to load model[^\n]*", _FETCH_AGAIN),
)
_COMPILED = tuple((kind, re.compile(pattern), hint) for kind, pattern, hint in _RULES)
# Timestamp, level and part of the program, as b11434 prints them: "0.00.007.339 E srv    load_model: ".
_LONGEST_LINE = 300  # characters
_LOG_PREFIX = re.compile(r"^\d+(?:\.\d+){3} [A-Z] (?:\w{3} +)?")
_LAST_WORDS = re.compile(
    r"^(?:\d+(?:\.\d+){3} E [^\n]+|[^\n]*GGML_ASSERT\([^\n]+|(?:terminate called|error:)[^\n]+)", re.MULTILINE
)
_CANNOT_RUN_SIGNALS = frozenset({"SIGILL", "SIGBUS", "SIGSYS"})
# With no reason in the log they are faults of the build, such as a driver that it cannot work with.
_CRASHES = frozenset({"SIGSEGV", "SIGTRAP", "SIGFPE", "SIGABRT"})
_CANNOT_RUN_CODES = frozenset({126, 127, 0xC0000135, 0xC0000139, 0xC000007B, 0xC000001D})


def classify_start_failure(exit_code: int | None, signal_number: int | None, log_tail: str) -> StartFailure:
    """Tell why a server ended before it was ready.

    Args:
        exit_code: Its exit code, or None if a signal ended it.
        signal_number: That signal.
        log_tail: The end of its output.
    """
    if signal_number is None:
        signal_number = signal_behind(exit_code)
    fault = loader_fault(log_tail)
    if fault is not None:
        return StartFailure("runtime", fault, NEXT_RUNTIME)
    name = signal_name(signal_number) if signal_number is not None else ""
    words = fault_words(exit_code, signal_number)
    if words and (name in _CANNOT_RUN_SIGNALS or (not name and (exit_code or 0) % 2**32 in _CANNOT_RUN_CODES)):
        return StartFailure("runtime", words, NEXT_RUNTIME)
    for kind, pattern, hint in _COMPILED:
        match = pattern.search(log_tail)
        if match:
            return StartFailure(kind, _sentence(match.group(0)), hint)
    if name == "SIGKILL":
        return StartFailure("resources", "it was killed, most likely because memory ran out", _SMALLER)
    said = _LAST_WORDS.findall(log_tail)
    if name in _CRASHES and not said:
        return StartFailure("runtime", words or "it crashed", NEXT_RUNTIME)
    if exit_code == 0 and not name:
        return StartFailure("runtime", "it ended by itself, without a word of complaint", NEXT_RUNTIME)
    last = said[-1] if said else "" if words else _last_line(log_tail)
    reason = f"it last said: {_sentence(last)}" if last else words or "it gave no reason"
    return StartFailure("unknown", reason, "Run the command by hand to see more.")


def _last_line(text: str) -> str:
    lines = text.split("\n")
    return next((line[-_LONGEST_LINE:] for line in reversed(lines) if line.strip()), "")


def _sentence(text: str) -> str:
    return _LOG_PREFIX.sub("", " ".join(text.split())).removeprefix("error: ").rstrip(" .")
