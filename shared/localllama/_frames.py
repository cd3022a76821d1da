"""What an error holds on to."""

from __future__ import annotations

from traceback import walk_tb
from types import TracebackType

__all__ = ["LettingGo", "let_go"]

_OURS = frozenset({"localllama", "tenacity", "httpcore", "contextlib", "concurrent"})
_ENDS = (StopIteration, StopAsyncIteration, GeneratorExit)


class LettingGo:
    """Around a call: an error that leaves it keeps nothing of ours alive but what it says itself.

    A traceback holds the frames that it came through with their variables, the client among them. Some of those hold the
    error again (a function that was given it, a future of tenacity), in a cycle that only a garbage collection ends; until
    then a client that was dropped after an error would keep its server. So these frames forget their variables, and no
    others do: a debugger still has those of the user's own.
    """

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, _ENDS):
            let_go(error)


def let_go(error: BaseException | None) -> None:
    """What `LettingGo` does, for an error that ends here."""
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += [one.__cause__, one.__context__]
        for frame, _ in walk_tb(one.__traceback__):
            if str(frame.f_globals.get("__name__")).partition(".")[0] in _OURS:
                try:
                    frame.clear()
                except RuntimeError:
                    continue  # it runs still: this very one, or one of a thread that waits for the same start
