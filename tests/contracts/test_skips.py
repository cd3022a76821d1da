"""Where CI is set, a skip without a reason that is known is a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SKIPS = {
    "in a test": "import pytest\ndef test_it(): pytest.skip({reason!r})",
    "by a mark": "import pytest\n@pytest.mark.skipif(True, reason={reason!r})\ndef test_it(): pass",
    "of a file": "import pytest\npytest.skip({reason!r}, allow_module_level=True)",
}
# What pytest's exit code says: all went well, a test failed, a file failed, nothing ran.
WELL, FAILED, BROKEN, EMPTY = 0, 1, 2, 5


def exit_code(directory: Path, source: str, *, is_ci: bool) -> int:
    (directory / "test_one.py").write_text(source)
    environ = {name: value for name, value in os.environ.items() if name != "CI"} | ({"CI": "true"} if is_ci else {})
    environ["PYTHONPATH"] = str(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "support.skips", "test_one.py"]
    return subprocess.run(command, cwd=directory, env=environ, check=False, capture_output=True, timeout=120).returncode


@pytest.mark.parametrize("source", SKIPS.values(), ids=SKIPS)
def test_a_skip_for_an_unknown_reason_fails_in_ci_alone(tmp_path: Path, source: str) -> None:
    source = source.format(reason="no time today")
    assert exit_code(tmp_path, source, is_ci=True) in (FAILED, BROKEN)
    assert exit_code(tmp_path, source, is_ci=False) in (WELL, EMPTY)


def test_a_skip_for_a_known_reason_and_an_expected_failure_are_none(tmp_path: Path) -> None:
    known = SKIPS["in a test"].format(reason="Model does not support PDF inputs.")
    assert exit_code(tmp_path, known, is_ci=True) == WELL
    expected = "import pytest\n@pytest.mark.xfail(reason='a fault of another program')\ndef test_it(): assert 0"
    assert exit_code(tmp_path, expected, is_ci=True) == WELL
