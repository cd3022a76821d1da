"""Reads JSON while it is being generated: what is inside a string comes out decoded, piece by piece, as it arrives.

A grammar on the server makes sure that the text is JSON of a known shape; this reader only has to follow it. It serves the
envelopes of tool calls, where the name must come out before the arguments and the arguments as raw JSON text in pieces, and
the answer branch, whose string is shown to the user as text while it is written.

    reader = JSONPieceReader(raw_keys={"arguments"})
    reader.feed('{"name": "add", "argum')   -> [StringPiece(("name",), "add"), ValueEnd(("name",))]
    reader.feed('ents": {"a": 1}}')         -> [RawPiece(("arguments",), '{"a": 1}'), ValueEnd(("arguments",)), ...]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from localllama.errors import MalformedResponseError

__all__ = ["JSONPiece", "JSONPieceReader", "RawPiece", "StringPiece", "ValueEnd"]

Path = tuple[str | int, ...]
"""Keys and indexes from the root to a value."""

_WHITESPACE = " \t\r\n"
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_N_HEX_DIGITS = 4
_HIGH_SURROGATES = range(0xD800, 0xDC00)
_LOW_SURROGATES = range(0xDC00, 0xE000)
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class StringPiece:
    """The next piece of a string value, decoded."""

    path: Path
    text: str


@dataclass(frozen=True)
class RawPiece:
    """The next piece of the JSON text of a value below a raw key, or of a number, true, false or null."""

    path: Path
    text: str


@dataclass(frozen=True)
class ValueEnd:
    """The value at this path is complete."""

    path: Path


JSONPiece = StringPiece | RawPiece | ValueEnd


@dataclass
class _Container:
    path: Path
    is_object: bool
    key: str = ""
    index: int = -1
    wants_key: bool = True

    def child_path(self) -> Path:
        return (*self.path, self.key if self.is_object else self.index)


class JSONPieceReader:
    """Follows one JSON document through any cuts of its text.

    Args:
        raw_keys: Values under these keys come out as their JSON text, whatever they hold.
    """

    def __init__(self, raw_keys: Iterable[str] = ()) -> None:
        self._raw_keys = frozenset(raw_keys)
        self._stack: list[_Container] = []
        self._state = "value"
        self._path: Path = ()
        self._key_text: list[str] = []
        self._escape = ""
        self._high_surrogate = 0
        self._raw_depth = 0
        self._raw_in_string = False
        self._raw_escaped = False
        self._is_raw_scalar = False
        self._pieces: list[JSONPiece] = []
        self._pending: list[str] = []

    @property
    def is_complete(self) -> bool:
        """Whether the document is closed; a number at the root is never known to be."""
        return self._state == "end"

    def feed(self, text: str) -> list[JSONPiece]:
        """Take the next piece of text; return what it shows.

        Raises:
            MalformedResponseError: This is not JSON. The message does not repeat the text.
        """
        self._pieces = []
        for character in text:
            self._take(character)
        self._flush()
        return self._pieces

    def _take(self, character: str) -> None:
        if self._state in ("string", "key"):
            self._take_in_string(character)
        elif self._state == "raw":
            self._take_raw(character)
        elif self._state == "scalar":
            if character in _WHITESPACE or character in ",]}":
                self._end_value()
                self._take(character)
            else:
                self._pending.append(character)
        elif character not in _WHITESPACE:
            self._take_structure(character)

    def _take_structure(self, character: str) -> None:
        top = self._stack[-1] if self._stack else None
        if self._state == "value":
            if top is not None and not top.is_object and character == "]" and top.index == 0:
                self._close()  # an empty array
            else:
                self._begin_value(character)
        elif self._state == "key or end" and character == '"':
            self._state = "key"
        elif self._state == "key or end" and character == "}":
            self._close()
        elif self._state == "colon" and character == ":":
            assert top is not None
            self._begin_path(top)
        elif self._state == "after value" and top is not None and character == ",":
            if top.is_object:
                self._state = "key or end"
            else:
                top.index += 1
                self._begin_path(top)
        elif self._state == "after value" and top is not None and character == ("}" if top.is_object else "]"):
            self._close()
        else:
            raise MalformedResponseError(f"the generated JSON has {character!r} where {self._state} belongs")

    def _begin_path(self, container: _Container) -> None:
        self._path = container.child_path()
        self._state = "value"

    def _begin_value(self, character: str) -> None:
        is_raw = bool(self._path) and self._path[-1] in self._raw_keys
        if is_raw:
            self._state, self._raw_depth, self._raw_in_string = "raw", 0, False
            self._take_raw(character)
        elif character == '"':
            self._state = "string"
        elif character == "{":
            self._stack.append(_Container(self._path, is_object=True))
            self._state = "key or end"
        elif character == "[":
            container = _Container(self._path, is_object=False, index=0)
            self._stack.append(container)
            self._begin_path(container)
        else:
            self._pending.append(character)
            self._state = "scalar"

    def _take_raw(self, character: str) -> None:
        if self._raw_in_string:
            self._pending.append(character)
            if self._raw_escaped:
                self._raw_escaped = False
            elif character == "\\":
                self._raw_escaped = True
            elif character == '"':
                self._raw_in_string = False
                self._end_raw_if_closed()
        elif self._is_raw_scalar and (character in _WHITESPACE or character in ",]}"):
            self._end_value()
            self._take(character)
        else:
            self._pending.append(character)
            self._raw_in_string = character == '"'
            if character in "{[":
                self._raw_depth += 1
            elif character in "}]":
                self._raw_depth -= 1
                self._end_raw_if_closed()
            elif self._raw_depth == 0 and character != '"':
                self._is_raw_scalar = True

    def _end_raw_if_closed(self) -> None:
        if self._raw_depth == 0:
            self._end_value()

    def _take_in_string(self, character: str) -> None:
        if self._escape:
            self._take_escape(character)
        elif character == "\\":
            self._escape = "\\"
        elif character == '"':
            self._drop_lone_surrogate()
            if self._state == "key":
                self._stack[-1].key = "".join(self._key_text)
                self._key_text = []
                self._state = "colon"
            else:
                self._end_value()
        else:
            self._drop_lone_surrogate()
            self._add(character)

    def _take_escape(self, character: str) -> None:
        self._escape += character
        if self._escape[1] == "u":
            if len(self._escape) == 2 + _N_HEX_DIGITS:
                self._add_code_unit(self._escape[2:])
                self._escape = ""
            return
        if character not in _ESCAPES:
            raise MalformedResponseError(f"the generated JSON has the unknown escape {self._escape!r}")
        self._drop_lone_surrogate()
        self._add(_ESCAPES[character])
        self._escape = ""

    def _add_code_unit(self, digits: str) -> None:
        try:
            unit = int(digits, 16)
        except ValueError as error:
            raise MalformedResponseError("the generated JSON has a broken \\u escape") from error
        if self._high_surrogate and unit in _LOW_SURROGATES:
            self._add(chr(0x10000 + (self._high_surrogate - 0xD800) * 0x400 + (unit - 0xDC00)))
            self._high_surrogate = 0
            return
        self._drop_lone_surrogate()
        if unit in _HIGH_SURROGATES:
            self._high_surrogate = unit
        else:
            self._add(_REPLACEMENT if unit in _LOW_SURROGATES else chr(unit))

    def _drop_lone_surrogate(self) -> None:
        if self._high_surrogate:
            self._high_surrogate = 0
            self._add(_REPLACEMENT)

    def _add(self, text: str) -> None:
        (self._key_text if self._state == "key" else self._pending).append(text)

    def _flush(self) -> None:
        if self._pending and self._state in ("string", "raw", "scalar"):
            text = "".join(self._pending)
            piece = StringPiece if self._state == "string" else RawPiece
            self._pieces.append(piece(self._path, text))
            self._pending = []

    def _end_value(self) -> None:
        self._flush()
        self._is_raw_scalar = False
        self._pieces.append(ValueEnd(self._path))
        self._state = "after value" if self._stack else "end"

    def _close(self) -> None:
        container = self._stack.pop()
        self._path = container.path
        self._pieces.append(ValueEnd(self._path))
        self._state = "after value" if self._stack else "end"
