"""Remembers what was computed from a file for as long as the file is the same."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["FileKey", "FileMemo"]

T = TypeVar("T")
FileKey = tuple[str, int, int]
"""Real path, size in bytes, modification time in nanoseconds."""


class FileMemo(Generic[T]):
    """A small cache that computes each value once, however many threads ask for it at the same time.

    Args:
        capacity: How many values are kept; the one that was not asked for the longest goes first.
    """

    def __init__(self, capacity: int = 32) -> None:
        self._capacity = capacity
        self._renew()

    def _renew(self) -> None:
        self._owner_pid = os.getpid()
        self._lock = threading.Lock()
        self._key_locks: dict[Hashable, threading.Lock] = {}
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value for `key`, from `compute` the first time; an error of `compute` is raised and not kept."""
        if self._owner_pid != os.getpid():
            # A lock that another thread held at the fork stays locked in the child for ever.
            self._renew()
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            key_lock = self._key_locks.setdefault(key, threading.Lock())
        with key_lock:
            with self._lock:
                if key in self._values:
                    return self._values[key]
            try:
                value = compute()
            except BaseException:
                with self._lock:
                    self._key_locks.pop(key, None)
                raise
            with self._lock:
                self._key_locks.pop(key, None)
                self._values[key] = value
                while len(self._values) > self._capacity:
                    self._values.popitem(last=False)
            return value
