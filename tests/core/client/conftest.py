"""Fixtures of the client tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from localllama import ServerSettings

MakeSettings = Callable[..., ServerSettings]


@pytest.fixture
def make_settings(micro_model: Path, request: pytest.FixtureRequest) -> MakeSettings:
    """Settings that no other test shares a server with."""

    def make(**changes: object) -> ServerSettings:
        # One thread: two would wait for each other in a spin loop wherever the machine has other work.
        runtime = os.environ.get("LOCALLLAMA_TEST_LLAMA_SERVER", "auto")
        values = {
            "model": str(micro_model),
            "runtime": runtime,
            "n_threads": 1,
            "env": {"LOCALLLAMA_TEST_NAME": request.node.name},
        }
        settings: ServerSettings = ServerSettings.build({**values, **changes})
        return settings

    return make
