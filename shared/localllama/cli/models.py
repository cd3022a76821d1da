"""`localllama models`: what there is, what is here, fetch and remove."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from localllama._models.catalog import CATALOG
from localllama._models.gguf import model_info
from localllama._models.hub_models import catalog_models
from localllama._models.progress import FetchProgress
from localllama._models.projectors import locate_projector
from localllama._models.store import fetch_model, fetch_projector, locate_model
from localllama.errors import LocalLlamaError, ModelCorruptError, ModelNotFoundError
from localllama.types import StartProgress

from ._defaults import chosen_model, set_default_model
from ._screen import errors, output, print_json, shown_bytes, starting

__all__ = ["app", "fetched"]

app = typer.Typer(help="The models: list, fetch, look at, check, remove, choose.", no_args_is_help=True)

Reference = Annotated[str, typer.Argument(metavar="MODEL", help="A model reference, such as smollm2-135m.")]
ProjectorOption = Annotated[
    bool | None,
    typer.Option(
        "--projector/--no-projector", help="What lets it see or hear: also now, or not. Default: with the model."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command("list")
def list_models(is_json: JsonOption = False) -> None:
    """The catalog, with what is on this machine."""
    here = {model.name: _path_or_none(model.name) for model in catalog_models()}
    if is_json:
        print_json([{**asdict(model), "path": here[model.name]} for model in catalog_models()])
        return
    default, _ = chosen_model(None)
    table = Table(box=None, pad_edge=False)
    for title in ("", "name", "here", "size", "quant", "window", "licence"):
        table.add_column(title, no_wrap=True)
    table.add_column("what it is", overflow="ellipsis", no_wrap=True)
    for model in catalog_models():
        mark = "*" if model.name == default else ""
        is_here = "yes" if here[model.name] else "no"
        facts = (shown_bytes(model.size_bytes), model.quantization, str(model.n_ctx_train), model.licence)
        table.add_row(mark, model.name, is_here, *facts, model.description)
    output().print(table)
    output().print("Also: a path, owner/repo:QUANT on Hugging Face, pkg:package/file.gguf.", style="dim", markup=False)


@app.command()
def show(reference: Reference, is_json: JsonOption = False) -> None:
    """What the header of a model's file says."""
    info = model_info(str(_located(reference)), None)
    values = {name: value for name, value in asdict(info).items() if name != "chat_template"}
    values["has_chat_template"] = info.chat_template is not None
    if is_json:
        print_json(values)
        return
    for name, value in values.items():
        shown = shown_bytes(value) if name == "size_bytes" else value
        output().print(f"{name:<18} {shown}", markup=False, highlight=False)


@app.command()
def pull(reference: Reference, is_projector_wanted: ProjectorOption = None) -> None:
    """Fetch a model, if it is not here, and print its path. From Hugging Face the projector that lies beside it comes too."""
    path = fetched(reference, is_projector_wanted=is_projector_wanted)
    output().print(str(path), markup=False, highlight=False)


@app.command()
def where(reference: Reference) -> None:
    """Print the path of a model's file."""
    output().print(str(_located(reference)), markup=False, highlight=False)


@app.command()
def use(reference: Reference) -> None:
    """Make a model the default; it is fetched if it is not here."""
    fetched(reference)
    path = set_default_model(reference)
    errors().print(f"{reference} is the default now ({path}).", markup=False, highlight=False)


@app.command()
def verify(reference: Reference) -> None:
    """Read a model's file once more: the pinned checksum where the catalog has one, the header and all sizes in any case."""
    path = _located(reference)
    model_info(str(path), None)
    entry = CATALOG.get(reference)
    if entry is None:
        output().print(f"{path}: header and sizes are right; there is no checksum to compare with.", markup=False)
        return
    actual = _sha256(path)
    if actual != entry.sha256:
        raise ModelCorruptError(
            f"{path} has the SHA-256 {actual}, expected {entry.sha256}.",
            hint=f"Fetch it again: localllama models rm {reference}, then localllama models pull {reference}",
        )
    output().print(f"{path}: intact (SHA-256 {actual}).", markup=False, highlight=False)


@app.command()
def rm(
    reference: Reference,
    is_agreed: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a model that localllama has fetched into its own store; files of others are left alone."""
    from localllama._models.removal import remove_model, stored_bytes

    size_bytes = stored_bytes(reference)
    if not is_agreed and not typer.confirm(f"Remove {reference} ({shown_bytes(size_bytes)})?", err=True):
        errors().print("Nothing was removed.")
        return
    freed = remove_model(reference)
    errors().print(f"{reference} is removed; {shown_bytes(freed)} are free again.", markup=False, highlight=False)


def fetched(reference: str, *, is_projector_wanted: bool | None = None) -> Path:
    """The model's file; fetched, with a progress bar, if it is not here.

    Args:
        reference: The model.
        is_projector_wanted: True asks for its projector also where the model is here, False never, None with the model.
    """
    with starting() as progress:

        def report(step: FetchProgress) -> None:
            detail = f"{step.reference}, {step.source}"
            progress(StartProgress("fetching", 0.0, step.done_bytes, step.total_bytes, detail=detail))

        path = fetch_model(reference, report, with_projector=is_projector_wanted is not False)
        if is_projector_wanted and locate_projector(reference, path) is None:
            fetch_projector(reference, report)
        return path


def _located(reference: str) -> Path:
    path = locate_model(reference)
    if path is None:
        raise ModelNotFoundError(
            f"{reference} is not on this machine.", hint=f"Fetch it: localllama models pull {reference}"
        )
    return path


def _path_or_none(reference: str) -> Path | None:
    try:
        return locate_model(reference)
    except LocalLlamaError:
        return None


def _sha256(path: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
