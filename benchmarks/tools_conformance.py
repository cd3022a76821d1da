"""How many tool calls are valid, by template family: `make bench-tools`.

Requests are generated from a fixed seed: 1 to 40 tools with nested objects, enums, bounds, lists and unicode names; a call that
must happen, a named one, a free choice, several at once; whole and streamed, sync and async. A call counts as valid if its
tool was offered (and is the named one) and `jsonschema` accepts its arguments by the tool's own schema. With required and named calls
anything but a valid call is a fault, and the run fails. In a free choice words are fine, so it only counts the calls that
were made.

The default model writes noise, so no call is valid by wits: what is measured is the decoding. `--model` takes a real one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from localllama import (
    AsyncLocalLlamaClient,
    ChatRequest,
    ChatResult,
    LocalLlamaClient,
    LocalLlamaError,
    Message,
    SamplingSettings,
    ServerSettings,
    ToolSpec,
)

TEMPLATES = Path(__file__).parent / "templates"
FAMILIES = ("chatml", "hermes", "llama3", "mistral", "thinking")
KINDS = ("named", "required", "parallel", "auto")
WAYS = ("chat", "stream_chat", "async chat", "async stream_chat")
MAX_TOKENS = 1200
N_CTX = 65536
SYLLABLES = ("get", "set", "wetter", "日付", "größe", "find", "send", "año", "mail", "list", "цена", "x1")


@dataclass(frozen=True)
class Case:
    """One generated request and the way in which it is made."""

    kind: str
    way: str
    request: ChatRequest
    allowed: tuple[str, ...]


def random_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """The schema of one value, bounded so that noise ends."""
    makers: list[Any] = [
        lambda: {"type": "string", "maxLength": rng.randint(1, 24)},
        lambda: {"type": "string", "minLength": 2, "maxLength": 12, "description": "größer als 日"},
        lambda: {"enum": rng.sample(["red", "grün", "青", 'it\'s "so"', 7, None, True], rng.randint(1, 4))},
        lambda: {"type": "integer", "minimum": (low := rng.randint(-50, 50)), "maximum": low + rng.randint(0, 90)},
        lambda: {"type": "integer", "exclusiveMinimum": 0, "maximum": 10 ** rng.randint(1, 6)},
        lambda: {"type": "boolean"},
        lambda: {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
        lambda: {"type": "string", "format": rng.choice(["date", "uuid"])},
        lambda: {"type": "string", "pattern": "^[A-Z]{2}[0-9]{1,4}$"},
    ]
    if depth < 2:
        makers += [
            lambda: {"type": "array", "items": random_schema(rng, depth + 1), "minItems": 1, "maxItems": 3},
            lambda: random_object(rng, depth + 1),
            lambda: {"anyOf": [random_schema(rng, depth + 1), {"type": "null"}]},
        ]
    schema: dict[str, Any] = rng.choice(makers)()
    return schema


def random_object(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """An object schema with up to four properties."""
    names = rng.sample(["city", "größe", "名前", "n", "when", "is on", "a-b", "list", "x.y"], rng.randint(1, 4))
    return {
        "type": "object",
        "properties": {name: random_schema(rng, depth) for name in names},
        "required": names[: rng.randint(0, len(names))],
        "additionalProperties": False,
    }


def random_tools(rng: random.Random, count: int) -> tuple[ToolSpec, ...]:
    """Tools with names of any script; one in six takes no arguments."""
    tools = []
    for number in range(count):
        name = "_".join(rng.sample(SYLLABLES, 2)) + f"_{number}"
        if rng.random() < 1 / 6:
            tools.append(ToolSpec(name, "Takes nothing."))
        else:
            tools.append(ToolSpec(name, f"Does {name}.", random_object(rng)))
    return tuple(tools)


def cases(rng: random.Random, count: int) -> list[Case]:
    """Requests of all kinds in all ways."""
    made = []
    for number in range(count):
        kind, way = KINDS[number % len(KINDS)], WAYS[number // len(KINDS) % len(WAYS)]
        tools = random_tools(rng, rng.choice([1, 1, 2, 3, 5, 8, 13, 20, 40]))
        names = tuple(tool.name for tool in tools)
        chosen = rng.choice(names)
        choice = {"named": chosen, "auto": "auto"}.get(kind, "required")
        request = ChatRequest(
            (Message("user", f"Please do number {number}."),),
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=kind == "parallel",
        )
        made.append(Case(kind, way, request, (chosen,) if kind == "named" else names))
    return made


def made_call(client: LocalLlamaClient, asynchronous: AsyncLocalLlamaClient, case: Case) -> ChatResult:
    """Make one request in its way."""
    if case.way == "chat":
        return client.chat(case.request)
    if case.way == "stream_chat":
        with client.stream_chat(case.request) as stream:
            for _ in stream:
                continue
            return stream.result()
    return asyncio.run(_made_async(asynchronous, case))


async def _made_async(client: AsyncLocalLlamaClient, case: Case) -> ChatResult:
    if case.way == "async chat":
        return await client.chat(case.request)
    async with client.stream_chat(case.request) as stream:
        async for _ in stream:
            continue
        return stream.result()


def fault_of(case: Case, result: ChatResult) -> str | None:
    """What is wrong with the calls, judged without any code of ours."""
    if not result.tool_calls:
        return None if case.kind == "auto" else "no call"
    schemas = {tool.name: tool.parameters for tool in case.request.tools}
    for call in result.tool_calls:
        if call.name not in case.allowed:
            return f"{call.name!r} was not to be called"
        if not call.id:
            return "a call without id"
        try:
            jsonschema.validate(
                json.loads(call.arguments),
                dict(schemas[call.name]),
                format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
            )
        except (ValueError, jsonschema.ValidationError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return None


def run_family(family: str, model: str, n_ctx: int, count: int, seed: int) -> tuple[Counter[str], list[str], float]:
    """All requests on one template; returns counts, faults and seconds."""
    template = None if family == "chatml" else str(TEMPLATES / f"{family}.jinja")
    settings = ServerSettings(model=model, n_ctx=n_ctx, n_threads=1, chat_template_file=template)
    sampling = SamplingSettings(temperature=1.0, seed=seed, max_tokens=MAX_TOKENS)
    counts: Counter[str] = Counter()
    faults = []
    with LocalLlamaClient(settings, sampling=sampling) as client:
        asynchronous = AsyncLocalLlamaClient(settings, sampling=sampling)
        client.start()
        began = time.perf_counter()
        for number, case in enumerate(cases(random.Random(seed), count)):
            try:
                result = made_call(client, asynchronous, case)
                fault = fault_of(case, result)
                counts[f"{case.kind} calls"] += bool(result.tool_calls)
            except LocalLlamaError as error:
                fault = f"{type(error).__name__}: {error.message[:160]}"
            counts[case.kind] += 1
            counts[f"{case.kind} valid"] += fault is None
            if fault is not None:
                faults.append(f"{family} {case.kind} {case.way} #{number}: {fault}")
        seconds = time.perf_counter() - began
        asyncio.run(asynchronous.aclose())
    return counts, faults, seconds


def main() -> int:
    """Print the table; returns 1 if a required or named call was not valid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model reference; default: a model of noise that is built on the spot")
    parser.add_argument("--n-ctx", type=int, default=8192, help="the context window of --model; default 8192")
    parser.add_argument("--count", type=int, default=48, help="requests for each family")
    parser.add_argument("--family", action="append", choices=FAMILIES)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    model = options.model or noise_model()
    n_ctx = options.n_ctx if options.model else N_CTX
    print(f"{'family':<12}" + "".join(f"{kind:>14}" for kind in KINDS) + f"{'calls in auto':>16}{'seconds':>10}")
    every_fault = []
    for family in options.family or FAMILIES:
        counts, faults, seconds = run_family(family, model, n_ctx, options.count, options.seed)
        cells = "".join(f"{counts[f'{kind} valid']:>8} of {counts[kind]:<2}" for kind in KINDS)
        print(f"{family:<12}{cells}{counts['auto calls']:>16}{seconds:>10.1f}", flush=True)
        every_fault += faults
    print("\n".join(every_fault), file=sys.stderr)
    return 1 if any(f" {kind} " in fault for fault in every_fault for kind in ("named", "required", "parallel")) else 0


def noise_model() -> str:
    """A model of noise with a window that holds forty tools, byte by byte."""
    path = Path(tempfile.gettempdir()) / f"localllama-bench-{os.getuid()}" / f"micro-{N_CTX}.gguf"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        builder = Path(__file__).resolve().parent.parent / "tests/support/micro_model.py"
        build = f"import runpy, sys, pathlib; runpy.run_path(sys.argv[1])['build_micro_model'](pathlib.Path(sys.argv[2]), n_ctx_train={N_CTX})"
        subprocess.run([sys.executable, "-c", build, str(builder), str(path)], check=True)
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
