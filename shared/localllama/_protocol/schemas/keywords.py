"""What becomes of each keyword of JSON Schema: the one place that says it, for the documentation and its test."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["KEYWORDS", "KeywordTreatment", "Treatment", "keyword_table"]

Treatment = Literal["enforced", "rewritten", "narrowed", "checked", "refused", "ignored"]


class KeywordTreatment(NamedTuple):
    """One row.

    Attributes:
        keywords: The keywords, or a kind of schema.
        treatment: "enforced" by llama.cpp as it stands; "rewritten" to what it enforces; "narrowed": left to the check in the
            first attempt, rewritten at the price of some valid values in the second; "checked" only; "refused" before
            anything is generated; "ignored": an annotation.
        note: How, and what is lost.
    """

    keywords: str
    treatment: Treatment
    note: str


KEYWORDS: tuple[KeywordTreatment, ...] = (
    KeywordTreatment(
        "`type`", "enforced", "a list becomes a union; without it the other keywords say which type is meant"
    ),
    KeywordTreatment("`enum`, `const`", "enforced", "values that break a keyword beside them are left out"),
    KeywordTreatment("`properties`, `required`", "enforced", "required ones first, each group in the schema's order"),
    KeywordTreatment("`additionalProperties: false`", "enforced", ""),
    KeywordTreatment(
        "`additionalProperties`",
        "rewritten",
        "enforced where no property is named (`dict[str, X]`); beside `properties` no other member is written, since "
        "llama.cpp's grammar for such names lets broken JSON through",
    ),
    KeywordTreatment(
        "`items`, `minItems`, `maxItems`", "enforced", "counts up to 1900; a greater `minItems` is checked"
    ),
    KeywordTreatment(
        "`prefixItems`",
        "rewritten",
        "a tuple for each length allowed, up to 12 lengths; without `maxItems` no longer one than it or `minItems` asks for",
    ),
    KeywordTreatment(
        "`minimum`, `maximum`, `exclusive*` of integers", "rewritten", "to inclusive bounds within 15 digits"
    ),
    KeywordTreatment(
        "`minimum`, `maximum`, `exclusive*` of numbers",
        "narrowed",
        "then a whole number within, or one of up to 256 even steps",
    ),
    KeywordTreatment(
        "`multipleOf`",
        "narrowed",
        "exact where at most 256 integers are in question; then a list of the multiples nearest to zero",
    ),
    KeywordTreatment(
        "`minLength`, `maxLength`", "rewritten", "up to 900 000 characters, in blocks; `minLength` to 1900"
    ),
    KeywordTreatment(
        "`pattern`",
        "rewritten",
        "anchored or not, classes, groups, alternatives, repetition, `\\d \\w \\s` (ASCII), a leading `(?![...]*$)`; endless "
        "repetition ends at the bound; other lookaround, `\\b`, back references and flags are checked",
    ),
    KeywordTreatment(
        "`format`: date, time, date-time, duration, email, hostname, ipv4, ipv6, uri, uri-reference, iri, json-pointer, "
        "uuid, and pydantic's network formats",
        "rewritten",
        "to patterns of a part of the valid strings: years 1000 to 9999, `http(s)` addresses, ...",
    ),
    KeywordTreatment("`format: regex`", "checked", ""),
    KeywordTreatment("other formats", "ignored", "they are annotations"),
    KeywordTreatment(
        "`$ref`, `$defs`, `definitions`, `$id`, `$anchor`", "rewritten", "also `#`, recursion, `~0 ~1 %xx`, siblings"
    ),
    KeywordTreatment("`$dynamicRef`", "rewritten", "to the outermost anchor; checked where there is more than one"),
    KeywordTreatment("`$ref` to another document", "refused", "nothing is fetched"),
    KeywordTreatment("`allOf`", "rewritten", "merged, with what stands beside it"),
    KeywordTreatment("`anyOf`", "rewritten", "what stands beside it goes into each member"),
    KeywordTreatment(
        "`oneOf`",
        "rewritten",
        "as `anyOf`, each member without what the others accept; checked where that has no words; with "
        "`discriminator` the tag must be written",
    ),
    KeywordTreatment(
        "`not`",
        "rewritten",
        "by De Morgan's rules where each keyword in it has an opposite; strings and numbers that are not in a list "
        "are narrowed, the rest is checked",
    ),
    KeywordTreatment(
        "`if`, `then`, `else`", "rewritten", "as (`if` and `then`) or (not `if` and `else`), as far as `not` goes"
    ),
    KeywordTreatment(
        "`dependentRequired`, `dependentSchemas`, `dependencies`", "rewritten", "without the name, or with it"
    ),
    KeywordTreatment(
        "`minProperties`, `maxProperties`",
        "rewritten",
        "of objects that name their properties; of others they are checked",
    ),
    KeywordTreatment(
        "`patternProperties`", "rewritten", "for names that are listed, and for all values; names are checked"
    ),
    KeywordTreatment("`propertyNames`", "rewritten", "for names that are listed, or where it lists them; else checked"),
    KeywordTreatment(
        "`uniqueItems`",
        "narrowed",
        "exact where items are few listed values; then one item, or places with values of their own",
    ),
    KeywordTreatment(
        "`contains`, `minContains`, `maxContains`", "narrowed", "then the array begins with what it must contain"
    ),
    KeywordTreatment(
        "`unevaluatedProperties`, `unevaluatedItems`", "rewritten", "checked where it depends on a cousin"
    ),
    KeywordTreatment(
        "`nullable`, `items` lists, `dependencies`, boolean `exclusive*`", "rewritten", "older drafts, OpenAPI"
    ),
    KeywordTreatment("boolean schemas", "rewritten", "`false` removes a branch or a property"),
    KeywordTreatment("`{}`", "rewritten", "any value, with bounded strings, arrays and depth"),
    KeywordTreatment("no value can satisfy it", "refused", "contradictions, and recursion that can never end"),
    KeywordTreatment("not a schema: unknown types, wrong values, invalid patterns", "refused", ""),
    KeywordTreatment("`title`, `description`, `default`, `examples`, ...", "ignored", "annotations"),
)


def keyword_table() -> str:
    """The table in Markdown."""
    rows = [
        f"| {row.keywords.replace('|', '&#124;')} | {row.treatment} | {row.note.replace('|', '&#124;')} |"
        for row in KEYWORDS
    ]
    return "\n".join(["| keyword | treatment | how |", "|---|---|---|", *rows])
