"""Which variables of the user's environment never reach a llama.cpp program."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["without_llama_variables"]

# LLAMA_*: every flag of llama-server has a LLAMA_ARG_ variable, with LLAMA_API_KEY and LLAMA_SERVER_ROUTER_PORT beside
# them. GGML_*: GGML_BACKEND_PATH loads a library. AIP_*: moves the port and adds a route. HF_TOKEN: not its business.
# MTMD_BACKEND_DEVICE is a flag's variable under another name. (common/arg.cpp, tools/server/server-http.cpp)
_SHUT_OUT_PREFIXES = ("LLAMA_", "GGML_", "AIP_", "HUGGING_FACE_")
_SHUT_OUT = frozenset({"HF_TOKEN", "MTMD_BACKEND_DEVICE"})
# Says which GPUs there are, as CUDA_VISIBLE_DEVICES does, which is passed on as well.
_LET_THROUGH = frozenset({"GGML_VK_VISIBLE_DEVICES"})


def without_llama_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what would change a llama.cpp program behind our back.

    The rest stays: PATH, LD_LIBRARY_PATH, CUDA_VISIBLE_DEVICES and the like are how the user's machine works. PYTHON*
    stays too: the embedded runtime is started with `-I`, which ignores it.
    """
    return {name: value for name, value in environ.items() if not _is_shut_out(name.upper())}


def _is_shut_out(name: str) -> bool:
    return name not in _LET_THROUGH and (name in _SHUT_OUT or name.startswith(_SHUT_OUT_PREFIXES))
