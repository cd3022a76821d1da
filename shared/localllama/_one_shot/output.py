"""Reads what a one-shot program prints: bytes in any cut, text out, and how it ended. Pure."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Counters", "OutputReader", "Piece", "StopWatch", "ThoughtReader", "read_counters"]

_END_OF_TEXT = " [end of text]\n"
_LAST_LINES = "\n\n"
# Without the last lines: builds before September 2024.
_ENDS = (_END_OF_TEXT + _LAST_LINES, _LAST_LINES, _END_OF_TEXT)
_CHAT_ENDS = ("\n\n\nExiting...\n", "\n\nExiting...\n")
_ERROR = "Error: "
_OPENING = "<think>"
_CLOSING = "</think>"


class OutputReader:
    r"""Turns the standard output of a program into the text that the model wrote, nothing more and nothing less.

    `llama-completion` prints the text, ` [end of text]\n` if the model ended it, and `\n\n`. The new `llama-cli` prints a
    banner and the prompt first, and `Exiting...` behind a newline that it leaves out where the text has one. No more is held
    back than what may be the end.

    Args:
        head: What stands before the text, with anything before it; "" if the text comes first.
        is_chat_client: It is the new `llama-cli`.
        is_windows: Lines end in `\r\n` there.
    """

    def __init__(self, head: str = "", *, is_chat_client: bool = False, is_windows: bool = False) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._decoder: codecs.IncrementalDecoder = (
            io.IncrementalNewlineDecoder(decoder, translate=True) if is_windows else decoder  # type: ignore[assignment]
        )
        self._head = head
        self._tail = ""
        self._ends = _CHAT_ENDS if is_chat_client else _ENDS
        self._has_begun = not is_chat_client
        self.is_ended_by_model = False
        self.has_end = False
        self.rest = ""
        self.error = ""

    def feed(self, data: bytes, *, is_last: bool = False) -> str:
        """The text that is surely the model's; at the end, what may be the model's stays in `rest`."""
        self._tail += self._decoder.decode(data, is_last)
        if self._head and not self._cut_head():
            return ""
        if is_last:
            return self._finish()
        if not self._has_begun:
            # An error stands where the answer would; only the end, and the log, tell them apart.
            if _ERROR.startswith(self._tail[: len(_ERROR)]):
                return ""
            self._has_begun = True
        held = next((i for i in self._places() if self._may_be_end(self._tail[i:])), len(self._tail))
        text, self._tail = self._tail[:held], self._tail[held:]
        return text

    def _cut_head(self) -> bool:
        _, head, rest = self._tail.partition(self._head)
        if not head:
            return False
        self._tail, self._head = rest, ""
        return True

    def _places(self) -> range:
        return range(max(0, len(self._tail) - max(map(len, self._ends))), len(self._tail))

    def _may_be_end(self, text: str) -> bool:
        return any(end.startswith(text) for end in self._ends)

    def _finish(self) -> str:
        text, self._tail = self._tail, ""
        end = next((end for end in self._ends if text.endswith(end)), "")
        self.has_end = bool(end)
        self.is_ended_by_model = end.startswith(_END_OF_TEXT)
        text = text.removesuffix(end)
        if not self._has_begun and text.startswith(_ERROR):
            self.error = text.removeprefix(_ERROR).strip()
            return ""
        if not end:
            # It may be a part of the end, if the program lost the rest.
            self.rest, text = text, ""
        return text


class StopWatch:
    """Ends the text at the first stop string, and holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.has_stopped = False

    def feed(self, text: str, *, is_last: bool = False) -> str:
        """The text that may be shown."""
        if self.has_stopped:
            return ""
        if not self._stops:
            return text
        self._held += text
        found = [place for place in (self._held.find(stop) for stop in self._stops) if place >= 0]
        if found:
            self.has_stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        longest = max(map(len, self._stops)) - 1
        keep = 0 if is_last else self._length_of_beginning(longest)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown

    def _length_of_beginning(self, longest: int) -> int:
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0


@dataclass(frozen=True)
class Piece:
    """A piece of an answer: of its text, or of the thinking before it."""

    kind: Literal["text", "reasoning"]
    text: str


