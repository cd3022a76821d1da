"""Reads a grammar of llama.cpp (GBNF) and says whether a text is in it: to test what may be written, without any server.

It is small and slow: all places where an expression may end are found, each rule at each place once.
"""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(r'\s*("(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|[()|*+?]|\{\d+(?:,\d*)?\}|[a-zA-Z0-9-]+)')
_ESCAPE = re.compile(r'\\(?:x([0-9A-F]{2})|u([0-9A-F]{4})|U([0-9A-F]{8})|([nrt"\\\[\]]))')
_LETTERS = {"n": "\n", "r": "\r", "t": "\t"}


class Grammar:
    """A grammar; `accepts` tries a text."""

    def __init__(self, text: str) -> None:
        self.rules: dict[str, Any] = {}
        for line in text.removesuffix("\n").split("\n"):
            name, _, body = line.partition(" ::= ")
            assert re.fullmatch(r"[a-zA-Z0-9-]+", name), line
            assert name not in self.rules, line
            tokens = _tokens(body)
            self.rules[name] = _alternatives(tokens)
            assert not tokens, (line, tokens)
        missing = {name for rule in self.rules.values() for name in _names(rule)} - self.rules.keys()
        assert not missing, missing

    def accepts(self, text: str) -> bool:
        """Whether the whole text is in the grammar."""
        return len(text) in _Trial(self.rules, text).of_rule("root", 0)


class _Trial:
    def __init__(self, rules: dict[str, Any], text: str) -> None:
        self._rules = rules
        self._text = text
        self._known: dict[tuple[str, int], frozenset[int]] = {}

    def of_rule(self, name: str, start: int) -> frozenset[int]:
        if (name, start) not in self._known:
            self._known[name, start] = self._ends(self._rules[name], start)
        return self._known[name, start]

    def _ends(self, node: Any, start: int) -> frozenset[int]:
        kind, what = node[0], node[1]
        if kind == "literal":
            return frozenset([start + len(what)] if self._text.startswith(what, start) else ())
        if kind == "class":
            return frozenset([start + 1] if what.match(self._text[start : start + 1]) else ())
        if kind == "rule":
            return self.of_rule(what, start)
        if kind == "choice":
            return frozenset(end for option in what for end in self._ends(option, start))
        if kind == "sequence":
            places = frozenset([start])
            for part in what:
                places = self._next(part, places)
            return places
        return self._repeated(what, node[2], node[3], start)

    def _next(self, part: Any, places: frozenset[int]) -> frozenset[int]:
        return frozenset(end for place in places for end in self._ends(part, place))

    def _repeated(self, part: Any, least: int, most: float, start: int) -> frozenset[int]:
        places, found, count = frozenset([start]), frozenset[int](), 0
        while places:
            if count >= least:
                places -= found
                found |= places
            if count == most:
                break
            places = self._next(part, places)
            count += 1
        return found


def _tokens(body: str) -> list[str]:
    tokens, place = [], 0
    while body[place:].strip():
        found = _TOKEN.match(body, place)
        assert found, body[place : place + 80]
        tokens.append(found[1])
        place = found.end()
    return tokens


def _alternatives(tokens: list[str]) -> Any:
    options: list[Any] = [[]]
    while tokens and tokens[0] != ")":
        token = tokens.pop(0)
        if token == "|":
            options.append([])
        elif token[0] in "*+?{":
            least, most = _counts(token)
            options[-1][-1] = ("repeat", options[-1][-1], least, most)
        elif token == "(":
            options[-1].append(_alternatives(tokens))
            assert tokens.pop(0) == ")"
        elif token[0] == '"':
            options[-1].append(("literal", _unescaped(token[1:-1])))
        elif token[0] == "[":
            options[-1].append(("class", re.compile(_python_class(token), re.DOTALL)))
        else:
            options[-1].append(("rule", token))
    return ("choice", [("sequence", option) for option in options])


def _counts(token: str) -> tuple[int, float]:
    if token[0] != "{":
        return {"*": (0, float("inf")), "+": (1, float("inf")), "?": (0, 1)}[token]
    least, comma, most = token[1:-1].partition(",")
    # llama.cpp takes a greater count for endless, or refuses it.
    assert max(int(least), int(most or 0)) <= 2000, token
    return int(least), (float(most) if most else float("inf")) if comma else int(least)


def _unescaped(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        digits = found[1] or found[2] or found[3]
        return chr(int(digits, 16)) if digits else _LETTERS.get(found[4], found[4])

    return _ESCAPE.sub(character, text)


def _python_class(token: str) -> str:
    # Only [ is special to Python and not to llama.cpp.
    return "[" + token[1:-1].replace("[", "\\[") + "]"


def _names(node: Any) -> set[str]:
    if node[0] == "rule":
        return {node[1]}
    if node[0] in ("choice", "sequence"):
        return {name for each in node[1] for name in _names(each)}
    return _names(node[1]) if node[0] == "repeat" else set()
