"""JSON read while it is generated gives the same pieces, added up, wherever it is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localllama._protocol.json_pieces import JSONPieceReader, RawPiece, StringPiece, ValueEnd
from localllama.errors import MalformedResponseError


def added_up(pieces: list[Any]) -> tuple[dict[Any, str], dict[Any, str], list[Any]]:
    strings: dict[Any, str] = {}
    raws: dict[Any, str] = {}
    ends = []
    for piece in pieces:
        if isinstance(piece, StringPiece):
            strings[piece.path] = strings.get(piece.path, "") + piece.text
        elif isinstance(piece, RawPiece):
            raws[piece.path] = raws.get(piece.path, "") + piece.text
        else:
            ends.append(piece.path)
    return strings, raws, ends


DOCUMENTS: list[Any] = [
    {"name": "add", "arguments": {"a": 1, "b": [1, {"c": '}"]'}], "d": "\\"}},
    [{"name": "one", "arguments": {}}, {"name": "two", "arguments": {"x": None}}],
    {"answer": 'tab\t quote" slash\\ emoji \U0001f600 umlaut ü \u2028'},
    {"arguments": "text"},
    {"arguments": 12.5},
    {"arguments": [True, None]},
    {"a": {"b": {"c": "deep"}}, "empty": {}, "none": [], "numbers": [1, -2.5e3, True, False, None]},
    [],
    {},
    "just a string",
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
@pytest.mark.parametrize("is_ascii", [True, False])
def test_any_cut_gives_the_same(document: Any, is_ascii: bool) -> None:
    text = json.dumps(document, ensure_ascii=is_ascii, indent=1)
    whole = added_up(JSONPieceReader({"arguments"}).feed(text))
    for cut in range(len(text) + 1):
        reader = JSONPieceReader({"arguments"})
        pieces = reader.feed(text[:cut]) + reader.feed(text[cut:])
        assert added_up(pieces) == whole
        assert reader.is_complete
    one_by_one = JSONPieceReader({"arguments"})
    assert added_up([piece for character in text for piece in one_by_one.feed(character)]) == whole


def test_strings_are_decoded_and_arguments_are_not() -> None:
    document = {"name": 'a"b', "arguments": {"x": "\u00e9\n", "y": [1, 2]}, "answer": "\U0001f600 \n"}
    strings, raws, ends = added_up(JSONPieceReader({"arguments"}).feed(json.dumps(document)))
    assert strings == {("name",): 'a"b', ("answer",): "\U0001f600 \n"}
    assert {path: json.loads(text) for path, text in raws.items()} == {("arguments",): document["arguments"]}
    assert ends == [("name",), ("arguments",), ("answer",), ()]


def test_pieces_come_as_soon_as_they_are_there() -> None:
    reader = JSONPieceReader({"arguments"})
    assert reader.feed('{"answer": "Hel') == [StringPiece(("answer",), "Hel")]
    assert reader.feed("lo") == [StringPiece(("answer",), "lo")]
    assert reader.feed("\\u00") == []
    assert reader.feed('e9"') == [StringPiece(("answer",), "é"), ValueEnd(("answer",))]
    assert reader.feed(', "arguments": {"a') == [RawPiece(("arguments",), '{"a')]


@pytest.mark.parametrize(
    "text", ["nonsense {", "{name", '{"a" 1}', '{"a": 1, ]', '{"a": "\\x"}', '{"a": "\\uZZZZ"}', "[1}"]
)
def test_what_is_not_json_is_said(text: str) -> None:
    reader = JSONPieceReader()
    with pytest.raises(MalformedResponseError):
        reader.feed(text)
        reader.feed("}]}")


@pytest.mark.parametrize(
    "text",
    [r'{"a": "\ud83dx"}', r'{"a": "\ud83d\n"}', r'{"a": "\ud83d\ud83d\ude00"}', r'{"a": "\ude00"}', r'{"a": "\ud83d"}'],
)
def test_half_a_character_is_replaced_and_the_rest_stays(text: str) -> None:
    strings, _, _ = added_up(list(JSONPieceReader(raw_keys=set()).feed(text)))
    expected = json.loads(text)["a"].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert strings[("a",)] == expected
