"""What a forge and pre-commit read: it is well formed, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FORMS = ("bug", "feature")
ATTRIBUTES = {  # what GitHub's schema of issue forms takes
    "markdown": {"value"},
    "input": {"label", "description", "placeholder", "value"},
    "textarea": {"label", "description", "placeholder", "value", "render"},
}


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FORMS)
def test_issue_form(name: str) -> None:
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    assert set(form) <= {"name", "description", "body", "assignees", "labels", "title", "type", "projects"}
    assert all(isinstance(label, str) for label in form["labels"])
    for field in form["body"]:
        assert set(field) <= {"type", "id", "attributes", "validations"}
        assert set(field["attributes"]) <= ATTRIBUTES[field["type"]]
        assert set(field.get("validations", {})) <= {"required"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    for unique in ([field["id"] for field in fields], [field["attributes"]["label"] for field in fields]):
        assert len(unique) == len(set(unique))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", field["id"]) for field in fields)
    assert all(field["type"] in {"textarea", "input"} and field["attributes"]["label"] for field in fields)
    assert "localllama doctor --json" in [field["attributes"]["label"] for field in fields]


def test_hooks_run_what_make_runs() -> None:
    config = read(".pre-commit-config.yaml")
    assert [repo["repo"] for repo in config["repos"]] == ["local"], "a hook from elsewhere needs the network"
    entries = {hook["id"]: hook["entry"] for repo in config["repos"] for hook in repo["hooks"]}
    makefile = (
        (ROOT / "Makefile")
        .read_text()
        .replace("$(RUN)", ".venv/bin/python")
        .replace("$(SCRIPTS)", "tools benchmarks examples")
    )
    for name, entry in entries.items():
        assert entry.replace(" --force-exclude", "") in makefile, f"{name} runs what make does not"
