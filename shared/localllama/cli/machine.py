"""`doctor` and `runtime`: what is on this machine, what is wrong with it, and the command that mends it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from localllama._models.reference import parse_reference
from localllama._models.store import locate_model
from localllama._runtime.report import RuntimeReport, RuntimeState, report_runtimes
from localllama.client import LocalLlamaClient
from localllama.errors import ConfigurationError, LocalLlamaError, MissingDependencyError, ModelNotFoundError
from localllama.settings import SamplingSettings, ServerSettings
from localllama.types import ChatRequest, Message

from ._defaults import DEMO_MODEL, chosen_model
from ._machine_findings import Finding, State, findings_of_machine
from ._screen import errors, output, print_json, shown_bytes, starting, warnings_as_notes

__all__ = ["Finding", "doctor", "examine", "runtime"]

_SIGNS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "fault": "[bold red]fault[/]"}
_MEMORY_FOR_MODEL = "memory for the model"
_NO_BUILD = "b0-"  # what a llama.cpp calls itself that was built outside of its repository, as in a wheel
_OVERHEAD_BYTES = 300_000_000  # beside the weights: the KV cache of a small window, buffers, the program itself


def runtime(
    choice: Annotated[
        str, typer.Argument(metavar="RUNTIME", help='"auto", one rung, or the path of a program.')
    ] = "auto",
    is_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show every place where llama.cpp was looked for, and what was found there."""
    report = report_runtimes(choice or "auto", os.environ)
    if is_json:
        print_json(asdict(report))
    else:
        _print_report(report)
    if not any(state.fault is None for state in report.runtimes):
        raise SystemExit(4)


def _print_report(report: RuntimeReport) -> None:
    screen = output()
    for place in report.places:
        screen.print(f"looked at  {place}", markup=False, highlight=False)
    for number, state in enumerate(report.runtimes, 1):
        screen.print(f"\n{number}. {state.origin}", markup=False, highlight=False, style="bold")
        rows = {
            "verdict": state.verdict,
            "fault": state.fault,
            "command": " ".join(state.command),
            "version": state.version,
            "features": ", ".join(state.features),
            "devices": "; ".join(state.devices) or "processor only, or not told",
        }
        for name, value in rows.items():
            if value:
                screen.print(f"   {name:<9} {value}", markup=False, highlight=False)
    if not report.runtimes:
        errors().print("\nThere is no llama.cpp here. To do: localllama install", style="bold red")


