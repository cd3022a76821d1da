"""What a program prints becomes the model's text exactly, whatever the cut of its bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllama._one_shot.endpoints import usage_fields
from localllama._one_shot.output import Counters, OutputReader, StopWatch, ThoughtReader, read_counters
from localllama._one_shot.program_runs import Outcome, Program

TEXTS = [
    "Hello",
    "",
    "ends with newlines\n\n\n",
    "Grüße, 世界 🎉",
    " [end of text] is not the end",
    "quotes [end of text]\n and goes on",
    "\n\nbegins with newlines",
    "[end",
]


def read(reader: OutputReader, data: bytes, step: int) -> str:
    text = "".join(reader.feed(data[i : i + step]) for i in range(0, len(data), step))
    return text + reader.feed(b"", is_last=True) + reader.rest


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("trailer", "is_ended_by_model"),
    [(" [end of text]\n\n\n", True), ("\n\n", False), (" [end of text]\n", True)],
    ids=["by the model", "by a limit", "before September 2024"],
)
def test_the_end_is_taken_off_exactly(text: str, step: int, trailer: str, is_ended_by_model: bool) -> None:
    reader = OutputReader()
    assert read(reader, (text + trailer).encode(), step) == text
    assert reader.is_ended_by_model is is_ended_by_model


def test_text_is_given_out_as_soon_as_it_cannot_be_the_end() -> None:
    reader = OutputReader()
    assert reader.feed(b"Hello [end") == "Hello"
    assert reader.feed(b"less") == " [endless"
    assert reader.feed(b"\n") == ""
    assert reader.feed(b"x") == "\nx"


def test_half_a_character_at_the_end() -> None:
    assert read(OutputReader(), "ab€".encode()[:-1], 1) == "ab\ufffd"


@pytest.mark.parametrize("step", [1, 5, 1000])
@pytest.mark.parametrize("text", ["Hello", "", "a\n\n\nb", "Errors are human"])
def test_the_chat_client_shows_a_banner_and_the_prompt_first(text: str, step: int) -> None:
    reader = OutputReader("\n> =/read x=\n", is_chat_client=True)
    newline = "\n" if text else ""
    printed = f"banner\n> nothing\n\n> =/read x=\n{text}{newline}\n\nExiting...\n"
    assert read(reader, printed.encode(), step) == text
    assert not reader.error


def test_an_error_of_the_chat_client_is_kept_apart() -> None:
    reader = OutputReader("\n> =x=\n", is_chat_client=True)
    assert reader.feed(b"\n> =x=\nError: request (600 tokens) exceeds") == ""
    reader.feed(b" it\n\n\nExiting...\n", is_last=True)
    assert reader.error == "request (600 tokens) exceeds it"


def test_windows_line_ends() -> None:
    assert read(OutputReader(is_windows=True), b"a\r\nb [end of text]\r\n\r\n\r\n", 1) == "a\nb"


@pytest.mark.parametrize("step", [1, 2, 100])
def test_stop_strings_are_held_back_and_end_the_text(step: int) -> None:
    watch = StopWatch(["END", "\nUser:"])
    text = "EN route\nUse it\nUser: no"
    assert "".join(watch.feed(text[i : i + step]) for i in range(0, len(text), step)) == "EN route\nUse it"
    assert watch.has_stopped
    unstopped = StopWatch(["END"])
    assert unstopped.feed("all E") + unstopped.feed("N", is_last=True) == "all EN"


@pytest.mark.parametrize("step", [1, 4, 1000])
@pytest.mark.parametrize(
    ("text", "is_open", "expected"),
    [
        ("<think>\nwell\n</think>\n\nYes", False, ("\nwell", "Yes")),
        ("well </think>Yes <think>", True, ("well", "Yes <think>")),
        ("Yes </think>", False, ("", "Yes </think>")),
        ("<thin", False, ("", "<thin")),
        ("<think>never ends </th", False, ("never ends </th", "")),
    ],
)
def test_thinking_is_taken_apart(text: str, is_open: bool, expected: tuple[str, str], step: int) -> None:
    reader = ThoughtReader(is_open=is_open)
    pieces = [piece for i in range(0, len(text), step) for piece in reader.feed(text[i : i + step])]
    pieces += reader.feed("", is_last=True)
    thought = "".join(piece.text for piece in pieces if piece.kind == "reasoning")
    assert (thought, "".join(piece.text for piece in pieces if piece.kind == "text")) == expected


def test_counters_of_the_generations_of_llama_cpp() -> None:
    new = """0.06 I common_perf_print:    samplers time =       0.81 ms /    32 tokens
0.06 I common_perf_print: prompt eval time =     442.01 ms /    12 tokens (   36.83 ms per token)
0.06 I common_perf_print:        eval time =    1398.17 ms /    19 runs   (   73.59 ms per token)"""
    counters = read_counters(new)
    assert (counters.prompt_tokens, counters.completion_tokens) == (12, 20)
    cli = """slot print_timing: id  0 | task 0 | prompt eval time =    1224.20 ms /    12 tokens
slot print_timing: id  0 | task 0 |        eval time =    1588.08 ms /    13 tokens"""
    assert (read_counters(cli).prompt_tokens, read_counters(cli).completion_tokens) == (12, 13)
    middle = """llama_perf_sampler_print:    sampling time =       6.11 ms /    17 runs   (    1.22 ms per token)
llama_perf_context_print: prompt eval time =     442.01 ms /    12 tokens (   36.83 ms per token)
llama_perf_context_print:        eval time =    1659.01 ms /     4 runs   (  414.75 ms per token)"""
    assert (read_counters(middle).prompt_tokens, read_counters(middle).completion_tokens) == (12, 5)
    oldest = """llama_print_timings:      sample time =       2.61 ms /     5 runs   (    0.52 ms per token)
llama_print_timings: prompt eval time =     442.01 ms /    12 tokens (   36.83 ms per token)
llama_print_timings:        eval time =    1659.01 ms /     4 runs   (  414.75 ms per token)"""
    assert (read_counters(oldest).prompt_tokens, read_counters(oldest).completion_tokens) == (12, 5)
    assert read_counters("nothing").prompt_tokens is None


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        (Counters(7, 3), {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}),
        (
            Counters(7, None),  # the one without the other: both are estimated, four characters a token
            {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5, "is_estimated": True},
        ),
    ],
)
def test_usage_adds_up_and_says_where_it_is_an_estimate(counters: Counters, expected: dict[str, object]) -> None:
    assert usage_fields("a prompt", "an answer", counters) == expected


def test_an_output_of_the_chat_client_without_its_end_is_not_whole(tmp_path: Path) -> None:
    client = Program(("llama-cli",), "new-cli", frozenset(), (), tmp_path)
    counted = Counters(prompt_tokens=5, completion_tokens=5)
    assert client.is_whole(Outcome(is_ended_by_model=False, counters=counted))
    assert not client.is_whole(Outcome(is_ended_by_model=False, counters=counted, has_end=False))
