"""The closing line of `.ci/run`: a failure is never summed away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOOD = '<testcase classname="tests.test_a" name="{}"/>'
BAD = '<testcase classname="tests.test_a" name="{}"><failure message="no"/></testcase>'


def write_report(path: Path, *cases: str) -> str:
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return str(path)


def summed_up(*arguments: str) -> tuple[int, list[str]]:
    command = [sys.executable, str(ROOT / "tools/sum_test_reports.py"), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.returncode, answer.stdout.splitlines()


@pytest.mark.parametrize(
    ("again", "code", "closing"),
    [
        ([GOOD.format("two")], 0, "2 passed, 0 failed"),
        ([BAD.format("two")], 1, "1 passed, 1 failed"),
        ([GOOD.format("another")], 1, "1 passed, 1 failed"),
    ],
    ids=["passes", "fails again", "did not run"],
)
def test_a_failure_counts_unless_it_passed_alone(tmp_path: Path, again: list[str], code: int, closing: str) -> None:
    first = write_report(tmp_path / "suite.xml", GOOD.format("one"), BAD.format("two"))
    second = write_report(tmp_path / "suite-again.xml", *again)
    result, lines = summed_up(first, second)
    assert (result, lines[-1]) == (code, closing)
    assert any("UNSTEADY" in line and "test_a::two" in line for line in lines) == (code == 0)


def test_a_test_that_is_reported_twice_is_as_bad_as_its_worst(tmp_path: Path) -> None:
    report = write_report(tmp_path / "suite.xml", BAD.format("one"), GOOD.format("one"))
    assert summed_up(report) == (1, ["suite: 0 good, 1 bad, 0 skipped", "0 passed, 1 failed"])
    assert summed_up("--bad", report) == (0, ["1"])


def test_a_report_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    good = write_report(tmp_path / "suite.xml", GOOD.format("one"))
    code, lines = summed_up(good, str(tmp_path / "deaths.xml"))
    assert (code, lines[-1]) == (1, "1 passed, 1 failed")
