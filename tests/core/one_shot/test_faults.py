"""Programs that misbehave: right text or the right error, on a stand-in for `llama-completion`."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest

from core.one_shot.conftest import settings_for
from localllama import (
    ChatRequest,
    ConfigurationError,
    LocalLlamaClient,
    LocalLlamaError,
    LocalLlamaWarning,
    Message,
    ModelCorruptError,
    ProgramFailedError,
    ProgramMissingError,
    ProgramNotExecutableError,
    RequestTimeoutError,
    RuntimeBrokenError,
    RuntimeNotExecutableError,
    RuntimeNotFoundError,
    SamplingSettings,
    ServerStartError,
    ServerStartTimeoutError,
    TimeoutSettings,
)
from localllama._one_shot.answering import MOST_RUNS
from localllama._runtime import resolve
from support.one_shot_program import make_one_shot_program
from support.waiting import wait_until

HELLO = ChatRequest((Message("user", "Hi"),))
MakeClient = Callable[..., LocalLlamaClient]


@pytest.fixture
def client_of(micro_model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> MakeClient:
    """A client of a program with the given body."""

    def make(body: str, **changes: object) -> LocalLlamaClient:
        program = make_one_shot_program(tmp_path, body)
        return LocalLlamaClient(settings_for(micro_model, program, request.node.name, **changes))

    return make


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all of PATH; nothing else is installed."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setattr(resolve, "_PREFIXES", ())
    monkeypatch.setattr(resolve, "_library_directory", lambda: None)
    monkeypatch.setenv("PATH", str(directory))
    return directory


def ours(warned: Iterable[warnings.WarningMessage]) -> list[str]:
    """What localllama said; the garbage collector may speak of sockets of the tests before."""
    return [str(each.message) for each in warned if issubclass(each.category, LocalLlamaWarning)]


def test_exit_code_and_all_of_ten_megabytes_of_log(client_of: MakeClient) -> None:
    body = "sys.stderr.write('first line\\n' + 'x' * 79 + ('\\n' + 'y' * 79) * 125000 + '\\nlast line\\n')\nsys.exit(3)"
    with client_of(body) as client, pytest.raises(ProgramFailedError, match="exited with code 3") as caught:
        client.chat(HELLO)
    error = caught.value
    assert error.exit_code == 3
    assert len(error.stderr) > 10_000_000
    assert error.stderr.startswith("first line\n")
    assert error.stderr.endswith("last line\n")
    assert len(str(error)) < 5000
    assert "last line" in str(error)
    assert error.command.endswith("llama-completion")


def test_more_log_than_is_kept(client_of: MakeClient) -> None:
    body = "sys.stderr.write('first\\n')\nfor _ in range(40): sys.stderr.write('z' * (1 << 20))\nsys.stderr.write('last')\nsys.exit(4)"
    with client_of(body) as client:
        with pytest.raises(ProgramFailedError) as caught:
            client.chat(HELLO)
        pid = client.server_pid
        assert pid is not None
        assert psutil.Process(pid).memory_info().rss < 200 << 20
    assert caught.value.stderr.startswith("first")
    assert caught.value.stderr.endswith("last")
    assert 16_000_000 < len(caught.value.stderr) < 17_000_000
    assert "bytes left out" in caught.value.stderr


def test_failure_after_text_keeps_the_text(client_of: MakeClient) -> None:
    with client_of("out.write(b'some text and'); out.flush()\nprint('broken', file=sys.stderr)\nsys.exit(3)") as client:
        stream = client.stream_chat(HELLO)
        assert next(stream).text == "some text and"
        with pytest.raises(ProgramFailedError, match="broken") as caught:
            for _ in stream:
                continue
        assert stream.result().text == "some text and"
    assert caught.value.exit_code == 3


def test_a_signal(client_of: MakeClient) -> None:
    with client_of("os.kill(os.getpid(), signal.SIGSEGV)") as client:
        with pytest.raises(ProgramFailedError, match="SIGSEGV") as caught:
            client.chat(HELLO)
    assert (caught.value.exit_code, caught.value.signal_number) == (None, 11)


def test_half_a_character(client_of: MakeClient) -> None:
    with client_of("out.write('abc€'.encode()[:-1] + b'\\n\\n')") as client:
        assert client.chat(HELLO).text == "abc\ufffd"


def test_characters_in_pieces(client_of: MakeClient) -> None:
    """Each byte comes alone: the program waits until the one before was read."""
    body = """
