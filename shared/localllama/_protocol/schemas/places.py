"""Knows where each part of a schema lies, and finds what its references mean; only inside the schema itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin

from .form import MAP_KEYWORDS, Schema, child_pointer, refusal

__all__ = ["Place", "SchemaIndex"]

_DATA_KEYWORDS = frozenset({"const", "default", "enum", "example", "examples", "required", "type"})


class Place(NamedTuple):
    """Where a part lies.

    Attributes:
        pointer: Its JSON pointer from the root.
        base: The URI that references in it are relative to; "" is the root.
    """

    pointer: str
    base: str


class SchemaIndex:
    """All parts of one schema by identity, with their places, identifiers and anchors.

    Args:
        root: A schema in the words of draft 2020-12. It must not change while the index is in use.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self._places: dict[int, Place] = {}
        self._resources: dict[str, Schema] = {"": root}
        self._anchors: dict[tuple[str, str], Schema] = {}
        self._dynamic_anchors: dict[str, list[Schema]] = {}
        self._kept: list[Schema] = []
        self._silent: set[int] = set()
        for schema, place in _parts(root, "", ""):
            self._add(schema, place)

    def _add(self, schema: dict[str, Any], place: Place) -> None:
        self._places.setdefault(id(schema), place)
        if isinstance(schema.get("$id"), str):
            self._resources.setdefault(place.base.rstrip("#"), schema)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := schema.get(keyword), str):
                self._anchors.setdefault((place.base, name), schema)
        if isinstance(name := schema.get("$dynamicAnchor"), str):
            self._dynamic_anchors.setdefault(name, []).append(schema)

    def place(self, schema: Schema) -> Place:
        """Where it lies; the root's for what has no place."""
        return self._places.get(id(schema), Place("", ""))

    def is_known(self, schema: Schema) -> bool:
        """Whether it has a place."""
        return id(schema) in self._places

    def is_silent(self, schema: Schema) -> bool:
        """Whether it was made from a negation, so that the properties in it do not count as evaluated."""
        return id(schema) in self._silent

    def adopt(self, schema: dict[str, Any], origin: Schema, *, is_silent: bool = False) -> dict[str, Any]:
        """Give a schema that was made here, and what is new in it, the place of the one that it was made from."""
        self._kept.append(schema)  # its identity must stay its own
        place = self.place(origin)
        for part, _ in _parts(schema, "", ""):
            if id(part) not in self._places and is_silent:
                self._silent.add(id(part))
            self._places.setdefault(id(part), place)
        return schema

    def is_ambiguous(self, schema: dict[str, Any]) -> bool:
        """Whether it depends on the way there what its `$dynamicRef` means; `target` takes the outermost anchor."""
        return len(self._dynamic_anchors.get(schema["$dynamicRef"].partition("#")[2], ())) > 1

    def target(self, schema: dict[str, Any], keyword: str) -> Schema:
        """What the reference in it points to.

        Raises:
            ConfigurationError: It points to nothing, or out of this schema.
        """
        reference: str = schema[keyword]
        place = self.place(schema)
        if keyword == "$dynamicRef" and (dynamic := self._dynamic_anchors.get(reference.partition("#")[2])):
            return dynamic[0]
        # urljoin gives up on schemes that it does not know, such as urn:
        uri = place.base + reference if reference.startswith("#") else urljoin(place.base, reference)
        resource_name, _, fragment = uri.partition("#")
        resource = self._resources.get(resource_name)
        if resource is None:
            raise refusal(
                place.pointer,
                keyword,
                f"{reference!r} lies outside of the schema",
                "Copy what it refers to into $defs; nothing is fetched.",
            )
        fragment = unquote(fragment)
        found = self._at(resource, fragment) if not fragment or fragment[0] == "/" else None
        if found is None:
            found = self._anchors.get((resource_name, fragment))
        if found is None:
            raise refusal(
                place.pointer, keyword, f"{reference!r} points to nothing", "Correct the reference or add its target."
            )
        return found

    def _at(self, resource: Schema, pointer: str) -> Schema | None:
        node: Any = resource
        for token in pointer.split("/")[1:]:
            name = token.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and name in node:
                node = node[name]
            elif isinstance(node, list) and name.isdigit() and int(name) < len(node):
                node = node[int(name)]
            else:
                return None
        if isinstance(node, dict) and id(node) not in self._places:
            for schema, place in _parts(node, pointer, self.place(resource).base):
                self._add(schema, place)
        return node if isinstance(node, dict | bool) else None


def _parts(schema: Any, pointer: str, base: str) -> Iterator[tuple[dict[str, Any], Place]]:
    if not isinstance(schema, dict):
        return
    if isinstance(identifier := schema.get("$id"), str):
        base = (urljoin(base, identifier) or identifier).rstrip("#")
    yield schema, Place(pointer, base)
    for key, value in schema.items():
        here = child_pointer(pointer, key)
        if key in MAP_KEYWORDS and isinstance(value, dict):
            for name, each in value.items():
                yield from _parts(each, child_pointer(here, name), base)
        elif key in _DATA_KEYWORDS:
            continue
        elif isinstance(value, list):
            for number, each in enumerate(value):
                yield from _parts(each, child_pointer(here, number), base)
        else:
            yield from _parts(value, here, base)
