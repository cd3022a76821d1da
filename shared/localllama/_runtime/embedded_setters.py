"""What a flag's value becomes in the embedded library's parameters: readers and setters for `embedded_flags.py`.

Loaded by path like that file, so it imports nothing of localllama and nothing large at its top.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple


class FlagError(Exception):
    """The command line is wrong; the text is what llama-server would print."""


class Settings(NamedTuple):
    """What the rows write to: the library and its parameters."""

    library: Any
    params: Any


Setter = Callable[[Settings, str], None]


def _assign(settings: Settings, attribute: str, value: Any) -> None:
    target = settings.params
    *parents, last = attribute.split(".")
    for name in parents:
        target = getattr(target, name)
    setattr(target, last, value)


def integer(attribute: str) -> Setter:
    """Sets a whole number."""

    def apply(settings: Settings, text: str) -> None:
        _assign(settings, attribute, read_integer(text))

    return apply


def read_integer(text: str) -> int:
    """A whole number, or FlagError."""
    try:
        return int(text)
    except ValueError:
        raise FlagError(f"{text!r} is not a whole number") from None


def real(attribute: str) -> Setter:
    """Sets a number."""

    def apply(settings: Settings, text: str) -> None:
        _assign(settings, attribute, read_real(text))

    return apply


def read_real(text: str) -> float:
    """A number, or FlagError."""
    try:
        return float(text)
    except ValueError:
        raise FlagError(f"{text!r} is not a number") from None


def sampling(attribute: str, convert: Callable[[str], Any], bit: str) -> Setter:
    """Sets a sampling default, and notes that it was chosen."""

    # The bit says that the user chose the value; without it the model's own recommendation would win.
    def apply(settings: Settings, text: str) -> None:
        _assign(settings, f"sampling.{attribute}", convert(text))
        bits = settings.library.common_params_sampling_config
        settings.params.sampling.user_sampling_config |= int(getattr(bits, f"COMMON_PARAMS_SAMPLING_CONFIG_{bit}"))

    return apply


def string(attribute: str) -> Setter:
    """Sets the text as it is."""
    return lambda settings, text: _assign(settings, attribute, text)


def words(attribute: str) -> Setter:
    """Sets a set of words, separated by commas."""
    return lambda settings, text: _assign(settings, attribute, {part.strip() for part in text.split(",") if part})


def switch(attribute: str, value: Any = True) -> Setter:
    """Sets a fixed value; the flag has none of its own."""
    return lambda settings, _value: _assign(settings, attribute, value)


def choice(attribute: str, names: dict[str, Any]) -> Setter:
    """Sets what a word stands for."""

    def apply(settings: Settings, text: str) -> None:
        if text not in names:
            raise FlagError(f"unknown value {text!r}; the values are: {', '.join(names)}")
        _assign(settings, attribute, names[text])

    return apply


def member(attribute: str, enumeration: str, names: dict[str, str]) -> Setter:
    """Sets the member of one of the library's enumerations that a word stands for."""

    def apply(settings: Settings, text: str) -> None:
        if text not in names:
            raise FlagError(f"unknown value {text!r}; the values are: {', '.join(names)}")
        _assign(settings, attribute, getattr(getattr(settings.library, enumeration), names[text]))

    return apply


def layers(attribute: str) -> Setter:
    """Sets a number of layers; "auto" and "all" are numbers to llama.cpp."""
    special = {"auto": -1, "all": -2}

    def apply(settings: Settings, text: str) -> None:
        _assign(settings, attribute, special[text] if text in special else read_integer(text))

    return apply


def threads(attribute: str) -> Setter:
    """Sets a number of threads; 0 and less are as many as there are processors."""

    def apply(settings: Settings, text: str) -> None:
        number = read_integer(text)
        _assign(settings, attribute, number if number > 0 else os.cpu_count() or 1)

    return apply


def context(settings: Settings, text: str) -> None:
    """The size of the context."""
    settings.params.n_ctx = read_integer(text)
    if settings.params.n_ctx == 0:
        # As llama-server: "all that the model was trained for" is not to be shrunk by --fit. The library takes no more.
        settings.params.fit_params_min_ctx = 2**31 - 1


def hosts(settings: Settings, text: str) -> None:
    """Where to listen."""
    settings.params.hostnames = _items(text)


def _items(text: str) -> list[str]:
    # As llama-server reads its lists: commas split, blanks around an item go, double quotes keep one together.
    if '"' not in text:
        return [part.strip() for part in text.split(",")]
    import csv

    return [part.strip() for part in next(csv.reader([text], skipinitialspace=True))]


def template_file(settings: Settings, text: str) -> None:
    """A chat template from a file."""
    settings.params.chat_template = _read_file(text)


def _read_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        raise FlagError(f"error: failed to open file '{path}'") from None


def template_variables(settings: Settings, text: str) -> None:
    """The template's variables, as JSON."""
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


