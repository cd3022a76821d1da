"""The reference shows every public name of the core, once."""

from __future__ import annotations

import re
from collections import Counter

import localllama
from support.documents import ROOT


def test_every_public_name_is_in_the_reference_once() -> None:
    page = (ROOT / "docs" / "reference" / "core.md").read_text()
    shown = Counter(re.findall(r"^::: localllama\.(\w+)$", page, re.MULTILINE))
    assert shown == Counter([*localllama.__all__, "errors"])  # the module, for its tree
