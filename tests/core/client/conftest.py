"""Fixtures of the client tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localllama import LocalLlamaClient, SamplingSettings, ServerSettings
from support.scripted_server import ScriptedServer, scripted_server

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


@pytest.fixture
def script() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        yield running


@pytest.fixture
def client(script: ScriptedServer) -> Iterator[LocalLlamaClient]:
    """A client of a server that says what a test has it say."""
    with LocalLlamaClient(ServerSettings(base_url=script.url), sampling=SamplingSettings(max_tokens=500)) as made:
        yield made
