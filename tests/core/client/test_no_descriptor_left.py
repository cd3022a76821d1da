"""A program that has used up its descriptors: an error of ours, and the server goes on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import pytest

from localllama import LocalLlamaClient, SamplingSettings, ServerConnectionError, ServerSettings

if sys.platform == "win32":
    pytest.skip("a limit of POSIX", allow_module_level=True)

import resource


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_number = os.dup(0)
    os.close(next_number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_number, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_call_without_a_descriptor_fails_and_the_next_one_has_the_same_server(
    make_settings: Callable[..., ServerSettings],
) -> None:
    sampling = SamplingSettings(max_tokens=2)
    with LocalLlamaClient(make_settings(), sampling=sampling, max_retries=0) as client:
        client.complete("once")
        running = client._connection.running()
        with no_descriptor_left(), pytest.raises(ServerConnectionError, match="Too many open files"):
            client.complete("once")
        client.complete("once")
        assert client._connection.running() is running
