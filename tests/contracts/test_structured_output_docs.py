"""The table of keywords in the documentation is the one in the code."""

from __future__ import annotations

from pathlib import Path

from localllama._protocol.schemas.keywords import KEYWORDS, keyword_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "structured-output.md"
BEGIN = "<!-- keywords: made by localllama._protocol.schemas.keywords -->\n"
END = "\n<!-- end of keywords -->"


def test_the_table_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert BEGIN in page
    shown = page.partition(BEGIN)[2].partition(END)[0]
    assert shown == keyword_table(), "write the output of keyword_table() between the two comments"


def test_every_keyword_of_the_standard_has_a_row() -> None:
    named = " ".join(row.keywords for row in KEYWORDS)
    standard = (
        "$anchor $defs $dynamicRef $id $ref additionalProperties allOf anyOf const contains dependentRequired "
        "dependentSchemas else enum format if items maxContains maxItems maxLength maxProperties maximum minContains "
        "minItems minLength minProperties minimum multipleOf not oneOf pattern patternProperties prefixItems properties "
        "propertyNames required then type unevaluatedItems unevaluatedProperties uniqueItems"
    )
    assert [keyword for keyword in standard.split() if keyword not in named] == []
