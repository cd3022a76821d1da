"""The real programs with the micro model: text, limits, schemas, errors, and what is refused."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
from pathlib import Path

import psutil
import pytest

from core.one_shot.conftest import settings_for
from localllama import (
    AsyncLocalLlamaClient,
    ChatRequest,
    ContextOverflowError,
    FeatureDisabledError,
    ImagePart,
    LocalLlamaClient,
    LocalLlamaError,
    Message,
    ProgramFailedError,
    RequestTimeoutError,
    SamplingSettings,
    ServerSettings,
    TimeoutSettings,
    ToolSpec,
    UnsupportedFeatureError,
)
from support.waiting import wait_until

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*loopback port without a key:localllama.LocalLlamaWarning"),
    pytest.mark.timeout(180),
]
HELLO = ChatRequest((Message("user", "Hello"),))
SHORT = SamplingSettings(max_tokens=12, seed=3, temperature=0.8)
ENDLESS = SamplingSettings(max_tokens=-1, ignore_eos=True)


def programs_of(client: LocalLlamaClient | AsyncLocalLlamaClient) -> list[psutil.Process]:
    pid = client.server_pid
    return psutil.Process(pid).children() if pid else []


def test_streamed_and_whole_answers_are_the_same(micro: ServerSettings) -> None:
    with LocalLlamaClient(micro, sampling=SHORT) as client:
        chunks = list(client.stream_chat(HELLO))
        result = client.chat(HELLO)
        assert client.complete("Hello").finish_reason == "length"
    assert "".join(chunk.text for chunk in chunks) == result.text != ""
    assert result.finish_reason == "length"
    assert result.usage is not None
    assert result.usage.completion_tokens == 12
    assert result.usage.prompt_tokens > 20
    assert result.usage.is_estimated is False


def test_a_full_window_is_a_limit_too(micro: ServerSettings) -> None:
    with LocalLlamaClient(micro) as client:
        result = client.chat(HELLO, sampling=ENDLESS)
    assert result.finish_reason == "length"
    assert result.usage is not None
    assert 500 < result.usage.total_tokens <= 512


def test_the_server_says_the_same(micro: ServerSettings) -> None:
    """A prompt of backslashes, newlines at both ends, a command of llama-cli: the model sees it as it is."""
    greedy = SamplingSettings(max_tokens=10, temperature=0)
    prompts = ["/read /etc/passwd", "\\n \\t \\\\ \\x41 \\", "\n\n two \n\n", "> =\u2028 é🎉", "/exit"]
    with LocalLlamaClient(micro, sampling=greedy) as client:
        one_shot = [client.complete(prompt).text for prompt in prompts]
        rendered = client.render_prompt(ChatRequest((Message("system", "Be\n"), Message("user", prompts[1]))))
    with LocalLlamaClient(micro.with_changes({"runtime": "embedded"}), sampling=greedy) as server:
        assert one_shot == [server.complete(prompt).text for prompt in prompts]
        assert rendered == server.render_prompt(ChatRequest((Message("system", "Be\n"), Message("user", prompts[1]))))


def test_schemas_and_tools_hold(micro: ServerSettings) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": {"enum": ["yes", "no"]}}}
    tool = ToolSpec("pick", "Picks", {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]})
    with LocalLlamaClient(micro) as client:
        assert json.loads(client.chat(ChatRequest(HELLO.messages, response_format=form)).text) in ("yes", "no")
        call = client.chat(ChatRequest(HELLO.messages, tools=(tool,), tool_choice="pick")).tool_calls[0]
    assert call.name == "pick"
    assert json.loads(call.arguments)["n"] in (1, 2)


def test_a_grammar_and_stop_strings(micro: ServerSettings) -> None:
    with LocalLlamaClient(micro) as client:
        result = client.chat(HELLO, sampling=SamplingSettings(grammar='root ::= "one two three four"', stop=["three"]))
        assert (result.text, result.finish_reason) == ("one two ", "stop")
        whole = client.chat(HELLO, sampling=SamplingSettings(grammar='root ::= "ends\\n"'))
        assert whole.text.rstrip("\n") == "ends"
        assert whole.finish_reason == "stop"


def test_a_prompt_that_does_not_fit(micro: ServerSettings) -> None:
    with LocalLlamaClient(micro) as client:
        with pytest.raises(ContextOverflowError) as caught:
            client.chat(ChatRequest((Message("user", "word " * 600),)))
        assert caught.value.n_prompt_tokens is not None
        assert caught.value.n_prompt_tokens > 2900
        assert caught.value.n_ctx == 512
        assert client.chat(HELLO, sampling=SHORT).text


def test_a_prompt_of_a_megabyte_is_no_argument(smollm2_model: Path, program: Path) -> None:
    with LocalLlamaClient(settings_for(smollm2_model, program, "megabyte")) as client:
        with pytest.raises(ContextOverflowError) as caught:
            client.chat(ChatRequest((Message("user", "word " * 209_715),)))
    assert caught.value.n_prompt_tokens is not None
    assert caught.value.n_prompt_tokens > 200_000


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (SamplingSettings(logprobs=True), Message("user", "x")),
        (SamplingSettings(extra_body={"n": 2}), Message("user", "x")),
        (SamplingSettings(), Message("user", (ImagePart("aGk="),))),
    ],
    ids=["log probabilities", "two answers", "an image"],
)
def test_what_it_cannot_do_is_refused_before_it_starts(
    sampling: SamplingSettings, message: Message, micro: ServerSettings
) -> None:
    with LocalLlamaClient(micro) as client:
        with pytest.raises(FeatureDisabledError, match="one-shot"):
            client.chat(ChatRequest((message,)), sampling=sampling)
        assert programs_of(client) == []


def test_leaving_a_stream_ends_the_program(endless: ServerSettings) -> None:
    with LocalLlamaClient(endless, sampling=ENDLESS) as client:
        stream = client.stream_chat(HELLO)
        next(stream)
        program = wait_until(lambda: programs_of(client), what="the program")[0]
        stream.close()
        wait_until(lambda: not program.is_running(), what="its end")
        assert client.is_running


def test_a_time_limit_ends_the_program(endless: ServerSettings) -> None:
    with LocalLlamaClient(endless, sampling=ENDLESS) as client:
        client.start()
        with pytest.raises(RequestTimeoutError, match="total_seconds"):
            client.chat(HELLO, timeouts=TimeoutSettings(total_seconds=0.05))
        wait_until(lambda: not programs_of(client), what="the end of the program")


async def test_async_calls_run_beside_each_other_and_are_cancelled(endless: ServerSettings) -> None:
    async with AsyncLocalLlamaClient(endless, sampling=SHORT) as client:
        texts = await asyncio.gather(*(client.chat(HELLO) for _ in range(3)))
        assert len({result.text for result in texts}) == 1
        stream = client.stream_chat(HELLO, sampling=ENDLESS)
        await anext(stream)
        task = asyncio.ensure_future(client.chat(HELLO, sampling=ENDLESS))
        await asyncio.to_thread(lambda: wait_until(lambda: programs_of(client), what="the programs"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.aclose()
        await asyncio.to_thread(lambda: wait_until(lambda: not programs_of(client), what="the end of all programs"))


def test_a_program_that_is_interrupted_says_so(endless: ServerSettings) -> None:
    """llama.cpp's handler of SIGINT takes the lock of its own log: one that strikes while the lock is held waits for itself.

    No program can be asked to do better, so such an answer must end by its time limit, and the next interruption is tried.
    """
    waited = TimeoutSettings(between_tokens_seconds=10)
    for _ in range(5):
        with LocalLlamaClient(endless, sampling=ENDLESS) as client:
            stream = client.stream_chat(HELLO, timeouts=waited)
            next(stream)
            program = programs_of(client)[0]
            program.send_signal(signal.SIGINT)
            with pytest.raises((ProgramFailedError, RequestTimeoutError)) as caught:
                for _ in stream:
                    continue
            wait_until(lambda program=program: not program.is_running(), what="the end of the program")
        if isinstance(caught.value, ProgramFailedError):
            break
    assert isinstance(caught.value, ProgramFailedError)
    assert "interrupted" in str(caught.value)
    assert caught.value.stderr


def test_a_program_that_is_killed_says_so(endless: ServerSettings) -> None:
    with LocalLlamaClient(endless, sampling=ENDLESS) as client:
        stream = client.stream_chat(HELLO)
        next(stream)
        programs_of(client)[0].kill()
        with pytest.raises(ProgramFailedError, match="SIGKILL") as caught:
            for _ in stream:
                continue
        assert (caught.value.signal_number, caught.value.exit_code) == (9, None)
        assert client.chat(HELLO, sampling=SHORT).text, "the next call runs it again"


def test_prompts_lie_in_private_files_for_as_long_as_they_are_needed(endless: ServerSettings) -> None:
    with LocalLlamaClient(endless, sampling=ENDLESS) as client:
        stream = client.stream_chat(ChatRequest((Message("user", "SECRET"),)))
        next(stream)
        line = programs_of(client)[0].cmdline()
        assert "SECRET" not in " ".join(line)
        prompt = Path(line[line.index("-f") + 1])
        assert "SECRET" in prompt.read_text()
        assert stat.S_IMODE(prompt.stat().st_mode) == 0o600
        assert stat.S_IMODE(prompt.parent.stat().st_mode) == 0o700
        variables = programs_of(client)[0].environ()
        assert variables["GGML_NO_BACKTRACE"] == "1"
        assert not [name for name in variables if name.startswith("LLAMA_")]
        stream.close()
        wait_until(lambda: not prompt.parent.exists(), what="the end of its files")
    assert not prompt.parents[1].exists()


def test_tokens_are_counted_by_the_program(micro_model: Path, llama_bin: Path) -> None:
    settings = settings_for(micro_model, llama_bin / "llama-completion", "tokens")
    with (
        LocalLlamaClient(settings) as client,
        LocalLlamaClient(settings.with_changes({"runtime": "embedded"})) as server,
    ):
        for text in ("Hello", "a\n 12 -> 'b'", "é", ""):
            assert client.tokenize(text) == server.tokenize(text)
        assert client.tokenize("x", add_special=True) == server.tokenize("x", add_special=True)
        assert client.count_tokens(HELLO) == server.count_tokens(HELLO)
        with pytest.raises(FeatureDisabledError, match="one-shot"):
            client.detokenize([1])


@pytest.mark.parametrize("strict", [{"allow_open_port": False}, {"listen": "unix"}], ids=str)
def test_the_new_llama_cli_is_refused_where_no_port_may_be_open(
    strict: dict[str, object],
    micro_model: Path,
    llama_bin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "llama-cli").symlink_to(llama_bin / "llama-cli")
    monkeypatch.setattr("localllama._runtime.resolve._PREFIXES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with LocalLlamaClient(settings_for(micro_model, "one-shot", "strict", **strict)) as client:
        with pytest.raises(UnsupportedFeatureError, match="opens a loopback port"):
            client.start()


def test_settings_that_the_program_does_not_know_are_refused(micro: ServerSettings) -> None:
    with LocalLlamaClient(micro.with_changes({"mmproj": micro.model})) as client:
        with pytest.raises(LocalLlamaError, match="mmproj"):
            client.start()
