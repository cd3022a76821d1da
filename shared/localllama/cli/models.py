"""`localllama models`: what there is, what is here, fetch and remove."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from localllama._models.gguf import model_info
from localllama._models.hub_models import CatalogModel, catalog_models
from localllama._models.own_changes import add_own_model, remove_own_model
from localllama._models.own_models import OwnModel, own_model, own_models_path, read_own_models
from localllama._models.progress import FetchProgress
from localllama._models.projectors import locate_projector
from localllama._models.removal import plan_removal
from localllama._models.store import fetch_model, fetch_projector, locate_model, update_model
from localllama._models.verification import verify_model
from localllama.errors import ConfigurationError, LocalLlamaError, ModelNotFoundError
from localllama.types import StartProgress

from ._defaults import chosen_model, set_default_model
from ._screen import agreed, errors, output, print_json, shown_bytes, starting

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
    """The catalog and your own names, with what is on this machine."""
    own = [_as_catalog_model(model) for model in read_own_models().values()]
    models = [*own, *catalog_models()]
    here = {model.name: _path_or_none(model.name) for model in models}
    if is_json:
        print_json([{**asdict(model), "path": here[model.name], "is_own": model in own} for model in models])
        return
    default, _ = chosen_model(None)
    table = Table(box=None, pad_edge=False)
    for title in ("", "name", "here", "size", "quant", "window", "licence"):
        table.add_column(title, no_wrap=True)
    table.add_column("what it is", overflow="fold")  # the one that wraps: rich would cut all of them where it may not
    for model in models:
        mark = "*" if model.name == default else ""
        is_here = "yes" if here[model.name] else "no"
        how_large = shown_bytes(model.size_bytes) if model.size_bytes else ""
        facts = (how_large, model.quantization, str(model.n_ctx_train or ""), model.licence)
        what = f"yours: {model.description or model.reference}" if model in own else model.description
        table.add_row(mark, model.name, is_here, *facts, what)
    output().print(table)
    output().print("Also: a path, owner/repo:QUANT on Hugging Face, pkg:package/file.gguf.", style="dim", markup=False)


@app.command()
def show(reference: Reference, is_json: JsonOption = False) -> None:
    """What the header of a model's file says, and for a name of yours what it stands for."""
    own = own_model(reference)
    values: dict[str, Any] = {}
    if own is not None:
        values["reference"] = own.reference
        values |= {key: value for key, value in asdict(own).items() if key not in ("name", "reference") and value}
    path = locate_model(reference) if own is not None else _located(reference)
    if path is not None:
        info = model_info(str(path), own.n_ctx if own else None)
        values |= {name: value for name, value in asdict(info).items() if name not in ("chat_template", "mmproj")}
        values["has_chat_template"] = info.chat_template is not None
        values["mmproj"] = locate_projector(reference, path)
    if is_json:
        print_json(values)
        return
    for name, value in values.items():
        shown = shown_bytes(value) if name == "size_bytes" else value
        output().print(f"{name:<18} {shown}", markup=False, highlight=False)
    if path is None:
        errors().print(f"It is not on this machine. Fetch it: localllama models pull {reference}", markup=False)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The short name, such as notes-7b.")],
    reference: Annotated[str | None, typer.Argument(metavar="REFERENCE", help="What it stands for.")] = None,
    context: Annotated[int | None, typer.Option(help="The window where a program sets no n_ctx, in tokens.")] = None,
    licence: Annotated[str, typer.Option("--license", "--licence", help="Of the weights.")] = "",
    description: Annotated[str, typer.Option(help="One line.")] = "",
    is_replacing: Annotated[bool, typer.Option("--replace", help="Take the place of the same name.")] = False,
    is_removing: Annotated[bool, typer.Option("--remove", help="Take the name out again; no file goes.")] = False,
) -> None:
    """Give a model a short name of your own, good in every program; nothing is fetched."""
    if is_removing == (reference is not None):
        raise ConfigurationError("Give either a REFERENCE or --remove.", hint="localllama models add --help")
    if reference is None:
        gone = remove_own_model(name)
        errors().print(f"{gone.name} is no name any more; it stood for {gone.reference}.", markup=False)
        if chosen_model(None)[0] == gone.name:
            errors().print(
                f"It is still your default: `localllama models use {gone.reference}` sets another.", markup=False
            )
        return
    added = add_own_model(OwnModel(name, reference, context, licence, description), is_replacing=is_replacing)
    errors().print(f"{added.name} stands for {added.reference} ({own_models_path()}).", markup=False, highlight=False)


@app.command()
def pull(
    reference: Reference,
    is_projector_wanted: ProjectorOption = None,
    is_update: Annotated[
        bool, typer.Option("--update", help="Ask Hugging Face for a newer file, also where the model is here.")
    ] = False,
) -> None:
    """Fetch a model, if it is not here, and print its path. From Hugging Face the projector that lies beside it comes too."""
    path = fetched(reference, is_projector_wanted=is_projector_wanted, is_update=is_update)
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
    """Read a model's files once more: their checksums where they are known, the headers and all sizes in any case."""
    for checked in verify_model(reference):
        if checked.sha256 is None:
            words = "header and sizes are right; there is no checksum to compare with."
        else:
            words = f"intact (SHA-256 {checked.sha256})."
        output().print(f"{checked.path}: {words}", markup=False, highlight=False)


@app.command()
def rm(
    reference: Reference,
    is_agreed: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Also what another program fetched into the cache of Hugging Face.")
    ] = False,
) -> None:
    """Remove a model that localllama has fetched; it says what goes, and asks. Files of yours are left alone."""
    removal = plan_removal(reference, is_forced=is_forced)
    for file in removal.files:
        errors().print(str(file), markup=False, highlight=False)
    if not is_agreed and not agreed(f"Remove {reference} ({shown_bytes(removal.size_bytes)})?"):
        errors().print("Nothing was removed.")
        return
    removal.remove()
    freed = shown_bytes(removal.size_bytes)
    errors().print(f"{reference} is removed; {freed} are free again.", markup=False, highlight=False)


def fetched(reference: str, *, is_projector_wanted: bool | None = None, is_update: bool = False) -> Path:
    """The model's file; fetched, with a progress bar, if it is not here.

    Args:
        reference: The model.
        is_projector_wanted: True asks for its projector also where the model is here, False never, None with the model.
        is_update: Ask for a newer file, although the model is here.
    """
    with starting() as progress:

        def report(step: FetchProgress) -> None:
            detail = f"{step.reference}, {step.source}"
            progress(StartProgress("fetching", 0.0, step.done_bytes, step.total_bytes, detail=detail))

        fetch = update_model if is_update else fetch_model
        path = fetch(reference, report, with_projector=is_projector_wanted is not False)
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


def _as_catalog_model(model: OwnModel) -> CatalogModel:
    path = _path_or_none(model.name)
    size_bytes, quantization = 0, ""
    if path is not None:
        with suppress(LocalLlamaError):  # a damaged file is listed too; `verify` says what is wrong with it
            info = model_info(str(path), None)
            size_bytes, quantization = info.size_bytes, info.quantization or ""
    return CatalogModel(
        model.name, model.reference, size_bytes, quantization, model.n_ctx or 0, model.licence, model.description
    )
