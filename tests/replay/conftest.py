"""Tests over recorded HTTP: `make record` fills the cassettes from real servers, every other run plays them.

Each test has a cassette of its own in `cassettes/`, named after it; `@pytest.mark.served(...)` says what was served (see
`support.recording.Stage`). Playing starts no process and opens no connection: both are forbidden here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from vcr import VCR
from vcr.cassette import Cassette
from vcr.request import Request

from support.cassettes import Player, Serializer, install, without_indents
from support.recording import Stage, StagedServer, staged_server

BASE_URL = "http://localllama"
_SERIALIZER = Serializer()


def pytest_recording_configure(config: pytest.Config, vcr: VCR) -> None:
    vcr.register_serializer("yaml", _SERIALIZER)
    vcr.register_matcher("body_but_indents", _is_same_but_indents)


def _is_same_but_indents(one: Request, other: Request) -> bool:
    return without_indents(_canonical(one)) == without_indents(_canonical(other))


def _canonical(request: Request) -> bytes:
    body = request.body or b""
    text = body if isinstance(body, bytes) else body.encode()
    return json.dumps(json.loads(text), sort_keys=True).encode() if text else b""


@pytest.fixture
def vcr_config() -> dict[str, Any]:
    return {"match_on": ("method", "uri", "body_but_indents"), "allow_playback_repeats": True}


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Stage:
    marker = request.node.get_closest_marker("served")
    return Stage(**marker.kwargs) if marker is not None else Stage()


@pytest.fixture(autouse=True)
def served(
    request: pytest.FixtureRequest,
    vcr: Cassette | None,
    record_mode: str,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[StagedServer | None]:
    """The server while recording, None while playing."""
    if vcr is None:
        yield None
        return
    with ExitStack() as stack:
        server = None
        if record_mode != "none":
            micro_model = request.getfixturevalue("micro_model")
            server, _SERIALIZER.head = stack.enter_context(staged_server(stage, micro_model))
        else:
            monkeypatch.setattr(subprocess.Popen, "__init__", _no_process)
        install(monkeypatch, Player(vcr, server))
        yield server


def _no_process(*args: Any, **_: Any) -> None:
    raise AssertionError(f"a test that plays a cassette starts a process: {args[1:]}")
