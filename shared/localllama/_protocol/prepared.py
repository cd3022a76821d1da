"""A server's memo of schemas: each is made fit for llama.cpp once, and so is each envelope around them.

An agent sends the same tools in every step, and preparing forty of them takes longer than asking.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from localllama.types import ToolSpec

from .envelope import Envelope
from .schemas import GenerationBounds, prepare_schema

__all__ = ["PreparedSchemas", "SchemaForm"]

_MOST_ENTRIES = 512
_SILENT_KEYWORDS = frozenset({"type", "properties", "required", "title", "description", "$schema", "$id"})
_NO_ARGUMENTS: Mapping[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
    "maxProperties": 0,
}


class PreparedSchemas:
    """What was prepared for one server."""

    def __init__(self) -> None:
        self._schemas: dict[Any, Mapping[str, Any]] = {}
        self._envelopes: dict[Any, tuple[Envelope, dict[str, Any]]] = {}

    def form(self, bounds: GenerationBounds, *, is_for_repair: bool = False) -> SchemaForm:
        """Schemas with these bounds; for a repair, in the narrow form that lets hardly anything invalid through."""
        return SchemaForm(self, bounds, is_for_repair=is_for_repair)

    def schema(self, schema: Mapping[str, Any], bounds: GenerationBounds, *, is_for_repair: bool) -> Mapping[str, Any]:
        """One schema, prepared."""
        key = (json.dumps(schema, default=repr), bounds, is_for_repair)
        found = self._schemas.get(key)
        if found is None:
            prepared = prepare_schema(schema, bounds=bounds)
            found = prepared.for_repair if is_for_repair else prepared.for_server
            if len(self._schemas) >= _MOST_ENTRIES:
                self._schemas.clear()
                self._envelopes.clear()
            self._schemas[key] = found
        return found

    def envelope_schema(self, envelope: Envelope) -> dict[str, Any]:
        """The schema of an envelope whose schemas were prepared here."""
        # Prepared schemas are kept, so that an id stands for one of them as long as the entry is there.
        key = (
            tuple((tool.name, id(tool.parameters)) for tool in envelope.tools),
            id(envelope.result_schema),
            replace(envelope, tools=(), result_schema=None),
        )
        found = self._envelopes.get(key)
        if found is None:
            found = self._envelopes[key] = (envelope, envelope.schema())
        return found[1]


class SchemaForm:
    """One form of all schemas of a call.

    Args:
        memo: Keeps what was prepared.
        bounds: Ends for what the schemas leave endless.
        is_for_repair: The narrow form.
    """

    def __init__(self, memo: PreparedSchemas, bounds: GenerationBounds, *, is_for_repair: bool = False) -> None:
        self._memo = memo
        self._bounds = bounds
        self._is_for_repair = is_for_repair

    def schema(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """A schema, prepared."""
        return self._memo.schema(schema, self._bounds, is_for_repair=self._is_for_repair)

    def tool(self, tool: ToolSpec) -> ToolSpec:
        """A tool with its parameters prepared.

        Where none are declared none are made up: JSON Schema would let a model invent any, and the function takes none.
        """
        parameters = tool.parameters
        is_closed = parameters.get("additionalProperties") in (None, False)
        keywords = parameters.keys() - {"additionalProperties"}
        if not parameters.get("properties") and is_closed and keywords <= _SILENT_KEYWORDS:
            parameters = _NO_ARGUMENTS
        return replace(tool, parameters=self.schema(parameters))

    def envelope(self, envelope: Envelope) -> dict[str, Any]:
        """The schema of an envelope."""
        return self._memo.envelope_schema(envelope)
