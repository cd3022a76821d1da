"""Events from bytes: every line end, every cut."""

from __future__ import annotations

import pytest

from localllama import MalformedResponseError
from localllama._protocol.sse import ServerSentEvent, SSEDecoder

STREAMS = {
    "newlines": (b"data: a\n\ndata: b\n\n", ["a", "b"]),
    "carriage returns": (b"data: a\r\rdata: b\r\r", ["a", "b"]),
    "both": (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
    "mixed": (b"data: a\r\n\ndata: b\n\rdata: c\r\r\n", ["a", "b", "c"]),
    "comments": (b":\n\n: ping\n\ndata: a\n:x\n\n", ["a"]),
    "several data lines": (b"data: a\ndata:b\ndata\n\n", ["a\nb\n"]),
    "several data lines, two characters a line end": (b"data: a\r\ndata: b\r\n\r\n", ["a\nb"]),
    "one space is dropped": (b"data:  a \n\n", [" a "]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
    "other fields": (b"id: 7\nretry: 5\ndata: a\nunknown\n\n", ["a"]),
    "unfinished": (b"data: a\n\ndata: b\n", ["a"]),
    "no data": (b"event: x\n\ndata: a\n\n", ["a"]),
    "separators of Unicode": ("data: a\u2028b\u2029c\x85d\x0be\x0cf\n\n".encode(), ["a\u2028b\u2029c\x85d\x0be\x0cf"]),
    "beyond the basic plane": ("data: 😀é\n\n".encode(), ["😀é"]),
}


@pytest.mark.parametrize("name", STREAMS)
def test_events_do_not_depend_on_the_cuts(name: str) -> None:
    stream, expected = STREAMS[name]
    for size in (1, 2, 3, 7, len(stream)):
        decoder = SSEDecoder()
        events = [
            event for start in range(0, len(stream), size) for event in decoder.feed(stream[start : start + size])
        ]
        assert [event.data for event in events] == expected
    for cut in range(len(stream) + 1):
        decoder = SSEDecoder()
        events = decoder.feed(stream[:cut]) + decoder.feed(b"") + decoder.feed(stream[cut:])
        assert [event.data for event in events] == expected


def test_an_event_is_given_out_as_soon_as_its_blank_line_begins() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [ServerSentEvent("a")]
    assert decoder.feed(b"\ndata: b\n\n") == [ServerSentEvent("b")]


def test_the_type_of_an_event_is_kept_and_not_inherited() -> None:
    assert SSEDecoder().feed(b"event: error\ndata: a\n\ndata: b\n\n") == [
        ServerSentEvent("a", "error"),
        ServerSentEvent("b", "message"),
    ]


def test_the_error_field_of_old_builds_is_an_error_event() -> None:
    assert SSEDecoder().feed(b'error: {"code":500}\n\n') == [ServerSentEvent('{"code":500}', "error")]


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 200, b"data: x\n" * 200])
def test_an_event_without_end_is_refused(stream: bytes) -> None:
    decoder = SSEDecoder(limit_bytes=100)
    with pytest.raises(MalformedResponseError, match="100 bytes"):
        for start in range(0, len(stream), 10):
            decoder.feed(stream[start : start + 10])


def test_many_events_may_be_larger_than_the_limit_together() -> None:
    decoder = SSEDecoder(limit_bytes=100)
    assert len(decoder.feed(b"data: xxxxxxxxxxxxxxxxxxxx\n\n" * 50)) == 50


def test_an_event_that_is_not_text_is_refused() -> None:
    with pytest.raises(MalformedResponseError, match="UTF-8"):
        SSEDecoder().feed(b"data: \xff\n\n")


def test_what_is_unfinished_at_the_end_is_forgotten() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\ndata: b") == []
    decoder.close()
    assert decoder.feed(b"\n\ndata: c\n\n") == [ServerSentEvent("c")]
