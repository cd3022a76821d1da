"""The same tool requests through ChatLocalLlama, langchain-llama-cpp and langchain-openai, to one and the same llama-server.

The requests are those of `tools_conformance.py`, through LangChain's own interface: `bind_tools`, then invoke, stream, ainvoke or
astream. The server is a plain llama-server on the loopback address; ChatLocalLlama talks to it by `base_url`, so that all
three have the very same one. A call counts as valid if its tool was offered (and is the named one) and `jsonschema`
accepts its arguments by the tool's own schema. In a free choice ("auto") words are fine, so there only wrong calls are faults.

The peers are the dependency group `peers`: `make bench-tools` installs it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from langchain_core.messages import AIMessage, AIMessageChunk
from tools_conformance import FAMILIES, KINDS, N_CTX, TEMPLATES, Case, cases, fault_of, noise_model

from langchain_localllama import ChatLocalLlama
from localllama import ChatResult, ToolCall, ToolSpec
from localllama._runtime.resolve import candidate_runtimes

MAX_TOKENS = 600
ALIAS = "bench"
START_SECONDS = 60.0
REQUEST_SECONDS = 180.0

Model = Any
"""One of the three chat models."""


@contextlib.contextmanager
def tcp_server(model: str, n_ctx: int, template: Path | None) -> Iterator[str]:
    """A llama-server as anybody would start one; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*candidate_runtimes("auto", os.environ).runtimes[0].command, "--model", model, "--alias", ALIAS]
    command += ["--host", "127.0.0.1", "--port", str(port), "--ctx-size", str(n_ctx), "--parallel", "1", "--jinja"]
    command += ["--threads", "1", *(["--chat-template-file", str(template)] if template else [])]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(address):
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not get ready: {' '.join(command)}")
            time.sleep(0.02)
        yield address
    finally:
        child.kill()
        child.wait()


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def makers(address: str, seed: int) -> dict[str, Callable[[], Model]]:
    """How each chat model is made, with equal sampling."""
    from langchain_llama_cpp import ChatLlama
    from langchain_openai import ChatOpenAI

    sampling: dict[str, Any] = {"temperature": 1.0, "seed": seed, "max_tokens": MAX_TOKENS, "max_retries": 0}
    limit: dict[str, Any] = {"timeout": REQUEST_SECONDS}
    return {
        "ChatLocalLlama": lambda: ChatLocalLlama(base_url=address, **sampling, **limit),
        "langchain-llama-cpp": lambda: ChatLlama(model=ALIAS, base_url=address, **sampling, **limit),
        "langchain-openai": lambda: ChatOpenAI(
            model=ALIAS, base_url=f"{address}/v1", api_key="none", **sampling, **limit
        ),
    }


def _openai_tool(tool: ToolSpec) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def answer(model: Model, case: Case) -> AIMessage:
    """Make one request in its way."""
    choice = {"required": "any"}.get(str(case.request.tool_choice), case.request.tool_choice)
    options: dict[str, Any] = {"parallel_tool_calls": True} if case.kind == "parallel" else {}
    bound = model.bind_tools([_openai_tool(tool) for tool in case.request.tools], tool_choice=choice, **options)
    prompt = case.request.messages[0].text
    if case.way == "chat":
        return bound.invoke(prompt)  # type: ignore[no-any-return]
    if case.way == "stream_chat":
        return _added(list(bound.stream(prompt)))
    return asyncio.run(_answer_async(bound, prompt, is_streamed=case.way == "async stream_chat"))


async def _answer_async(bound: Any, prompt: str, *, is_streamed: bool) -> AIMessage:
    if not is_streamed:
        return await bound.ainvoke(prompt)  # type: ignore[no-any-return]
    return _added([chunk async for chunk in bound.astream(prompt)])


def _added(chunks: list[AIMessageChunk]) -> AIMessage:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def fault_of_message(case: Case, message: AIMessage) -> str | None:
    """What is wrong with the calls of a message."""
    if message.invalid_tool_calls:
        return f"malformed arguments: {str(message.invalid_tool_calls[0]['args'])[:80]!r}"
    import json

    calls = tuple(
        ToolCall(id=call["id"] or "", name=call["name"], arguments=json.dumps(call["args"]))
        for call in message.tool_calls
    )
    return fault_of(case, replace(ChatResult(), tool_calls=calls))


def run(name: str, make: Callable[[], Model], wanted: list[Case]) -> tuple[Counter[str], Counter[str]]:
    """All requests through one chat model: counts, and the reasons of what failed."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for case in wanted:
        try:
            # A new model for each: the asynchronous client of some peers belongs to the first event loop for ever.
            message = answer(make(), case)
            fault = fault_of_message(case, message)
            counts[f"{case.kind} calls"] += bool(message.tool_calls)
        except Exception as error:  # noqa: BLE001  # whatever a peer raises is a request that failed
            fault = f"{type(error).__name__}: {str(error).splitlines()[0][:70] if str(error) else ''}"
        counts[case.kind] += 1
        counts[f"{case.kind} valid"] += fault is None
        if fault is not None:
            reasons[f"{name}: {fault}"] += 1
    return counts, reasons


def main() -> int:
    """Print the table; returns 1 if a required or named call of ChatLocalLlama was not valid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a path; default: a model of noise that is built on the spot")
    parser.add_argument("--n-ctx", type=int, default=8192, help="the context window of --model; default 8192")
    parser.add_argument("--count", type=int, default=16, help="requests for each family and chat model")
    parser.add_argument("--family", action="append", choices=FAMILIES)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    model, n_ctx = (options.model, options.n_ctx) if options.model else (noise_model(), N_CTX)
    print(", ".join(f"{name} {version(name)}" for name in ("localllama", "langchain-llama-cpp", "langchain-openai")))
    print(
        f"{'family':<12}{'chat model':<22}"
        + "".join(f"{kind:>14}" for kind in KINDS)
        + f"{'calls in auto':>16}{'seconds':>10}"
    )
    reasons: Counter[str] = Counter()
    is_right = True
    for family in options.family or FAMILIES:
        template = None if family == "chatml" else TEMPLATES / f"{family}.jinja"
        wanted = cases(random.Random(options.seed), options.count)
        with tcp_server(model, n_ctx, template) as address:
            for name, make in makers(address, options.seed).items():
                began = time.perf_counter()
                counts, why = run(name, make, wanted)
                reasons += why
                cells = "".join(f"{counts[f'{kind} valid']:>8} of {counts[kind]:<2}" for kind in KINDS)
                print(
                    f"{family:<12}{name:<22}{cells}{counts['auto calls']:>16}{time.perf_counter() - began:>10.1f}",
                    flush=True,
                )
                if name == "ChatLocalLlama":
                    is_right &= all(counts[f"{kind} valid"] == counts[kind] for kind in KINDS if kind != "auto")
    print("\nWhy, most frequent first:")
    for reason, times in reasons.most_common(20):
        print(f"{times:>5}  {reason}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
