"""Why a server did not start, told from logs that real servers wrote.

`start_logs/*.txt` holds what b11434 of llama-server and the embedded runtime printed when they were given what the
section's title names; `quoted.txt` holds messages of other platforms, taken from reports or from the loader's sources.
Each section is `== title | exit N or signal N | kind`, then the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from localllama._server.failures import classify_start_failure


class _Case(NamedTuple):
    title: str
    exit_code: int | None
    signal_number: int | None
    kind: str
    log: str


def _cases() -> Iterator[_Case]:
    for path in sorted(Path(__file__).with_name("start_logs").glob("*.txt")):
        for section in re.split(r"^== ", path.read_text(), flags=re.MULTILINE)[1:]:
            head, _, log = section.partition("\n")
            title, status, kind = head.split(" | ")
            how, number = status.split()
            exit_code = int(number) if how == "exit" else None
            signal_number = int(number) if how == "signal" else None
            yield _Case(f"{path.stem}: {title}", exit_code, signal_number, kind, log)


@pytest.mark.parametrize("case", list(_cases()), ids=lambda case: case.title)
def test_each_log_is_told_apart(case: _Case) -> None:
    failure = classify_start_failure(case.exit_code, case.signal_number, case.log)
    assert failure.kind == case.kind
    assert failure.reason
    assert "\n" not in failure.reason
    assert failure.hint


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("truncated file", "not within the file bounds"),
        ("unknown architecture", "qwxyz"),
        ("quantized k", "block size 32 does not divide"),
        ("no memory for the context", "180000.00 MB"),
        ("unknown flag", "--no-such-flag"),
        ("CUDA memory", "cudaMalloc failed: out of memory"),
        ("macOS library missing", "libllama.dylib"),
        ("another processor", "built for another processor"),
        ("assertion", "GGML_ASSERT"),
    ],
)
def test_the_reason_holds_what_a_person_needs(title: str, said: str) -> None:
    found = [case for case in _cases() if case.title.split(": ", 1)[1].startswith(title)]
    assert found
    for case in found:
        assert said in classify_start_failure(case.exit_code, case.signal_number, case.log).reason


def test_a_timestamp_is_no_part_of_the_reason() -> None:
    log = "0.00.007.339 E llama_adapter_lora_init: failed to open '/x.gguf': No such file or directory\n"
    assert classify_start_failure(1, None, log).reason.startswith("llama_adapter_lora_init: failed to open '/x.gguf'")
