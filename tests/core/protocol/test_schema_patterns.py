"""Patterns written for llama.cpp: every string that they describe matches the original."""

from __future__ import annotations

import json
import math
import random
import re

import pytest

from localllama._protocol.schemas.formats import FORMAT_PATTERNS, is_format
from localllama._protocol.schemas.patterns import (
    Characters,
    Choice,
    Node,
    Sequence,
    fitted,
    read_pattern,
    width,
    written,
)

PATTERNS = [
    r"^[A-Z]{2}\d{3}$",
    r"foo",
    r"^foo",
    r"foo$",
    r"^a|b$|c",
    r"^(?:a|bc)*d+?$",
    r"^\w+\s\W\S\D$",
    r"^[^\d\s,]+$",
    r"^.{0,3}$",
    r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
    r"^(?!^[-+.]*$)[+-]?0*\d{0,4}\.?\d{0,2}0*$",
    r'^"\\/\]\[{}\(\)\^\$\.\|\?\*\+-$',
    r"^[\]\\^\-\"]+$",
    r"^\x41\u00e9\t$",
    r"^(a(b(c)?)?)?$",
    r"[0-9]{3}-?[0-9]{4}$",
    r"\A\d\Z",
    r"^$",
    r"(foo)",
    r"(?:^a|b$)",
    r"^[^a]$",
    r"^[^\x00-\x20]$",
    r"^a{1}b$",
    r"^a{3,5000}$",
    r"^(?![-]*$)^-a$",
    r"^(?![-]*$)-?a+$",
]
UNSUPPORTED = [r"^(?=.*\d).+$", r"\bword\b", r"^(a)\1$", r"(?i)^abc$", r"^a(?!b)c$", r"a^b", r"^(?P<x>a)(?P=x)$", r"(?!-*$)a", r"^(?!a)b$", r"^(?i:a)$", r"^a{2000}$", r"^(?!-*$)-$"]  # fmt: skip


def sample(node: Node, chance: random.Random) -> str:
    if isinstance(node, Characters):
        low, high = chance.choice(node.ranges)
        return chr(chance.randint(low, high))
    if isinstance(node, Sequence):
        return "".join(sample(part, chance) for part in node.parts)
    if isinstance(node, Choice):
        return sample(chance.choice(node.options), chance)
    most = node.least + 4 if math.isinf(node.most) else int(node.most)
    return "".join(sample(node.part, chance) for _ in range(chance.randint(node.least, min(most, node.least + 40))))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_described_matches_the_original(pattern: str) -> None:
    node = read_pattern(pattern, 200)
    assert node is not None
    chance = random.Random(7)
    for _ in range(200):
        text = sample(node, chance)
        assert re.search(pattern, text), repr(text)
        low, high = width(node)
        assert low <= len(text) <= high


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_written_describes_json_text_that_matches_the_original(pattern: str) -> None:
    node = read_pattern(pattern, 20)
    assert node is not None
    text = written(node)
    assert text is not None
    in_json = read_pattern(text, 20)  # the written form is a regular expression of the JSON text between the quotes
    assert in_json is not None
    chance = random.Random(7)
    for _ in range(100):
        value = json.loads(f'"{sample(in_json, chance)}"')
        assert re.search(pattern, value), repr(value)


@pytest.mark.parametrize("pattern", UNSUPPORTED)
def test_what_has_no_words_in_the_grammar_is_left_alone(pattern: str) -> None:
    assert read_pattern(pattern, 200) is None


@pytest.mark.parametrize("name", FORMAT_PATTERNS)
def test_formats_write_only_what_their_check_accepts(name: str) -> None:
    node = read_pattern(FORMAT_PATTERNS[name], 200)
    assert node is not None
    chance = random.Random(7)
    for _ in range(300):
        text = sample(node, chance)
        assert is_format(text, name), text


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("^[a-z]+$", 3, 5),
        ("^a*b$", 4, 4),
        ("^(ab)+c?$", 5, 9),
        ("x", 3, 8),
        ("^a+|[0-9]{9}$", 2, 4),
        ("^a*b*c*$", 2, 3),
    ],
)
def test_lengths_are_kept_within_a_pattern(pattern: str, least: int, most: int) -> None:
    node = read_pattern(pattern, 200)
    assert node is not None
    fit = fitted(node, least, most)
    assert fit is not None
    chance = random.Random(7)
    for _ in range(100):
        text = sample(fit, chance)
        assert least <= len(text) <= most
        assert re.search(pattern, text)


def test_lengths_that_a_pattern_cannot_have_are_not_made_up() -> None:
    node = read_pattern("^[a-z]{3}$", 200)
    assert node is not None
    assert fitted(node, 4, 9) is None


@pytest.mark.parametrize("pattern", [r"^\x01$", r"^a\x01+$", r"^(\x01|\x02)$"])
def test_what_no_json_text_can_hold_unescaped_is_not_written(pattern: str) -> None:
    node = read_pattern(pattern, 20)
    assert node is not None
    assert written(node) is None


@pytest.mark.parametrize("pattern", ["^(a|bc)+$", "^(a?)*b$"])
def test_parts_of_no_fixed_length_are_not_counted(pattern: str) -> None:
    node = read_pattern(pattern, 20)
    assert node is not None
    assert fitted(node, 3, 5) is None
