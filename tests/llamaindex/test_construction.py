"""Making, changing, copying and showing a `LocalLlama`: nothing starts, nothing is swallowed, no secret gets out."""

from __future__ import annotations

import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import psutil
import pytest
from llama_index.core import Settings
from llama_index.core.llms.function_calling import FunctionCallingLLM

from llamaindex_localllama import LocalLlama
from localllama import ConfigurationError, ModelNotFoundError, SamplingSettings, ServerSettings, TimeoutSettings

TYPED = {"model": "./m.gguf", "temperature": 0, "n_ctx": 4096, "max_tokens": 256, "timeout": 60}


def test_what_users_type() -> None:
    before = psutil.Process().children()
    llm = LocalLlama(**TYPED, system_prompt="Be brief.", additional_kwargs={"top_k": 20}, stop=["\n"])
    assert isinstance(llm, FunctionCallingLLM)
    assert (llm.model, llm.temperature, llm.n_ctx, llm.stop) == ("./m.gguf", 0, 4096, ("\n",))
    assert psutil.Process().children() == before


def test_every_setting_of_the_core_is_an_argument() -> None:
    names = {*ServerSettings.model_fields, *SamplingSettings.model_fields}
    assert names <= set(LocalLlama.model_fields)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temprature": 0}, "Did you mean 'temperature'"),
        ({"n_ctxt": 1}, "Did you mean 'n_ctx'"),
        ({"sytem_prompt": ""}, "Did you mean 'system_prompt'"),
        ({"temperature": -1}, "temperature=-1"),
        ({"timeout": 0}, "total_seconds"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"additional_kwargs": {"temprature": 0}}, "Did you mean 'temperature'"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"api_key": "k"}, "base_url"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        LocalLlama(**{"model": "./m.gguf", **arguments})
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["n_ctx", "model", "n_gpu_layers"])
def test_what_belongs_to_the_server_cannot_be_given_to_a_call(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} belongs to the server") as caught:
        LocalLlama(**TYPED)._split({name: 1})
    assert caught.value.hint == "Give it where the object is made."


def test_a_wrong_assignment_is_refused_at_once() -> None:
    llm = LocalLlama(**TYPED)
    with pytest.raises(ValueError, match="temprature"):
        llm.temprature = 1  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="n_ctx=-1"):
        llm.n_ctx = -1
    with pytest.raises(ConfigurationError, match="temperature=-1"):
        llm.temperature = -1
    assert (llm.n_ctx, llm.temperature) == (4096, 0)


def test_a_timeout_is_the_whole_call_or_the_single_limits() -> None:
    assert LocalLlama(**TYPED)._split({})[1]["timeouts"].total_seconds == 60
    limits = TimeoutSettings(first_token_seconds=5)
    llm = LocalLlama(**{**TYPED, "timeout": limits})
    assert llm._split({})[1]["timeouts"] == limits
    assert llm._split({"timeout": 7})[1]["timeouts"] == TimeoutSettings(total_seconds=7)


class TestSecrets:
    @pytest.fixture
    def llm(self) -> LocalLlama:
        return LocalLlama(
            base_url="http://127.0.0.1:9", api_key="sk-key", env={"TOKEN": "sk-env"}, system_prompt="sk-prompt"
        )

    def test_none_is_shown(self, llm: LocalLlama) -> None:
        for text in (repr(llm), str(llm), str(llm.metadata), repr(llm._client)):
            assert "sk-" not in text

    def test_none_is_serialized(self, llm: LocalLlama) -> None:
        text = llm.to_json() + str(llm.to_dict()) + str(llm.model_dump())
        assert "sk-key" not in text
        assert "sk-env" not in text

    def test_a_pickle_works_with_its_key(self, llm: LocalLlama) -> None:
        key = pickle.loads(pickle.dumps(llm)).api_key
        assert key is not None
        assert key.get_secret_value() == "sk-key"

    def test_none_is_in_the_error_for_a_wrong_value(self) -> None:
        for arguments in ({"api_key": ["sk-key"]}, {"env": {"A": ["sk-key"]}}):
            with pytest.raises(ConfigurationError) as caught:
                LocalLlama(base_url="http://127.0.0.1:9", **arguments)  # type: ignore[arg-type]
            assert "sk-key" not in "".join(traceback.format_exception(caught.value))


def test_to_dict_and_back() -> None:
    llm = LocalLlama(**TYPED, lora=["a.gguf"], system_prompt="Be brief.", additional_kwargs={"top_k": 3})
    data = llm.to_dict()
    assert data["class_name"] == LocalLlama.class_name() == "LocalLlama_llm"
    again = LocalLlama.from_dict(data)
    assert again.to_dict() == data
    assert again._client.settings == llm._client.settings
    assert LocalLlama.from_json(llm.to_json()).to_dict() == data


def test_it_is_the_llm_of_settings() -> None:
    llm = LocalLlama(**TYPED)
    Settings.llm = llm
    try:
        assert Settings.llm is llm
    finally:
        Settings._llm = None


class TestMetadata:
    def test_of_a_file_that_is_here(self, micro_model: Path) -> None:
        llm = LocalLlama(model=str(micro_model))
        assert llm.metadata.context_window == 4096, "what the header says; the server gets the same"
        assert llm.metadata.model_name == micro_model.stem
        assert llm.metadata.system_role.value == "system"
        assert not llm._client.is_running

    def test_of_a_shorter_window(self, micro_model: Path) -> None:
        assert LocalLlama(model=str(micro_model), n_ctx=600).metadata.context_window == 600

    def test_of_a_server_elsewhere_it_asks_nobody(self) -> None:
        assert LocalLlama(base_url="http://127.0.0.1:9", n_ctx=2000).metadata.context_window == 2000
        assert LocalLlama(base_url="http://127.0.0.1:9").metadata.context_window == 3900

    def test_of_a_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError):
            _ = LocalLlama(model=str(tmp_path / "none.gguf")).metadata

    @pytest.mark.parametrize(
        ("max_tokens", "num_output"), [(None, 250), (100, 100), (1000, 500), (5000, 500), (-1, 250)]
    )
    def test_room_for_the_answer_is_never_the_whole_window(
        self, micro_model: Path, max_tokens: int | None, num_output: int
    ) -> None:
        llm = LocalLlama(model=str(micro_model), n_ctx=1000, max_tokens=max_tokens)
        assert llm.metadata.num_output == num_output


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['llama_index'] = None\n"
        "try:\n import llamaindex_localllama\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.startswith("MissingDependencyError")
    assert 'pip install "localllama[llamaindex]"' in done.stdout
