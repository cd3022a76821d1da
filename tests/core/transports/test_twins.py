"""The transports offer what the clients ask for, under the names and with the arguments that they use."""

from __future__ import annotations

import inspect

import pytest

from localllama._transports.base import AsyncChatTransport, ChatTransport
from localllama._transports.http import AsyncHTTPTransport, HTTPTransport


@pytest.mark.parametrize(
    ("protocol", "transport"), [(ChatTransport, HTTPTransport), (AsyncChatTransport, AsyncHTTPTransport)]
)
def test_a_transport_offers_what_is_asked_for(protocol: type, transport: type) -> None:
    names = [name for name in vars(protocol) if not name.startswith("_")]
    assert len(names) == 4
    for name in names:
        wanted, offered = getattr(protocol, name), getattr(transport, name)
        assert inspect.signature(offered).parameters.keys() == inspect.signature(wanted).parameters.keys()
        if name != "stream":  # an async generator needs no await to be made
            assert inspect.iscoroutinefunction(offered) == inspect.iscoroutinefunction(wanted)