import fcntl, termios
for byte in "Grüße 🎉".encode():
    out.write(bytes([byte])); out.flush()
    while any(fcntl.ioctl(1, termios.FIONREAD, bytes(4))):
        time.sleep(0.001)
out.write(b" [end of text]\\n\\n\\n")
"""
    with client_of(body) as client:
        result = client.chat(HELLO)
    assert (result.text, result.finish_reason) == ("Grüße 🎉", "stop")
    assert result.usage is not None
    assert result.usage.is_estimated, "this program counts nothing"


_COUNTS_AND_ENDS_NOTHING = "out.write(b'x')\nsys.exit() if is_trial else None\n"
_COUNTED = (
    "sys.stderr.write('x: prompt eval time = 1.00 ms / 4 tokens\\nx: eval time = 1.00 ms / 6 runs\\n'"
    "'x: samplers time = 1.00 ms / 11 tokens\\n')\n"
)


def test_half_an_answer_of_a_program_that_counts_nothing_is_no_answer(client_of: MakeClient, tmp_path: Path) -> None:
    """In its trial it wrote what llama.cpp writes behind an answer. Without that it is half an answer, exit code 0 or not."""
    runs = tmp_path / "runs"
    body = f"out.write(b'{{\"name\": \"An')\nopen({str(runs)!r}, 'a').write('.')"
    with client_of(body) as client:
        with pytest.raises(ProgramFailedError, match="exited with code 0 and without the end of its answer") as caught:
            client.chat(HELLO)
    assert caught.value.exit_code == 0
    assert runs.read_text() == "." * MOST_RUNS, "it has been asked for the rest"


def test_a_program_that_counts_nothing_is_tried_three_times_and_no_more(micro_model: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    program = make_one_shot_program(
        tmp_path, f"out.write(b'x\\n\\n')\nopen({str(runs)!r}, 'a').write('.')", fails_trial=True
    )
    with LocalLlamaClient(settings_for(micro_model, program, "x")) as client:
        client.start()
    assert runs.read_text() == "..."


def test_half_an_answer_is_written_once_more(client_of: MakeClient, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    body = f"""
if os.path.exists({str(marker)!r}):
    out.write(b"one two three\\n\\n")
else:
    open({str(marker)!r}, "w").close()
    out.write(b"one tw")
