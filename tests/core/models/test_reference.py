"""Every form of a model reference, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllama._models.reference import parse_reference
from localllama.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/models/a.gguf", "/models/a.gguf"),
        ("./a", "./a"),
        ("../a/b", "../a/b"),
        ("a.gguf", "a.gguf"),
        ("owner/repo.GGUF", "owner/repo.GGUF"),
        ("owner/repo/file.gguf", "owner/repo/file.gguf"),
        ("~/a.gguf", "{home}/a.gguf"),
        ("C:\\models\\a.gguf", "C:\\models\\a.gguf"),
        ("D:/models/a", "D:/models/a"),
        ("models\\a", "models\\a"),
        ("my models/a b", "my models/a b"),
        ("file:///models/a%20b.gguf", "/models/a b.gguf"),
        ("file://localhost/a.gguf", "/a.gguf"),
        ("a/b/c/d", "a/b/c/d"),
    ],
)
def test_paths(text: str, path: str, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    parsed = parse_reference(text)
    assert (parsed.kind, parsed.path) == ("path", path.format(home="/home/someone"))


@pytest.mark.parametrize(
    ("text", "repo", "file", "quantization"),
    [
        ("Qwen/Qwen2.5-3B-GGUF", "Qwen/Qwen2.5-3B-GGUF", None, None),
        ("Qwen/Qwen2.5-3B-GGUF:Q4_K_M", "Qwen/Qwen2.5-3B-GGUF", None, "Q4_K_M"),
        ("hf:a/b", "a/b", None, None),
        ("hf:a/b:iq3_xs", "a/b", None, "iq3_xs"),
        ("hf:a/b/c.gguf", "a/b", "c.gguf", None),
        ("hf:a/b/Q8/c-00001-of-00002.gguf", "a/b", "Q8/c-00001-of-00002.gguf", None),
    ],
)
def test_hugging_face(text: str, repo: str, file: str | None, quantization: str | None) -> None:
    parsed = parse_reference(text)
    assert (parsed.kind, parsed.repo, parsed.file, parsed.quantization) == ("hub", repo, file, quantization)


def test_a_package() -> None:
    parsed = parse_reference("pkg:some.package/models/a.gguf")
    assert (parsed.kind, parsed.package, parsed.file) == ("package", "some.package", "models/a.gguf")


@pytest.mark.parametrize("text", ["smollm2-135m", "SmolLM2-135M", "qwen3:4b", "no_such"])
def test_a_bare_name_is_looked_up_in_the_catalog(text: str) -> None:
    assert parse_reference(text).kind == "catalog"


def test_a_url_with_a_checksum() -> None:
    parsed = parse_reference(f"https://host/a.gguf?x=1#sha256={'AB' * 32}")
    assert (parsed.kind, parsed.url, parsed.sha256) == ("url", "https://host/a.gguf?x=1", "ab" * 32)


@pytest.mark.parametrize(
    "text", ["https://[::1/a.gguf?t=geheim", "https://host:abc/a.gguf?t=geheim", "https://host:99999/a.gguf"]
)
def test_an_address_that_is_none_is_refused_without_a_secret(text: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        parse_reference(text)
    assert "geheim" not in str(caught.value)


def test_a_short_name_may_be_in_capitals() -> None:
    assert parse_reference("Qwen3-4B").repo == parse_reference("qwen3-4b").repo == "Qwen/Qwen3-4B-GGUF"


def test_a_wrong_checksum_is_refused_without_a_secret() -> None:
    with pytest.raises(ConfigurationError, match=r"https://host:8443/a\.gguf has a fragment") as caught:
        parse_reference("https://me:geheim@host:8443/a.gguf?t=geheim#sha256=12")
    assert "geheim" not in str(caught.value)


def test_an_existing_file_wins_over_a_repository_but_not_over_the_catalog(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "repo").touch()
    (tmp_path / "smollm2-135m").touch()
    assert parse_reference("owner/repo").kind == "path"
    assert parse_reference("smollm2-135m").kind == "catalog"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \t",
        "a\0b",
        "a\nb.gguf",
        "pkg:",
        "pkg:nofile",
        "pkg:package/../../etc/a.gguf",
        "pkg:package//etc/a.gguf",
        r"pkg:package/..\a.gguf",
        "hf:a/b//etc/c.gguf",
        r"hf:a/b/..\c.gguf",
        "hf:a/b/./c.gguf",
        "hf:only",
        "hf:a/b/../../c.gguf",
        "hf:a/b/c.bin",
        "ftp://host/a.gguf",
        "file://elsewhere/a.gguf",
        "https://host/a.gguf#sha256=12",
    ],
)
def test_what_is_no_reference_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_reference(text)
    assert caught.value.hint
