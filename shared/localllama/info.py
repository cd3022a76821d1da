"""What is known of a model and of a server; part of `localllama.types`, which has the rest of the values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Endpoint", "ModelInfo", "ServerInfo", "StartProgress", "TemplateCapabilities"]


@dataclass(frozen=True)
class TemplateCapabilities:
    """What the chat template can take: `chat_template_caps` of `/props`.

    Attributes:
        supports_system_role: System messages are rendered.
        supports_tools: Tool descriptions are rendered.
        supports_tool_calls: Calls in assistant turns are rendered.
        supports_parallel_tool_calls: More than one call in a turn.
        supports_preserve_reasoning: `reasoning_content` of earlier turns is rendered.
        requires_typed_content: Content must be a list of parts.
    """

    supports_system_role: bool = True
    supports_tools: bool = False
    supports_tool_calls: bool = False
    supports_parallel_tool_calls: bool = False
    supports_preserve_reasoning: bool = False
    requires_typed_content: bool = False


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without running it.

    Attributes:
        name: A short name for people: that of the file, without ".gguf" and the number of a split.
        path: The GGUF file, absolute; None when the model lives behind `base_url`.
        n_ctx: The context window of one request, in tokens; what the server is started with.
        n_ctx_train: The length that the model was trained for, in tokens.
        architecture: Such as "llama" or "qwen3".
        quantization: Such as "Q4_K_M"; None if the header does not say.
        size_bytes: Size of the file, all splits together.
        chat_template: The Jinja template in the header, or None.
        mmproj: The projector that the server is given, through which it sees or hears: the one of the settings, or one
            found beside the model; None if there is none, or `mmproj="off"`.
        fingerprint: A digest of header, size and samples of the tensor data; equal for equal files, cheap to compute.
    """

    name: str
    path: str | None
    n_ctx: int
    n_ctx_train: int | None = None
    architecture: str | None = None
    quantization: str | None = None
    size_bytes: int = 0
    chat_template: str | None = field(default=None, repr=False)
    fingerprint: str = ""
    mmproj: str | None = None


@dataclass(frozen=True)
class ServerInfo:
    """What a running server says of itself (`/props`).

    Attributes:
        n_ctx: The context window of one slot, in tokens.
        total_slots: How many requests run at once; further ones wait.
        model_alias: The name it gives the model.
        build_info: llama.cpp's build, a hint only.
        supports_vision: Takes images.
        supports_audio: Takes audio.
        template: What its chat template can take.
        chat_template: The Jinja source in use.
    """

    n_ctx: int
    total_slots: int = 1
    model_alias: str = ""
    build_info: str = ""
    supports_vision: bool = False
    supports_audio: bool = False
    template: TemplateCapabilities = field(default_factory=TemplateCapabilities)
    chat_template: str = field(default="", repr=False)


@dataclass(frozen=True)
class Endpoint:
    """Where a server is reached. Internal: not part of the package's public names.

    Attributes:
        base_url: Scheme and host; "http://localllama" for a UNIX socket, so that URLs are stable.
        socket_path: The UNIX socket, or None for TCP.
        api_key: The key to send, or None.
        generation: Counts the servers that one lease has seen; a new one after each restart.
    """

    base_url: str
    socket_path: str | None = None
    api_key: str | None = field(default=None, repr=False)
    generation: int = 0


@dataclass(frozen=True)
class StartProgress:
    """What is going on before the first answer.

    Attributes:
        stage: "fetching" a model, "installing" a runtime, "starting" a server, "loading" the model in it, or "ready".
        elapsed_seconds: Since the start began.
        done_bytes: Fetched so far, while fetching.
        total_bytes: Size of what is fetched, if known.
        detail: The model, or the runtime, for people.
    """

    stage: Literal["fetching", "installing", "starting", "loading", "ready"]
    elapsed_seconds: float
    done_bytes: int = 0
    total_bytes: int | None = None
    detail: str = ""