"""
    with client_of(body) as client:
        result = client.chat(HELLO)
    assert (result.text, result.finish_reason) == ("one two three", "length")


@pytest.mark.parametrize(
    ("body", "text", "reason"),
    [
        ("out.write(b'all [end of text]\\n\\n\\n')", "all", "stop"),
        ("out.write(b'all\\n\\n')", "all", "length"),
        (_COUNTS_AND_ENDS_NOTHING + "out.write(b'yz')", "xyz", "stop"),
        (_COUNTED + _COUNTS_AND_ENDS_NOTHING + "out.write(b'yz')", "xyz", "length"),
        (_COUNTED.replace("11", "10") + _COUNTS_AND_ENDS_NOTHING + "out.write(b'yz')", "xyz", "stop"),
    ],
    ids=["the model", "a limit", "says nothing", "counts as many as it may", "counts less"],
)
def test_the_finish_reason_is_what_the_program_tells(
    micro_model: Path, tmp_path: Path, body: str, text: str, reason: str
) -> None:
    program = make_one_shot_program(tmp_path, body, fails_trial="is_trial" in body)
    sampling = SamplingSettings(max_tokens=7)
    with LocalLlamaClient(settings_for(micro_model, program, "x"), sampling=sampling) as client:
        result = client.chat(HELLO)
    assert (result.text, result.finish_reason) == (text, reason)


COUNTERS = (
    "x: prompt eval time =     1.00 ms /     4 tokens\\nx:        eval time =     1.00 ms /     2 runs\\n"
    "x:    samplers time = 1.0 ms /     7 tokens\\n"
)


def test_what_looks_like_the_end_of_the_output_and_is_not(micro_model: Path, tmp_path: Path) -> None:
    program = make_one_shot_program(tmp_path, "out.write(b'the mark is [end of')", fails_trial=True)
    with LocalLlamaClient(settings_for(micro_model, program, "looks like it")) as client:
        assert client.chat(HELLO).text == "the mark is [end of"


def test_a_begun_answer_goes_on(client_of: MakeClient) -> None:
    with client_of("out.write(b' is four.\\n\\n')") as client:
        result = client.chat(ChatRequest((*HELLO.messages, Message("assistant", "It"))))
        assert result.text == "It is four."


@pytest.mark.parametrize(
    "written",
    [r"out.write(b' [end of text]\n\n\n')", "pass", f'sys.stderr.write("{COUNTERS}")'],
    ids=["its end", "nothing", "counters"],
)
def test_success_without_text_is_an_empty_answer_and_a_warning(client_of: MakeClient, written: str) -> None:
    with client_of(written) as client:
        with pytest.warns(LocalLlamaWarning, match="wrote no text"):
            result = client.chat(HELLO)
    assert (result.text, result.finish_reason) == ("", "stop")


def test_a_program_that_hangs_meets_the_limit_and_is_gone(client_of: MakeClient) -> None:
    with client_of("os.system('sleep 1000')") as client:
        client.start()
        with pytest.raises(RequestTimeoutError, match="first_token_seconds"):
            client.chat(HELLO, timeouts=TimeoutSettings(first_token_seconds=0.5))
        server = psutil.Process(client.server_pid)
        wait_until(lambda: not server.children(recursive=True), what="the end of the program and of what it started")
        assert client.is_running


def test_calls_beyond_parallel_wait_for_their_turn(client_of: MakeClient) -> None:
    with client_of("out.write(b'a'); out.flush(); signal.pause()") as client:
        first = client.stream_chat(HELLO)
        assert next(first).text == "a"
        server = psutil.Process(client.server_pid)
        n_threads = server.num_threads()
        with pytest.raises(RequestTimeoutError):
            client.chat(HELLO, timeouts=TimeoutSettings(first_token_seconds=0.3))
        assert len(server.children()) == 1
        wait_until(lambda: server.num_threads() == n_threads, what="the end of the threads of who waited")
        first.close()
        assert next(client.stream_chat(HELLO)).text == "a"


def test_lost_output_is_written_once_more(micro_model: Path, tmp_path: Path) -> None:
    """As llama-completion b11434 does on a busy machine: it ends before its thread for printing has printed."""
    marker = tmp_path / "runs"
    body = f"""
n = int(open({str(marker)!r}).read() or 0) if os.path.exists({str(marker)!r}) else 0
open({str(marker)!r}, "w").write(str(n + 1))
if is_trial or n == 3:
    out.write(b"one two three\\n\\n")
    sys.stderr.write("{COUNTERS}")
elif n == 1:
    out.write(b"one tw")
elif n == 2:
    out.write(b"one two [end")
"""
    program = make_one_shot_program(tmp_path, body, fails_trial=True)
    with LocalLlamaClient(settings_for(micro_model, program, "lost")) as client:
        result = client.chat(HELLO)
    assert result.text == "one two three"
    assert result.usage is not None
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (4, 3)
    assert marker.read_text() == "4"


def test_a_last_piece_that_was_written_twice_is_no_part_of_the_answer(micro_model: Path, tmp_path: Path) -> None:
    """As a program does whose exit flushes what its thread is printing: seen with llama-completion b11434, under load."""
    marker = tmp_path / "has run"
    body = f"""
