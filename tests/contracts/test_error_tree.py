"""The tree on top of errors.py is the real one, and every error survives a trip to another process."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from localllama import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]


def _documented_tree() -> dict[str, str | None]:
    """Name to parent, read from the picture in the docstring."""
    tree: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^( {4}[│├└─ ]*)(\w+(?:Error|Warning))\b", line)
        if not match:
            continue
        depth, name = len(match[1]), match[2]
        while path and path[-1][0] >= depth:
            path.pop()
        tree[name] = path[-1][1] if path else None
        path.append((depth, name))
    return tree


def test_the_documented_tree_is_the_real_one() -> None:
    real: dict[str, str | None] = {}
    for cls in CLASSES:
        if not issubclass(cls, errors.LocalLlamaError):
            continue
        parents = [base for base in cls.__bases__ if issubclass(base, errors.LocalLlamaError)]
        assert len(parents) == (0 if cls is errors.LocalLlamaError else 1), cls
        real[cls.__name__] = parents[0].__name__ if parents else None
    assert {
        name: parent for name, parent in _documented_tree().items() if name in real or name.endswith("Error")
    } == real


def test_every_error_of_the_module_is_exported() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)


def test_builtin_parents_are_documented() -> None:
    for cls in CLASSES:
        for base in cls.__bases__:
            if base.__module__ == "builtins" and base not in (Exception, UserWarning):
                assert re.search(rf"{cls.__name__} \(also an? {base.__name__}\)", errors.__doc__ or ""), cls


@pytest.mark.parametrize("cls", [c for c in CLASSES if issubclass(c, errors.LocalLlamaError)])
def test_error_keeps_everything_when_copied_or_pickled(cls: type[errors.LocalLlamaError]) -> None:
    assert isinstance(cls.is_retryable, bool)
    assert cls.__doc__
    known: dict[str, object] = {"hint": "Do this."}
    for name in inspect.signature(cls).parameters:
        if name not in ("message", "hint"):
            known[name] = f"value of {name}"
    error = cls("It broke.", **known)  # type: ignore[arg-type]
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is cls
        assert str(other) == str(error)
        assert other.message == "It broke."
        for name, value in known.items():
            assert getattr(other, name) == value
        assert other.is_retryable is error.is_retryable


@pytest.mark.parametrize("cls", [c for c in CLASSES if issubclass(c, errors.LocalLlamaError)])
def test_the_hint_is_part_of_the_text(cls: type[errors.LocalLlamaError]) -> None:
    assert "Hint: Do this." in str(cls("It broke.", hint="Do this."))
    assert str(cls("It broke.")) == "It broke."
