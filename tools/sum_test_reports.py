"""Sums up JUnit reports of pytest in one line: `123 passed, 0 failed`. Exits with 1 if a test failed or none ran.

`NAME-again.xml` is the second run, alone, of what failed in `NAME.xml`: a test that passed there is named as unsteady and
counts as passed; one that failed there too, or did not run, counts as failed. `--bad NAME.xml` prints how many failed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

AGAIN = "-again"


def main(paths: list[str]) -> int:
    """Print one line for each report, then the sum of all; returns the exit code."""
    if paths[:1] == ["--bad"]:
        print(list(_outcomes(Path(paths[1])).values()).count("bad"))
        return 0
    passed = failed = 0
    for path in map(Path, paths):
        if path.stem.endswith(AGAIN):
            continue
        try:
            outcomes = _outcomes(path)
        except (OSError, ET.ParseError) as error:
            print(f"{path.name}: not a report ({error})")
            failed += 1
            continue
        for name in _unsteady(path, outcomes):
            print(f"{path.stem}: UNSTEADY, passed only when it was run again alone: {name}")
            outcomes[name] = "good"
        counts = {kind: sum(outcome == kind for outcome in outcomes.values()) for kind in ("good", "bad", "skipped")}
        print(f"{path.stem}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
        passed += counts["good"]
        failed += counts["bad"]
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def _outcomes(path: Path) -> dict[str, str]:
    """What became of each test. One that failed in its body and again in its teardown is in the file twice."""
    outcomes: dict[str, str] = {}
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        is_bad = case.find("failure") is not None or case.find("error") is not None
        outcome = "bad" if is_bad else "skipped" if case.find("skipped") is not None else "good"
        outcomes[name] = "bad" if outcomes.get(name) == "bad" else outcome
    return outcomes


def _unsteady(path: Path, outcomes: dict[str, str]) -> list[str]:
    again = path.with_name(f"{path.stem}{AGAIN}{path.suffix}")
    if not again.exists():
        return []
    second = _outcomes(again)
    return [name for name, outcome in outcomes.items() if outcome == "bad" and second.get(name) == "good"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
