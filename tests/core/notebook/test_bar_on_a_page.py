"""The bar of a start on a page: one display that is changed in place, and that hinders no start."""

from __future__ import annotations

from typing import Any

import IPython
import pytest
from IPython import display

from localllama import StartProgress, _start_bar
from localllama._start_bar import shown_start


@pytest.fixture
def displays(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a page would be told to show; every report of a start is drawn."""
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(display, "publish_display_data", lambda data, **more: shown.append({**data, **more}))
    page = type("Page", (), {"kernel": object()})()
    monkeypatch.setattr(IPython, "get_ipython", lambda: page)
    monkeypatch.setattr(_start_bar, "_DELAY_SECONDS", 0)
    monkeypatch.setattr(_start_bar, "_BETWEEN_DRAWINGS_SECONDS", 0)
    return shown


def step(stage: Any, **more: Any) -> StartProgress:
    return StartProgress(stage, 1.0, **more)


def test_one_display_is_changed_and_in_the_end_empty(displays: list[dict[str, Any]]) -> None:
    with shown_start() as report:
        report(step("fetching", done_bytes=1_500_000, total_bytes=3_000_000, detail="<b>"))
        report(step("fetching", done_bytes=2_000_000, detail="model"))
        report(step("loading", detail="llama-server"))
        report(step("ready", detail="llama-server"))
    pages = [shown["text/html"] for shown in displays]
    assert pages[0] == '<progress value="1500000" max="3000000"></progress> fetching &lt;b&gt;: 1.5 of 3.0 MB'
    assert pages[1] == "<progress></progress> fetching model: 2.0 MB"
    assert "loading the model (llama-server)" in pages[2]
    assert pages[3:] == [""]
    assert [shown["update"] for shown in displays] == [False, True, True, True]
    assert len({shown["transient"]["display_id"] for shown in displays}) == 1


@pytest.mark.parametrize("n_good", [0, 1])
def test_a_page_that_breaks_hinders_no_start(
    displays: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, n_good: int
) -> None:
    def publish(data: dict[str, str], **_: Any) -> None:
        if len(displays) == n_good:
            raise RuntimeError("the page is gone")
        displays.append(data)

    monkeypatch.setattr(display, "publish_display_data", publish)
    with shown_start() as report:
        for _ in range(3):
            report(step("loading", detail="llama-server"))
    assert len(displays) == n_good
