"""The cache of what was computed from files: once for many threads, and never stuck after a fork."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from localllama._models.memo import FileMemo


def test_many_threads_share_one_computation() -> None:
    memo: FileMemo[int] = FileMemo()
    computing, may_finish = threading.Event(), threading.Event()
    computed: list[int] = []
    results: list[int] = []

    def compute() -> int:
        computed.append(1)
        computing.set()
        assert may_finish.wait(10)
        return len(computed)

    threads = [threading.Thread(target=lambda: results.append(memo.get("key", compute))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert computing.wait(10)
    may_finish.set()
    for thread in threads:
        thread.join(10)
    assert results == [1] * 8


def test_an_error_is_raised_and_not_kept() -> None:
    memo: FileMemo[int] = FileMemo()
    with pytest.raises(ZeroDivisionError):
        memo.get("key", lambda: 1 // 0)
    assert memo.get("key", lambda: 7) == 7


def test_the_one_that_was_not_asked_for_the_longest_is_forgotten() -> None:
    memo: FileMemo[int] = FileMemo(capacity=2)
    for key in ("a", "b", "a", "c"):
        memo.get(key, lambda: 1)
    assert [memo.get(key, lambda: 2) for key in ("c", "a", "b")] == [1, 1, 2]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_a_thread_computes_is_not_stuck() -> None:
    memo: FileMemo[int] = FileMemo()
    computing, may_finish = threading.Event(), threading.Event()

    def compute() -> int:
        computing.set()
        assert may_finish.wait(10)
        return 1

    thread = threading.Thread(target=memo.get, args=("key", compute))
    thread.start()
    assert computing.wait(10)
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        os._exit(memo.get("key", lambda: 42))
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    finally:
        may_finish.set()
        thread.join(10)