def doctor(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model to try; default: that of `models use`.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="The runtime to look at.")] = "auto",
    is_fixing: Annotated[
        bool, typer.Option("--fix", help="Do what is safe: fetch the default model if it is missing.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Find out what is wrong, and say how to mend it. Ends with a real answer of one token."""
    findings = examine(model, runtime or "auto", is_fixing=is_fixing)
    if is_json:
        print_json([asdict(item) for item in findings])
    else:
        _print_findings(findings)
    if any(item.state == "fault" for item in findings):
        raise SystemExit(1)


def examine(model: str | None, runtime: str = "auto", *, is_fixing: bool = False) -> list[Finding]:
    """All that `doctor` finds, with an answer of one token if there is a runtime and a model."""
    findings = [*findings_of_machine(), *_findings_of_runtimes(runtime)]
    has_runtime = any(item.what.startswith("runtime") and item.state == "ok" for item in findings)
    model_findings, path = _findings_of_model(model, is_fixing=is_fixing)
    findings += model_findings
    lacks_memory = any(item.what == _MEMORY_FOR_MODEL for item in model_findings)
    if has_runtime and path is not None and not lacks_memory:
        findings += _findings_of_answer(model, runtime)
    elif has_runtime:
        reason = "the model does not fit into the memory" if lacks_memory else "there is no model"
        findings.append(Finding("answer", "note", f"not tried: {reason}"))
    return findings


def _print_findings(findings: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "what", "found"):
        table.add_column(name, overflow="fold")
    for item in findings:
        table.add_row(_SIGNS[item.state], item.what, item.detail.replace("[", r"\["))
    output().print(table)
    fixes = [item for item in findings if item.fix]
    for item in fixes:
        output().print(f"\nTo mend [bold]{item.what}[/]:  ", end="")
        output().print(str(item.fix), markup=False, highlight=False)
    if not any(item.state == "fault" for item in findings):
        output().print("\n[green]All is well.[/]")


def _findings_of_runtimes(choice: str) -> list[Finding]:
    try:
        report = report_runtimes(choice, os.environ, is_fresh=True)
    except LocalLlamaError as error:
        return [Finding("runtime", "fault", error.message, error.hint)]
    found = []
    for state in report.runtimes:
        words = [state.version or "", *(f"device {device}" for device in state.devices)]
        detail = "; ".join(filter(None, (state.origin, *words, state.verdict)))
        if state.fault is not None:
            found.append(Finding("runtime", "note", state.fault, _fix_of_program(state)))
        else:
            found.append(Finding("runtime", "ok", detail))
    found += [
        Finding("runtime", "note", f"{path} is not executable", f"chmod +x {path}") for path in report.not_executable
    ]
    if not any(item.state == "ok" for item in found):
        places = "; ".join(report.places)
        found.append(Finding("runtime", "fault", f"no llama.cpp that runs; looked at: {places}", "localllama install"))
    return found


def _fix_of_program(state: RuntimeState) -> str:
    if state.kind == "embedded":
        return "pip install --force-reinstall --no-deps xllamacpp"
    # The command of a one-shot program begins with our Python.
    program = state.origin if state.kind == "one-shot" else state.command[0]
    return f"localllama install; and remove or reinstall {program}"


def _findings_of_model(model: str | None, *, is_fixing: bool) -> tuple[list[Finding], Path | None]:
    import psutil

    reference = model or ""
    try:
        reference, source = chosen_model(model)
        path = locate_model(reference)
        if path is None and is_fixing:
            path = _pulled(reference)
        if path is None:
            detail = f"{reference} ({source}) is not on this machine"
            return [Finding("model", "fault", detail, f"localllama models pull {reference}")], None
        from localllama._models.gguf import model_info

        info = model_info(str(path), None)
    except ModelNotFoundError as error:
        return [Finding("model", "fault", error.message, f"localllama models use {DEMO_MODEL}")], None
    except (ConfigurationError, MissingDependencyError) as error:  # also a broken file of names or of the configuration
        return [Finding("model", "fault", error.message, error.hint)], None
    except LocalLlamaError as error:
        return [Finding("model", "fault", error.message, _fix_of_damaged(reference))], None
    words = f"{reference} ({source}): {shown_bytes(info.size_bytes)}, {info.quantization or 'unknown quantization'}"
    found = [Finding("model", "ok", f"{words}, window {info.n_ctx}, {path}")]
    available = psutil.virtual_memory().available
    if info.size_bytes + _OVERHEAD_BYTES > available:
        detail = (
            f"the model needs about {shown_bytes(info.size_bytes + _OVERHEAD_BYTES)}, {shown_bytes(available)} are free"
        )
        found.append(Finding(_MEMORY_FOR_MODEL, "fault", detail, "localllama init  (picks a model that fits)"))
    return found, path


def _fix_of_damaged(reference: str) -> str:
    if parse_reference(reference).kind in ("catalog", "hub", "url"):
        return f"localllama models rm {reference}, then localllama models pull {reference}"
    return f"fetch the file again where it came from, or take another model: localllama models use {DEMO_MODEL}"


def _pulled(reference: str) -> Path:
    from .models import fetched

    return fetched(reference)


def _findings_of_answer(model: str | None, choice: str) -> list[Finding]:
    reference, _ = chosen_model(model)
    request = ChatRequest((Message("user", "Hello"),))
    sampling = SamplingSettings(max_tokens=1, temperature=0)
    with warnings_as_notes() as notes:
        try:
            with LocalLlamaClient(ServerSettings(model=reference, runtime=choice), sampling=sampling) as client:
                with starting() as progress:
                    client.start(progress)
                result = client.chat(request)
                count = result.usage.completion_tokens if result.usage else 0
                build = result.system_fingerprint or ""
        except LocalLlamaError as error:
            return [Finding("answer", "fault", str(error), error.hint)]
    found: list[Finding] = [
        Finding("runtime passed over", "note", note, "localllama install, or set LOCALLLAMA_RUNTIME to another program")
        for note in notes
    ]
    state: State = "ok" if count else "fault"
    by = f" by {build}" if build and not build.startswith(_NO_BUILD) else ""
    return [*found, Finding("answer", state, f"{count} token generated{by}")]
