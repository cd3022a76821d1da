"""JSON schemas for generation: prepared for llama.cpp before, and checked after.

schema ──modernized()──> draft 2020-12 ──alternatives()──> no references, no combinators ──bodies──> what the
converter of llama.cpp enforces; what it cannot is noted, and found by `check_instance` in the answer
"""

from __future__ import annotations

from .check import ENDLESS_NUMBER, CheckResult, Violation, check_instance, parse_json, repair_message, strip_code_fence
from .prepare import PreparedSchema, prepare_schema
from .scalars import GenerationBounds

__all__ = [
    "ENDLESS_NUMBER",
    "CheckResult",
    "GenerationBounds",
    "PreparedSchema",
    "Violation",
    "check_instance",
    "parse_json",
    "prepare_schema",
    "repair_message",
    "strip_code_fence",
]
