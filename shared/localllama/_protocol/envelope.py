"""Envelopes: JSON shapes that a grammar forces the model into, and what is read back from them.

llama-server's own `tool_choice: "required"` lets text through, a named choice is ignored, and templates without tools drop
them in silence. A JSON Schema of the answer holds on every template. So a call that must happen is asked for as

    {"name": "<one of the tools>", "arguments": {...}}                    one call
    [{"name": ..., "arguments": ...}, ...]                                the same or several, where they were allowed
    {"name": "<one of the tools>"}                                        the choice alone, where all is too much at once

and where the model is free, one more branch lets it answer in words, or with the object that the user asked for:

    {"answer": "..."}      its string is shown as text while it is written
    {"result": {...}}      its JSON text is the answer's text

The key of the arguments is the one that the model's template was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localllama.types import ToolCallDelta, ToolSpec

from .json_pieces import JSONPieceReader, RawPiece, StringPiece, ValueEnd
from .stream import make_tool_call_id

__all__ = ["ANSWER_KEY", "RESULT_KEY", "Envelope", "EnvelopeReader", "arguments_key"]

ANSWER_KEY = "answer"
RESULT_KEY = "result"
_NAME_KEY = "name"
_MAX_PARALLEL_CALLS = 8


def arguments_key(chat_template: str) -> str:
    """What the template's model calls the arguments: "parameters" for the Llama 3 family, "arguments" for all others."""
    is_llama_3 = '"parameters": dictionary of argument' in chat_template
    return "parameters" if is_llama_3 else "arguments"


@dataclass(frozen=True)
class Envelope:
    """What one answer may be.

    Attributes:
        tools: The tools that may be called; their `parameters` are prepared for the server already.
        is_parallel: Whether several calls may be made at once.
        has_answer: Whether words are an answer too.
        result_schema: Schema of the object that may be given instead of a call, prepared for the server already.
        arguments_key: The key of the arguments.
        is_choice: Only the name of a tool is asked for; its arguments come in a generation of their own.
    """

    tools: tuple[ToolSpec, ...]
    is_parallel: bool = False
    has_answer: bool = False
    result_schema: Mapping[str, Any] | None = None
    arguments_key: str = "arguments"
    is_choice: bool = False

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the envelope; definitions of the tools' schemas are moved to its root under new names."""
        definitions = _Definitions()
        if self.is_choice:
            calls = [_object({_NAME_KEY: {"enum": [tool.name for tool in self.tools]}})]
        else:
            calls = [self._call_schema(tool, definitions) for tool in self.tools]
        branches = list(calls)
        if self.is_parallel and not self.is_choice:
            call = definitions.add("calls", calls[0] if len(calls) == 1 else {"anyOf": calls})
            branches = [call, {"type": "array", "items": call, "minItems": 1, "maxItems": _MAX_PARALLEL_CALLS}]
        if self.result_schema is not None:
            branches.append(_object({RESULT_KEY: definitions.moved(self.result_schema)}))
        if self.has_answer:
            # No bound: as with any answer, `max_tokens` and the window are its end.
            branches.append(_object({ANSWER_KEY: {"type": "string"}}))
        schema = branches[0] if len(branches) == 1 else {"anyOf": branches}
        return {**schema, "$defs": definitions.all} if definitions.all else schema

    def _call_schema(self, tool: ToolSpec, definitions: _Definitions) -> dict[str, Any]:
        return _object({_NAME_KEY: {"const": tool.name}, self.arguments_key: definitions.moved(tool.parameters)})

    def reader(self) -> EnvelopeReader:
        """Reads one answer back."""
        return EnvelopeReader(self.arguments_key)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


class _Definitions:
    """The definitions of several schemas at one root.

    What is equal in them is there once: most of all free text, whose bound makes it a large piece of grammar.
    The names are of one letter, a number and another, because llama.cpp finds some rules of its grammar by name alone.
    """

    def __init__(self) -> None:
        self.all: dict[str, Any] = {}
        self._leaves: dict[str, str] = {}

    def add(self, text: str, definition: Any) -> dict[str, Any]:
        """Add a definition; returns the reference to it. An equal `text` says that it is there already."""
        if text not in self._leaves:
            self._leaves[text] = f"d{len(self.all) + 1}x"
            self.all[self._leaves[text]] = definition
        return {"$ref": f"#/$defs/{self._leaves[text]}"}

    def moved(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The schema with its definitions moved here."""
        own = {
            f"#/{keyword}/{name}": definition
            for keyword in ("$defs", "definitions")
            for name, definition in (schema.get(keyword) or {}).items()
        }
        texts = {ref: json.dumps(definition, default=repr) for ref, definition in own.items()}
        if any("$ref" in text for text in texts.values()):
            whole = json.dumps(schema, default=repr)
            texts = {ref: text if "$ref" not in text else f"{ref} of {whole}" for ref, text in texts.items()}
        moved = {ref: self.add(texts[ref], None)["$ref"] for ref in own}
        for ref, definition in own.items():
            self.all[moved[ref].rpartition("/")[2]] = _with_references(definition, moved)
        rest = {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}
        result: dict[str, Any] = _with_references(rest, moved)
        return result


def _with_references(value: Any, moved: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: moved.get(item, item) if key == "$ref" and isinstance(item, str) else _with_references(item, moved)
            for key, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_with_references(item, moved) for item in value]
    return value


class EnvelopeReader:
    """Turns the text of an envelope, while it is generated, into text and tool-call fragments.

    Attributes:
        n_complete_calls: Calls whose arguments are complete.
    """

    def __init__(self, arguments_key: str) -> None:
        self._arguments_key = arguments_key
        self._pieces = JSONPieceReader(raw_keys={arguments_key, RESULT_KEY})
        self._name = ""
        self.n_complete_calls = 0

    def feed(self, text: str, *, is_last: bool = False) -> tuple[str, tuple[ToolCallDelta, ...]]:  # noqa: ARG002
        """Take the next piece of the envelope.

        Args:
            text: As it was generated.
            is_last: Nothing more comes; an envelope knows its end by itself.

        Returns:
            The next piece of the answer's text, and the next fragments of calls. A call's first fragment has its id and
            its whole name; its arguments follow in pieces.

        Raises:
            MalformedResponseError: This is not JSON, so the server did not decode under the grammar.
        """
        texts: list[str] = []
        fragments: list[ToolCallDelta] = []
        for piece in self._pieces.feed(text):
            key = piece.path[-1] if piece.path else ""
            index = piece.path[0] if piece.path and isinstance(piece.path[0], int) else 0
            if (isinstance(piece, StringPiece) and key == ANSWER_KEY) or (
                isinstance(piece, RawPiece) and key == RESULT_KEY
            ):
                texts.append(piece.text)
            elif isinstance(piece, StringPiece) and key == _NAME_KEY:
                self._name += piece.text
            elif isinstance(piece, RawPiece) and key == self._arguments_key:
                fragments.append(ToolCallDelta(index=index, arguments=piece.text))
            elif isinstance(piece, ValueEnd) and key == _NAME_KEY:
                fragments.append(ToolCallDelta(index=index, id=make_tool_call_id(), name=self._name))
                self._name = ""
            elif isinstance(piece, ValueEnd) and key == self._arguments_key:
                self.n_complete_calls += 1
        return "".join(texts), tuple(fragments)
