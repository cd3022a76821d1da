"""What every cassette must hold, and must not."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

CASSETTES = sorted((Path(__file__).parent / "cassettes").rglob("*.yaml"))
PRIVATE = re.compile(r"/(?:home|root|Users|tmp|var)/|[Bb]earer |[Aa]uthorization|api[-_]key|127\.0\.0\.1|localhost")


@pytest.mark.parametrize("path", CASSETTES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_cassette(path: Path) -> None:
    text = path.read_text()
    assert PRIVATE.search(text) is None
    cassette: dict[str, Any] = yaml.safe_load(text)
    head = cassette["recorded"]
    assert re.fullmatch(r"b\d+", head["build"])
    assert head["model"] in ("micro", "parrot", "smollm2")
    assert head["template"]
    assert dt.date.fromisoformat(head["date"])
    assert cassette["interactions"]
    for interaction in cassette["interactions"]:
        assert interaction["request"]["uri"].startswith("http://localllama/")
        assert set(interaction["request"]["headers"]) <= {"Content-Type"}
        assert set(interaction["response"]["headers"]) <= {"Content-Type", "X-Recorded-Ending"}
