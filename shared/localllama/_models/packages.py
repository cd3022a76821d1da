"""Finds GGUF files in installed Python packages, without importing the packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from localllama.errors import ModelNotFoundError, UnsupportedFeatureError

__all__ = ["find_package_file", "package_directories"]


def package_directories(package: str) -> list[Path]:
    """The directories of an installed package; empty if it is not installed.

    Only the top-level package is looked up and the rest is taken as directories, because `find_spec` of a dotted name
    imports the parents.

    Raises:
        UnsupportedFeatureError: The package is inside a zip file.
    """
    top, *rest = package.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.submodule_search_locations is None:
        return []
    found = []
    for location in spec.submodule_search_locations:
        if Path(location).is_dir():
            found.append(Path(location, *rest))
        elif any(parent.is_file() for parent in Path(location).parents):
            raise UnsupportedFeatureError(
                f"The package {package!r} is inside the archive {location!r}; llama.cpp cannot read a model there.",
                hint=f"Install it unpacked: pip install {top}",
            )
    return found


def find_package_file(package: str, file: str) -> Path:
    """The file below an installed package.

    Raises:
        ModelNotFoundError: The package is not installed, or has no such file.
        UnsupportedFeatureError: The package is inside a zip file.
    """
    directories = package_directories(package)
    if not directories:
        raise ModelNotFoundError(
            f"The package {package!r} is not installed in this Python.",
            hint=f"Install the distribution that has it, probably: pip install {package.split('.', maxsplit=1)[0].replace('_', '-')}",
        )
    for directory in directories:
        if (directory / file).is_file():
            return directory / file
    names = sorted(
        path.relative_to(directory).as_posix() for directory in directories for path in directory.rglob("*.gguf")
    )
    raise ModelNotFoundError(
        f"The package {package!r} has no file {file!r}.",
        hint=f"Its GGUF files: {', '.join(names)}." if names else "It has no GGUF file at all.",
    )