def reasoning(settings: Settings, text: str) -> None:
    """Thinking: on, off or auto."""
    choice("enable_reasoning", {"on": 1, "off": 0, "auto": -1})(settings, text)
    if text != "auto":
        # The parameter alone does not reach the template; llama-server's parser sets both.
        known = dict(settings.params.default_template_kwargs)
        settings.params.default_template_kwargs = {**known, "enable_thinking": "true" if text == "on" else "false"}


def keys(settings: Settings, text: str) -> None:
    """API keys from the command line, added to the others."""
    settings.params.api_keys = [*settings.params.api_keys, *[key for key in text.split(",") if key]]


def key_file(settings: Settings, text: str) -> None:
    """API keys from a file, added to the others."""
    lines = [line.strip() for line in _read_file(text).splitlines()]
    settings.params.api_keys = [*settings.params.api_keys, *[line for line in lines if line and line[0] != "#"]]


def adapters(settings: Settings, text: str) -> None:
    """LoRA adapters of full strength."""
    _add_adapters(settings, [(path, 1.0) for path in _items(text)])


def scaled_adapters(settings: Settings, text: str) -> None:
    """LoRA adapters, each with its strength."""
    pairs = [part.rpartition(":") for part in _items(text)]
    if not all(path for path, _, _ in pairs):
        raise FlagError("lora-scaled format: FNAME:SCALE")
    _add_adapters(settings, [(path, read_real(scale)) for path, _, scale in pairs])


def _add_adapters(settings: Settings, adapters: list[tuple[str, float]]) -> None:
    make = settings.library.CommonAdapterLoraInfo
    present = [make(adapter.path, adapter.scale) for adapter in settings.params.lora_adapters]
    settings.params.lora_adapters = present + [make(path, scale) for path, scale in adapters]


def directory(attribute: str) -> Setter:
    """Sets a directory, which must be there."""

    def apply(settings: Settings, text: str) -> None:
        if not os.path.isdir(text):  # noqa: PTH112 - pathlib is slow to import
            raise FlagError(f"not a directory: {text}")
        # llama.cpp joins directory and file name by plain concatenation.
        _assign(settings, attribute, text if text.endswith(("/", os.sep)) else text + os.sep)

    return apply


def origins(settings: Settings, text: str) -> None:
    """Allowed origins; explicit ones are not overruled."""
    settings.params.cors_origins = text
    settings.params.cors_origins_explicit = True


def draft_types(settings: Settings, text: str) -> None:
    """Kinds of speculative decoding."""
    kinds = settings.library.common_speculative_type
    chosen = []
    for part in text.split(","):
        name = f"COMMON_SPECULATIVE_TYPE_{part.strip().upper().replace('-', '_')}"
        if not hasattr(kinds, name) or name.endswith("_COUNT"):
            raise FlagError(f"unknown speculative type: {part.strip()}")
        chosen.append(getattr(kinds, name))
    settings.params.speculative.types = chosen


def buffer_types(settings: Settings, text: str) -> None:
    """Where tensors live, added to what was said before."""
    present = settings.params.tensor_buft_overrides
    settings.params.tensor_buft_overrides = f"{present},{text}" if present else text


_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"


def experts_on_cpu(settings: Settings, _value: str) -> None:
    """All experts of a mixture stay on the CPU."""
    buffer_types(settings, f"{_EXPERTS}=CPU")


def some_experts_on_cpu(settings: Settings, text: str) -> None:
    """Those of the first N layers do."""
    for layer in range(read_integer(text)):
        buffer_types(settings, rf"blk\.{layer}{_EXPERTS}=CPU")


def tensor_split(settings: Settings, text: str) -> None:
    """The share of each GPU; the rest get none."""
    shares = [read_real(part) for part in text.replace("/", ",").split(",")]
    n_devices = len(settings.params.tensor_split)
    if len(shares) > n_devices:
        raise FlagError(f"got {len(shares)} shares, at most {n_devices} devices are known")
    settings.params.tensor_split = shares + [0.0] * (n_devices - len(shares))


def rerank(settings: Settings, _value: str) -> None:
    """The reranking endpoint needs its pooling too."""
    settings.params.embedding = True
    settings.params.pooling_type = settings.library.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


def timeout(settings: Settings, text: str) -> None:
    """One limit for reading and for writing."""
    settings.params.timeout_read = settings.params.timeout_write = read_integer(text)


def rope_scale(settings: Settings, text: str) -> None:
    """A factor of the context, which llama.cpp keeps as its inverse."""
    factor = read_real(text)
    if factor == 0:
        raise FlagError("the factor is 0")
    settings.params.rope_freq_scale = 1.0 / factor


def seed(settings: Settings, text: str) -> None:
    """A seed; -1 is the largest number, which stands for a random one."""
    settings.params.sampling.seed = read_integer(text) % 2**32
