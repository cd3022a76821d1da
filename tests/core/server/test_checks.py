"""Files that settings name are looked at before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllama._server.checks import check_setting_files
from localllama.errors import ConfigurationError
from localllama.settings import ServerSettings


@pytest.mark.parametrize("setting", ["mmproj", "lora", "chat_template_file", "draft_model"])
@pytest.mark.parametrize(
    ("name", "said"), [("missing", "no such file"), ("directory", "a directory"), ("empty", "is empty")]
)
def test_a_file_that_is_no_good_is_named_with_its_setting(tmp_path: Path, setting: str, name: str, said: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "empty").touch()
    path = str(tmp_path / name)
    with pytest.raises(ConfigurationError) as caught:
        check_setting_files(ServerSettings.build({"model": "m", setting: path}))
    assert caught.value.message.startswith(f"{setting}={path!r}")
    assert said in caught.value.message


def test_good_files_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("HOME", str(tmp_path))
    check_setting_files(ServerSettings(model="m", mmproj="~/good.gguf", draft_model=str(tmp_path / "good.gguf")))


@pytest.mark.parametrize("url", ["localhost:8080", "http://", "http://[::1", "http://127.0.0.1:99999", "ftp://host"])
def test_an_address_that_cannot_be_read_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        ServerSettings.build({"base_url": url})


@pytest.mark.parametrize("key", ["", "hidden\u00e9", "hidden\nX-Other: 1", " hidden"])
def test_a_key_that_no_header_may_have_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match="api_key") as caught:
        ServerSettings.build({"base_url": "http://127.0.0.1:1", "api_key": key})
    assert "hidden" not in str(caught.value)


def test_a_key_may_have_blanks_inside() -> None:
    ServerSettings.build({"base_url": "http://127.0.0.1:1", "api_key": "a b"})
