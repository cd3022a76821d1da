"""A name of the user's own, given to the wrapper."""

from __future__ import annotations

from pathlib import Path

from langchain_localllama import ChatLocalLlama
from localllama._models.own_changes import add_own_model
from localllama._models.own_models import OwnModel


def test_a_name_of_the_users_own_is_a_model(tmp_path: Path, micro_model: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOCALLLAMA_CONFIG_DIR", str(tmp_path))
    add_own_model(OwnModel("my-name", str(micro_model), n_ctx=300))
    with ChatLocalLlama(model="my-name", max_tokens=3, n_threads=1) as llm:
        assert llm.profile is not None
        assert llm.profile["max_input_tokens"] == 300
        assert llm.invoke("Hi").usage_metadata["output_tokens"] == 3
