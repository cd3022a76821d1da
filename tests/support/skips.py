"""Where CI is set, a skipped test fails the run unless its reason stands here: a skip proves nothing and is soon forgotten."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from typing import Any

import pytest

_ALLOWED = (
    # langchain_tests, of models that take text only: there is no projector here for either.
    r"Model does not support (?:PDF inputs|audio inputs|image message|image tool message|PDF tool message)\.",
    # What another user would see: nobody but root can become one.
    r"only root can .*",
    # Code for one system. It is covered there, and through its seams on every other.
    r"on (?:Linux|POSIX) only: .*",
)
_SKIPPED = "Skipped: "


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test, also one with a mark."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Of a whole file, such as `pytest.importorskip` at its head."""
    report = yield
    if report.skipped:
        _judge(report)
    return report


def _judge(report: Any) -> None:
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr).removeprefix(_SKIPPED)
    if os.environ.get("CI") and not any(re.fullmatch(allowed, reason) for allowed in _ALLOWED):
        report.outcome = "failed"
        report.longrepr = f"skipped where CI is set, for a reason that is not in tests/support/skips.py: {reason}"