if is_trial or os.path.exists({str(marker)!r}):
    out.write(b"abc\\n\\n")
    sys.stderr.write("{COUNTERS}")
else:
    open({str(marker)!r}, "w").close()
    out.write(b"abc"); out.flush()
    out.write(b"c"); out.flush()
"""
    program = make_one_shot_program(tmp_path, body, fails_trial=True)
    with LocalLlamaClient(settings_for(micro_model, program, "twice")) as client:
        assert client.chat(HELLO).text == "abc"


@pytest.mark.parametrize(
    ("second", "again", "what"), [("two", "uno due", "another one"), ("nothing more", "one,", "a shorter one")]
)
def test_what_was_shown_is_not_put_together_with_another_answer(
    micro_model: Path, tmp_path: Path, second: str, again: str, what: str
) -> None:
    """Nothing promises that a program writes the same twice, even with the same seed. Each piece waits for the one before."""
    marker, shown = tmp_path / "has run", tmp_path / "shown"
    body = f"""
def when_shown(n):
    while not os.path.exists({str(shown)!r} + str(n)):
        time.sleep(0.01)
if is_trial:
    out.write(b"x\\n\\n")
    sys.stderr.write("{COUNTERS}")
elif not os.path.exists({str(marker)!r}):
    open({str(marker)!r}, "w").close()
    for n, piece in enumerate([b"one,", b"{second}"]):
        out.write(piece); out.flush()
        when_shown(n)
else:
    out.write(b"{again}\\n\\n")
    sys.stderr.write("{COUNTERS}")
