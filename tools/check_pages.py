"""A hook of MkDocs: a built page that loads a script, a style, a font or a picture from another site fails the build.

The documentation is read offline, and whoever reads it is nobody else's business. Links that a reader follows are free.
"""

from __future__ import annotations

import re
from typing import Any

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'\s>]+""", re.IGNORECASE
)
_STYLE = re.compile(r"""<link\b[^>]*\bhref=["']?(?:https?:)?//[^"'\s>]+[^>]*>""", re.IGNORECASE)
_IMPORT = re.compile(r"""(?:url\(|@import\s+)["']?(?:https?:)?//[^"')\s]+""", re.IGNORECASE)


def loaded_from_elsewhere(page: str) -> list[str]:
    """What the HTML of a page would load from another site."""
    found = _LOADED.findall(page) + _IMPORT.findall(page)
    found += [link for link in _STYLE.findall(page) if not re.search(r"rel=[\"']?(canonical|next|prev)", link)]
    return found


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """MkDocs calls this with each page that it has made.

    Raises:
        ValueError: The page loads something from another site.
    """
    if found := loaded_from_elsewhere(output):
        raise ValueError(f"{page.file.src_uri} loads from elsewhere: {', '.join(found)}")
    return output