class ThoughtReader:
    """Takes the thinking in front of an answer apart from it: `<think>...</think>`, as llama-server does.

    Args:
        is_open: The template has written `<think>` already.
    """

    def __init__(self, *, is_open: bool = False) -> None:
        self._state: Literal["before", "inside", "after", "text"] = "inside" if is_open else "before"
        self._held = ""

    def feed(self, text: str, *, is_last: bool = False) -> list[Piece]:
        """The pieces that the text completes."""
        self._held += text
        pieces: list[Piece] = []
        while self._step(pieces, is_last=is_last):
            pass
        return [piece for piece in pieces if piece.text]

    def _step(self, pieces: list[Piece], *, is_last: bool) -> bool:
        """One step; whether another may follow."""
        if self._state == "before":
            return self._look_for_opening(is_last=is_last)
        if self._state == "inside":
            return self._read_thought(pieces, is_last=is_last)
        if self._state == "after":
            self._held = self._held.lstrip()
            if not self._held:
                return False
            self._state = "text"
        pieces.append(Piece("text", self._held))
        self._held = ""
        return False

    def _look_for_opening(self, *, is_last: bool) -> bool:
        begun = self._held.lstrip()
        if begun.startswith(_OPENING):
            self._held = begun.removeprefix(_OPENING)
            self._state = "inside"
            return True
        if _OPENING.startswith(begun) and not is_last:
            return False
        self._state = "text"
        return bool(self._held)

    def _read_thought(self, pieces: list[Piece], *, is_last: bool) -> bool:
        place = self._held.find(_CLOSING)
        if place >= 0:
            pieces.append(Piece("reasoning", self._held[:place].rstrip()))
            self._held = self._held[place + len(_CLOSING) :]
            self._state = "after"
            return True
        keep = 0
        if not is_last:
            lengths = range(min(len(_CLOSING) - 1, len(self._held)), 0, -1)
            keep = next((n for n in lengths if _CLOSING.startswith(self._held[-n:])), 0)
            # White space before the closing tag is not part of the thinking.
            shown = self._held[: len(self._held) - keep].rstrip()
            keep = len(self._held) - len(shown)
        pieces.append(Piece("reasoning", self._held[: len(self._held) - keep]))
        self._held = self._held[len(self._held) - keep :]
        return False


@dataclass(frozen=True)
class Counters:
    """What the program counted itself; None where it did not say.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens generated, the end token included.
        prompt_ms: Milliseconds for the prompt.
        predicted_ms: Milliseconds for the answer.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0


_NUMBER = r"\s*=\s*([\d.]+) ms"
_PROMPT_TIME = re.compile(rf"prompt eval time{_NUMBER} /\s*(\d+) tokens")
_EVAL_TIME = re.compile(rf"(?<!prompt )eval time{_NUMBER} /\s*(\d+) (runs|tokens)")
# Both count the tokens that are not evaluated too; the first, of `llama_perf_sampler_print`, those of the prompt as well.
_ACCEPTED = re.compile(rf"(?:samplers|sampling) time{_NUMBER} /\s*(\d+) (?:tokens|runs)")
_SAMPLED = re.compile(rf"sample time{_NUMBER} /\s*(\d+) runs")


def read_counters(log: str) -> Counters:
    """Find the lines of `llama_print_timings` and its successors in the log of a program."""
    prompt, answer = _last(_PROMPT_TIME, log), _last(_EVAL_TIME, log)
    if prompt is None or answer is None:
        return Counters()
    prompt_tokens, runs = int(prompt[2]), int(answer[2])
    completion = runs if answer[3] == "tokens" else runs + 1
    accepted, sampled = _last(_ACCEPTED, log), _last(_SAMPLED, log)
    # "runs" counts evaluations: the last token is sampled and not evaluated, and none is shown as one.
    if answer[3] == "runs" and accepted is not None:
        completion = max(0, int(accepted[2]) - prompt_tokens)
    elif answer[3] == "runs" and sampled is not None:
        completion = int(sampled[2])
    return Counters(prompt_tokens, completion, float(prompt[1]), float(answer[1]))


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for found in pattern.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    return found