"""
    program = make_one_shot_program(tmp_path, body, fails_trial=True)
    with LocalLlamaClient(settings_for(micro_model, program, what)) as client:
        with client.stream_chat(HELLO) as stream:
            for n, piece in enumerate(["one,", second]):
                assert next(stream).text == piece
                Path(f"{shown}{n}").touch()
            with pytest.raises(ProgramFailedError, match=f"wrote {what} when it was run again"):
                next(stream)


def test_a_directory_and_a_file_that_is_no_program(micro_model: Path, tmp_path: Path) -> None:
    (tmp_path / "llama-completion").mkdir()
    with LocalLlamaClient(settings_for(micro_model, tmp_path / "llama-completion", "x")) as client:
        with pytest.raises(ConfigurationError, match="is a directory"):
            client.start()
    plain = tmp_path / "llama-cli"
    plain.write_text("no program")
    with LocalLlamaClient(settings_for(micro_model, plain, "y")) as client:
        with pytest.raises(ProgramNotExecutableError) as caught:
            client.start()
    assert isinstance(caught.value, PermissionError)


def test_what_lies_on_path_and_is_no_program_is_said(micro_model: Path, only_here: Path) -> None:
    forbidden = only_here / "llama-completion"
    forbidden.write_text("#!/bin/sh\n")
    (only_here / "llama-cli").mkdir()
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "x")) as client:
        with pytest.raises(RuntimeNotExecutableError, match=f"{forbidden} is not executable") as caught:
            client.start()
    assert isinstance(caught.value, PermissionError)
    assert f"{only_here / 'llama-cli'} is a directory" in caught.value.places
    assert caught.value.hint is not None
    assert f"chmod +x {forbidden}" in caught.value.hint
    with LocalLlamaClient(settings_for(micro_model, "llama-completion", "y")) as client:
        with pytest.raises(ProgramNotExecutableError, match=str(forbidden)):
            client.start()
    forbidden.unlink()
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "z")) as client:
        with pytest.raises(RuntimeNotFoundError, match="is a directory") as missing:
            client.start()
    assert not isinstance(missing.value, PermissionError)


def test_a_program_that_is_not_there(micro_model: Path, only_here: Path) -> None:
    with LocalLlamaClient(settings_for(micro_model, only_here / "llama-completion", "x")) as client:
        with pytest.raises(ProgramMissingError) as caught:
            client.start()
    assert isinstance(caught.value, FileNotFoundError)
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "y")) as client:
        with pytest.raises(RuntimeNotFoundError) as not_found:
            client.start()
    assert isinstance(not_found.value, FileNotFoundError)


def test_a_program_that_vanishes_between_two_calls(client_of: MakeClient, tmp_path: Path) -> None:
    with client_of("out.write(b'a\\n\\n')") as client:
        assert client.chat(HELLO).text == "a"
        (tmp_path / "llama-completion").chmod(0o644)
        with pytest.raises(PermissionError) as forbidden:
            client.chat(HELLO)
        (tmp_path / "llama-completion").unlink()
        with pytest.raises(FileNotFoundError) as missing:
            client.chat(HELLO)
    assert isinstance(forbidden.value, LocalLlamaError)
    assert isinstance(missing.value, LocalLlamaError)


def test_another_architecture(micro_model: Path, only_here: Path) -> None:
    program = only_here / "llama-completion"
    header = bytearray(Path(os.path.realpath("/proc/self/exe")).read_bytes()[:4096])
    header[18:20] = (0x08).to_bytes(2, "little")  # MIPS
    program.write_bytes(header)
    program.chmod(0o755)
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "x")) as client:
        with pytest.raises(RuntimeBrokenError, match="built for another processor") as caught:
            client.start()
    assert str(program) in caught.value.message


def test_illegal_instructions_after_the_version_lead_to_the_next_program(micro_model: Path, only_here: Path) -> None:
    broken = make_one_shot_program(only_here, "os.kill(os.getpid(), signal.SIGILL)", fails_trial=True)
    make_one_shot_program(only_here, "out.write(b'works\\n\\n')", name="llama-cli")
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "x")) as client:
        with pytest.warns(LocalLlamaWarning) as warned:
            assert client.chat(HELLO).text == "works"
    (told,) = ours(warned)
    assert str(broken) in told
    assert told.count("illegal instruction") == 1
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "y")) as client:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert client.chat(HELLO).text == "works", "it has been said once"


def test_a_program_that_fails_its_trial_leads_to_the_next_one_with_its_last_words(
    micro_model: Path, only_here: Path
) -> None:
    make_one_shot_program(
        only_here, "sys.stderr.write('x' * 10_000_000 + '\\nlast words')\nsys.exit(3)", fails_trial=True
    )
    make_one_shot_program(only_here, "out.write(b'works\\n\\n')", name="llama-cli")
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "x")) as client:
        with pytest.warns(LocalLlamaWarning, match="exited with code 3: it last said: last words"):
            assert client.chat(HELLO).text == "works"


def test_a_failed_trial_with_nothing_below_it_keeps_all_that_was_said(micro_model: Path, only_here: Path) -> None:
    body = "sys.stderr.write('first line\\n' + ('y' * 79 + '\\n') * 125000 + 'last line\\n')\nsys.exit(3)"
    program = make_one_shot_program(only_here, body, fails_trial=True)
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "x")) as client:
        with pytest.raises(RuntimeBrokenError, match="exited with code 3: it last said: last line") as caught:
            client.start()
    error = caught.value
    assert (error.exit_code, error.signal_number) == (3, None)
    assert error.stderr == "first line\n" + ("y" * 79 + "\n") * 125000 + "last line\n"
    assert len(str(error)) + len(error.log_tail) < 5000
    assert error.runtime == str(program)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("error loading model: tensor 'x' data is not within the file bounds", ModelCorruptError),
        ("ggml_backend_cpu: std::bad_alloc", ServerStartError),
    ],
    ids=["model", "memory"],
)
def test_a_trial_that_fails_for_any_reason_keeps_all_that_was_said(
    micro_model: Path, only_here: Path, said: str, kind: type[ModelCorruptError | ServerStartError]
) -> None:
    body = f"sys.stderr.write('first line\\n' + ('y' * 79 + '\\n') * 1000 + {said!r} + chr(10))\nsys.exit(1)"
    make_one_shot_program(only_here, body, fails_trial=True)
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "x")) as client:
        with pytest.raises(kind) as caught:
            client.start()
    assert caught.value.exit_code == 1
    assert caught.value.stderr.startswith("first line\n")
    assert caught.value.stderr.endswith(f"{said}\n")
    assert len(str(caught.value)) < 5000


def test_a_program_that_fails_in_its_help_keeps_all_that_was_said(micro_model: Path, only_here: Path) -> None:
    program = only_here / "llama-completion"
    body = "sys.stderr.write('first line\\n' + ('y' * 79 + '\\n') * 125000 + 'last line\\n')\nsys.exit(3)"
    program.write_text(f"#!{sys.executable} -S\nimport sys\n{body}\n")
    program.chmod(0o755)
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "x")) as client:
        with pytest.raises(RuntimeBrokenError, match="exited with code 3") as caught:
            client.start()
    assert caught.value.exit_code == 3
    assert caught.value.stderr == "first line\n" + ("y" * 79 + "\n") * 125000 + "last line\n"
    assert caught.value.log_tail.endswith("last line")
    assert len(str(caught.value)) < 5000


def test_a_program_that_hangs_in_its_trial_is_named(micro_model: Path, only_here: Path) -> None:
    program = make_one_shot_program(only_here, "signal.pause()", fails_trial=True)
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "x", start_timeout_seconds=1)) as client:
        with pytest.raises(ServerStartTimeoutError, match="start_timeout_seconds=1") as caught:
            client.start()
    assert str(program) in caught.value.message
    assert caught.value.command == f"{program} -m {micro_model} -p Hello -n 1"


def test_what_is_missing_is_said_of_a_file_that_is_there(micro_model: Path, only_here: Path) -> None:
    program = only_here / "llama-completion"
    program.write_text("#!/nowhere/python\n")
    program.chmod(0o755)
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "x")) as client:
        with pytest.raises(RuntimeBrokenError, match="not the interpreter or the loader"):
            client.start()


def test_where_each_program_fails_each_error_is_kept(micro_model: Path, only_here: Path) -> None:
    make_one_shot_program(only_here, "sys.stderr.write('one')\nsys.exit(3)", fails_trial=True)
    make_one_shot_program(only_here, "os.kill(os.getpid(), signal.SIGILL)", name="llama-cli", fails_trial=True)
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "x")) as client:
        with pytest.warns(LocalLlamaWarning), pytest.raises(RuntimeBrokenError, match="Every llama") as caught:
            client.start()
    first, second = caught.value.causes
    assert isinstance(first, RuntimeBrokenError)
    assert isinstance(second, RuntimeBrokenError)
    assert (first.exit_code, first.signal_number, first.stderr) == (3, None, "one")
    assert (second.exit_code, second.signal_number, second.stderr) == (None, 4, "")


def test_where_there_is_no_server_the_user_is_told_once(micro_model: Path, only_here: Path) -> None:
    make_one_shot_program(only_here, "out.write(b'works\\n\\n')")
    with LocalLlamaClient(settings_for(micro_model, "auto", "x")) as client:
        with pytest.warns(LocalLlamaWarning, match="No llama.cpp server works here") as warned:
            assert [client.chat(HELLO).text for _ in range(2)] == ["works", "works"]
    assert len(ours(warned)) == 1


def test_a_multi_call_program(micro_model: Path, only_here: Path) -> None:
    make_one_shot_program(only_here, "out.write(b'works\\n\\n')", name="impl")
    program = only_here / "llama"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = completion ] && shift && exec {only_here}/impl "$@"\n'
        '[ "$1" = serve ] && { echo "-m, --model F"; echo "--host H"; echo "--port P"; echo "-c, --ctx-size N"; exit 0; }\nexit 1\n'
    )
    program.chmod(0o755)
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "x")) as client:
        assert client.chat(HELLO).text == "works"
        running = client._connection.running()
        assert running is not None
        assert running.runtime.origin == f"{program} completion"
