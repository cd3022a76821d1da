"""Fixtures of the one-shot tests: real programs, each alone on its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllama import ServerSettings
from support.micro_model import build_micro_model

ENDLESS_N_CTX = 65536
FORMS = ["llama-completion", "old llama-cli", "new llama-cli"]


@pytest.fixture(params=FORMS)
def program(request: pytest.FixtureRequest, llama_bin: Path, tmp_path: Path) -> Path:
    """Each of the programs; the old `llama-cli` was what is `llama-completion` now."""
    if request.param == "old llama-cli":
        old = tmp_path / "llama-cli"
        old.symlink_to(llama_bin / "llama-completion")
        return old
    return llama_bin / str(request.param).rpartition(" ")[2]


@pytest.fixture
def micro(micro_model: Path, program: Path, request: pytest.FixtureRequest) -> ServerSettings:
    """The micro model on a one-shot program that no other test shares."""
    return settings_for(micro_model, program, request.node.name)


@pytest.fixture
def endless(micro: ServerSettings, tmp_path: Path) -> ServerSettings:
    """As `micro`, with a window that is not full before a test on a busy machine gets to what it is about."""
    model = build_micro_model(tmp_path / "endless.gguf", n_ctx_train=ENDLESS_N_CTX)
    changed: ServerSettings = micro.with_changes({"model": str(model), "n_ctx": ENDLESS_N_CTX, "parallel": 2})
    return changed


def settings_for(model: Path, program: Path | str, name: str, **more: object) -> ServerSettings:
    values = {"model": str(model), "runtime": str(program), "n_threads": 1, "n_ctx": 512, **more}
    settings: ServerSettings = ServerSettings.build({**values, "env": {"LOCALLLAMA_TEST_NAME": name}})
    return settings
