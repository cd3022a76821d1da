"""What a one-shot program takes, to the rest of the core: which program it is, and which settings reach it. Pure.

A one-shot rung is a server of ours around the program (`localllama._one_shot`), so it takes llama-server's flags: those that
it handles itself, and those that the program lists in its own help.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["ProgramForm", "form_of_help", "stand_in_flags"]

ProgramForm = Literal["completion", "old-cli", "new-cli"]
""""completion": `llama-completion`; "old-cli": `llama-cli` before b7348, the same program; "new-cli": the chat client."""

_STAND_IN = frozenset(
    {
        "--model", "--host", "--port", "--api-key-file", "--alias", "--ctx-size", "--parallel", "--chat-template",
        "--chat-template-file", "--chat-template-kwargs",
    }
)  # fmt: skip
# Settings of the program that would get in the way of what the stand-in does with it, or mean nothing to one answer.
_NOT_SETTABLE = frozenset(
    {
        "-m", "-a", "-c", "-np", "-n", "--predict", "--n-predict", "-p", "--prompt", "-f", "--file", "-bf", "--binary-file",
        "-sys", "--system-prompt", "-sysf", "--system-prompt-file", "-e", "--escape", "--no-escape", "-cnv",
        "--conversation", "-no-cnv", "--no-conversation", "-st", "--single-turn", "-i", "--interactive", "-if",
        "--interactive-first", "-mli", "--multiline-input", "-r", "--reverse-prompt", "--in-prefix", "--in-prefix-bos",
        "--in-suffix", "--prompt-cache", "--prompt-cache-all", "--prompt-cache-ro", "-sp", "--special", "--jinja",
        "--no-jinja", "--reasoning", "-rea", "--reasoning-format", "--reasoning-budget", "--reasoning-effort",
        "--reasoning-budget-message", "--skip-chat-parsing", "--no-skip-chat-parsing", "--simple-io", "--display-prompt",
        "--no-display-prompt", "--verbose-prompt", "-ptc", "--print-token-count", "-co", "--color", "-o", "--output",
        "--output-file", "--server-base", "--show-timings", "--no-show-timings", "--grammar", "--grammar-file", "-j",
        "--json-schema", "-jf", "--json-schema-file", "-mm", "--mmproj", "-mmu", "--mmproj-url", "--image", "--audio",
        "--no-ui", "--no-webui", "--cors-origins", "--api-key", "--api-prefix", "-md", "--model-draft",
        "--spec-draft-model", "--spec-type", "--draft-max", "--draft", "--draft-min", "--spec-draft-n-max",
        "--spec-draft-n-min", "-lv", "--verbosity", "--log-verbosity", "-v", "--verbose", "--log-verbose", "--samplers",
        "-s", "--seed", "--ignore-eos", "--temp", "--temperature", "--no-kv-unified", "-no-kvu",
    }
)  # fmt: skip


def form_of_help(name: str, flags: frozenset[str]) -> ProgramForm | None:
    """Which program lists these flags; None if it is none that answers once.

    Args:
        name: Of the program's file, or its subcommand.
        flags: What its `--help` lists.
    """
    if not flags >= {"--model", "--file", "--ctx-size"} and not flags >= {"-m", "-f", "-c"}:
        return None
    if "--prompt-cache" in flags:
        return "old-cli" if "cli" in name else "completion"
    return "new-cli" if {"--output-file", "--single-turn", "--no-escape"} <= flags else None


def stand_in_flags(program_flags: frozenset[str]) -> frozenset[str]:
    """The flags that a stand-in for a program with these flags takes."""
    return (program_flags - _NOT_SETTABLE) | _STAND_IN
