"""Sums up JUnit reports of pytest in one line: `123 passed, 0 failed`. Exits with 1 if a test failed or none ran."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def main(paths: list[str]) -> int:
    """Print one line for each report with skipped tests, then the sum of all; returns the exit code."""
    passed = failed = 0
    for path in map(Path, paths):
        try:
            suites = list(ET.parse(path).getroot().iter("testsuite"))
        except (OSError, ET.ParseError) as error:
            print(f"{path.name}: not a report ({error})")
            failed += 1
            continue
        counts = {
            name: sum(int(suite.get(name, "0")) for suite in suites)
            for name in ("tests", "failures", "errors", "skipped")
        }
        bad = counts["failures"] + counts["errors"]
        good = counts["tests"] - bad - counts["skipped"]
        print(f"{path.stem}: {good} good, {bad} bad, {counts['skipped']} skipped")
        passed += good
        failed += bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
