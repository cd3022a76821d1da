"""What the packages export is what they say, and it is documented."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

PACKAGES = ["localllama", "langchain_localllama", "llamaindex_localllama"]
CORE_MODULES = ["errors", "types", "settings"]


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_true(name: str) -> None:
    package = importlib.import_module(name)
    exported = package.__all__
    assert len(exported) == len(set(exported))
    assert sorted(exported) == sorted(set(dir(package)) & set(exported)), "a name of __all__ is missing in dir()"
    for public in exported:
        assert hasattr(package, public), public


@pytest.mark.parametrize("name", PACKAGES)
def test_star_import_brings_exactly_all(name: str) -> None:
    space: dict[str, object] = {}
    exec(f"from {name} import *", space)
    space.pop("__builtins__")
    assert set(space) == set(importlib.import_module(name).__all__)


@pytest.mark.parametrize("name", PACKAGES)
def test_no_other_public_name(name: str) -> None:
    # In a fresh interpreter: there, no test has imported a submodule that would become an attribute.
    code = (
        f"import types, {name} as p;"
        "print(*[n for n, v in vars(p).items() if not n.startswith('_') and n not in p.__all__"
        " and not isinstance(v, types.ModuleType)"
        " and n not in ('annotations', 'TYPE_CHECKING', 'Any', 'MissingDependencyError')])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert answer.stdout.split() == []


def test_the_core_exports_all_errors_types_and_settings() -> None:
    core = importlib.import_module("localllama")
    private_on_purpose = {"Endpoint", "DEFAULT_N_CTX", "KVCacheType", "LoraAdapter", "PROJECTOR_OFF"}
    for module_name in CORE_MODULES:
        module = importlib.import_module(f"localllama.{module_name}")
        for public in module.__all__:
            if public in private_on_purpose:
                continue
            assert getattr(core, public) is getattr(module, public), public
            assert public in core.__all__, public
    assert {"LocalLlamaClient", "AsyncLocalLlamaClient", "ChatStream", "AsyncChatStream"} <= set(core.__all__)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_class_and_method_has_a_docstring(name: str) -> None:
    package = importlib.import_module(name)
    bare = []
    for public in package.__all__:
        value = getattr(package, public)
        if not inspect.isclass(value) and not inspect.isfunction(value):
            continue
        if not (value.__doc__ or "").strip():
            bare.append(public)
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
                function = function.fget if isinstance(function, property) else function
                if attribute.startswith("_") or not inspect.isfunction(function):
                    continue
                # A method that a framework names and documents needs no words of ours.
                if not (inspect.getdoc(getattr(value, attribute)) or "").strip():
                    bare.append(f"{public}.{attribute}")
    assert bare == []


def test_sync_and_async_client_have_the_same_names_and_arguments() -> None:
    core = importlib.import_module("localllama")

    def surface(cls: type) -> dict[str, tuple[str, ...]]:
        methods = {}
        for name, member in inspect.getmembers(cls):
            if name.startswith("_") or not inspect.isfunction(member):
                continue
            methods[name] = tuple(inspect.signature(member).parameters)
        return methods

    sync, asynchronous = surface(core.LocalLlamaClient), surface(core.AsyncLocalLlamaClient)
    sync.pop("close")
    asynchronous.pop("aclose")
    asynchronous.pop("close", None)
    assert sync == asynchronous


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert importlib.import_module("localllama").__version__ == version("localllama")
    # LangChain's own packages have it too.
    assert importlib.import_module("langchain_localllama").__version__ == version("localllama")
