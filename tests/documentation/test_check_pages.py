"""The check of built pages sees what they would load from other sites, and lets links be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from support.documents import ROOT


@pytest.fixture(scope="module")
def check_pages() -> ModuleType:
    path = ROOT / "tools" / "check_pages.py"
    spec = importlib.util.spec_from_file_location("check_pages", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://unpkg.com/mermaid.js"></script>',
        "<script async src=//cdn.example/x.js></script>",
        '<link rel="stylesheet" href="https://fonts.googleapis.com/css?family=Roboto">',
        "<style>@font-face { src: url(https://cdn.example/a.woff2) }</style>",
        '<img alt="a badge" src="https://img.example/badge.svg">',
    ],
)
def test_what_comes_from_elsewhere_is_refused(check_pages: ModuleType, html: str) -> None:
    with pytest.raises(ValueError, match=r"tools\.md loads from elsewhere"):
        check_pages.on_post_page(html, SimpleNamespace(file=SimpleNamespace(src_uri="tools.md")))


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://github.com/ggml-org/llama.cpp">llama.cpp</a>',
        '<script src="assets/bundle.js"></script><link rel="stylesheet" href="assets/main.css">',
        '<link rel="canonical" href="https://docs.example/tools.html">',
        "<code>&lt;script src=&quot;https://example.org/x.js&quot;&gt;</code>",
    ],
)
def test_links_and_files_of_the_site_pass(check_pages: ModuleType, html: str) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="tools.md"))
    assert check_pages.on_post_page(html, page) == html


def test_pictures_load_nothing_from_elsewhere(check_pages: ModuleType) -> None:
    pictures: list[Path] = sorted((ROOT / "docs" / "images").glob("*.svg"))
    assert len(pictures) >= 4
    assert [path.name for path in pictures if check_pages.loaded_from_elsewhere(path.read_text())] == []
