"""What each flag of the embedded runtime sets in llama.cpp's own parameters, and what it says of a wrong one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localllama._runtime import embedded
from localllama._runtime.embedded_flags import FLAGS, apply_arguments
from localllama._runtime.embedded_setters import FlagError


@pytest.fixture(scope="module")
def library() -> Any:
    return embedded.load_library(None)


@pytest.fixture
def kept_signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def read(params: Any, path: str) -> Any:
    for name in path.split("."):
        params = getattr(params, name)
    return params


SET = [
    ("-m a.gguf", "model.path", "a.gguf"),
    ("--host /tmp/x.sock", "hostnames", ["/tmp/x.sock"]),
    ('--host "a,b",c', "hostnames", ["a,b", "c"]),
    ("--port 1", "port", 1),
    ("", "port", 8080),
    ("", "n_parallel", -1),
    ("-a one,two", "model_alias", {"one", "two"}),
    ("--api-key a,b --api-key c", "api_keys", ["a", "b", "c"]),
    ("--cors-origins x", "cors_origins", "x"),
    ("--cors-origins x", "cors_origins_explicit", True),
    ("--no-cors-credentials", "cors_credentials", False),
    ("--ui --no-ui", "ui", False),
    ("-to 7", "timeout_read", 7),
    ("-to 7", "timeout_write", 7),
    ("-t 3", "cpuparams.n_threads", 3),
    ("-c 512", "n_ctx", 512),
    ("-b 64 --ubatch_size 32", "n_ubatch", 32),
    ("--context-shift", "ctx_shift", True),
    ("--no-kv-offload", "no_kv_offload", True),
    ("--kv-offload", "no_kv_offload", False),
    ("-ngl auto", "n_gpu_layers", -1),
    ("-ngl all", "n_gpu_layers", -2),
    ("-ngl 5", "n_gpu_layers", 5),
    ("-fit off", "fit_params", False),
    ("--rope-scale 4", "rope_freq_scale", 0.25),
    ("--chat-template chatml", "chat_template", "chatml"),
    ('--chat-template-kwargs {"a":[1]}', "default_template_kwargs", {"a": "[1]"}),
    ("--reasoning off", "enable_reasoning", 0),
    ("--reasoning on", "default_template_kwargs", {"enable_thinking": "true"}),
    ("--reasoning auto", "default_template_kwargs", {}),
    ("--rerank", "embedding", True),
    ("-s -1", "sampling.seed", 2**32 - 1),
    ("-s 5", "sampling.seed", 5),
    ("--top-k 7", "sampling.top_k", 7),
    ("--ignore-eos", "sampling.ignore_eos", True),
    ("-v", "verbosity", 2**31 - 1),
    ("-ot a=CPU -ot b=CPU", "tensor_buft_overrides", "a=CPU,b=CPU"),
    ("-ncmoe 1", "tensor_buft_overrides", r"blk\.0\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"),
    ("-cmoe", "tensor_buft_overrides", r"\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"),
]


@pytest.mark.parametrize(("line", "path", "expected"), SET)
def test_a_flag_sets(library: Any, line: str, path: str, expected: Any) -> None:
    found = read(apply_arguments(library, line.split()), path)
    assert type(expected)(found) == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--nonsense", "invalid argument: --nonsense"),
        ("-c", "expected value"),
        ("-c many", "'many' is not a whole number"),
        ("--temp hot", "'hot' is not a number"),
        ("-fa maybe", "on, off, auto"),
        ("-fit maybe", "on, off"),
        ("--reasoning maybe", "on, off, auto"),
        ("--chat-template-file /no/such", "failed to open file"),
        ("--chat-template-kwargs {", "parse error"),
        ("--chat-template-kwargs []", "not a JSON object"),
        ("--lora-scaled a.gguf", "FNAME:SCALE"),
        ("--media-path /no/such", "not a directory"),
        ("--spec-type nonsense", "unknown speculative type"),
        ("-ts " + ",".join(["1"] * 999), "at most"),
        ("--rope-scale 0", "factor is 0"),
        ("-b 99999999999999999999", "-b"),
    ],
)
def test_a_wrong_flag_is_named(library: Any, line: str, said: str) -> None:
    with pytest.raises(FlagError) as caught:
        apply_arguments(library, line.split())
    assert said in str(caught.value)


def test_files_and_lists(library: Any, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# a comment\n one \n\ntwo\n")
    (tmp_path / "template").write_text("{{ x }}é")
    arguments = ["--api-key-file", str(tmp_path / "keys"), "--chat-template-file", str(tmp_path / "template")]
    arguments += [
        "--media-path",
        str(tmp_path),
        "--lora",
        "a,b",
        "--lora-scaled",
        "c:0.5",
        "--spec-type",
        "draft-simple",
    ]
    arguments += ["-ts", "3"]
    params = apply_arguments(library, arguments)
    assert list(params.api_keys) == ["one", "two"]
    assert params.chat_template == "{{ x }}é"
    assert params.media_path == f"{tmp_path}/"
    assert [(adapter.path, adapter.scale) for adapter in params.lora_adapters] == [("a", 1.0), ("b", 1.0), ("c", 0.5)]
    assert len(params.speculative.types) == 1
    assert next(iter(params.tensor_split)) == 3.0
    assert not any(list(params.tensor_split)[1:])


def test_the_whole_trained_context_is_not_shrunk(library: Any) -> None:
    params = apply_arguments(library, ["-c", "0"])
    assert params.n_ctx == 0
    assert params.fit_params_min_ctx == 2**31 - 1


def test_a_default_of_sampling_that_was_chosen_is_noted(library: Any) -> None:
    assert apply_arguments(library, []).sampling.user_sampling_config == 0
    chosen = apply_arguments(library, ["--temp", "0.25", "--top-p", "0.5"]).sampling
    bits = library.common_params_sampling_config
    wanted = int(bits.COMMON_PARAMS_SAMPLING_CONFIG_TEMP) | int(bits.COMMON_PARAMS_SAMPLING_CONFIG_TOP_P)
    assert chosen.user_sampling_config == wanted
    assert chosen.temp == 0.25


def test_every_flag_takes_some_value(library: Any, tmp_path: Path) -> None:
    """A row whose parameter the library does not have would fail at a user's start."""
    (tmp_path / "file").write_text("x")
    tried = (
        "1",
        "on",
        "none",
        "linear",
        "f16",
        "auto",
        "deepseek",
        "last",
        "distribute",
        "draft-simple",
        "{}",
        "a:1",
        "x=CPU",
    )
    for flag in FLAGS:
        values = [*tried, str(tmp_path), str(tmp_path / "file")] if flag.value_name else [""]
        errors = []
        for value in values:
            try:
                apply_arguments(library, [flag.names[0], value] if flag.value_name else [flag.names[0]])
            except FlagError as error:
                errors.append(str(error))
            else:
                break
        assert len(errors) < len(values), (flag.names, errors)


@pytest.mark.usefixtures("kept_signals")
class TestMain:
    def test_help_names_every_flag(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert embedded.main(["--help"]) == 0
        said = capsys.readouterr().out
        assert all(name in said for flag in FLAGS for name in flag.names)

    def test_version(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "xllamacpp-1.2.3.dist-info").mkdir()
        assert embedded.main(["--library", str(tmp_path), "--version"]) == 0
        assert "version: 1.2.3 (build 3, commit unknown)" in capsys.readouterr().err
        assert embedded.main(["--version"]) == 0
        assert "version: unknown (build 0" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--nonsense"], "invalid argument"),
            ([], "--model is required"),
            (["-m", "/no/such.gguf", "--host", "127.0.0.1", "--port", "0"], "error: "),
        ],
    )
    def test_a_fault_is_said_and_ends_it(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        assert embedded.main(["--library", str(tmp_path), *arguments]) == 1
        assert said in capsys.readouterr().err
