"""Errors that leave the package are found by their localllama name and by their langchain-core name."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from langchain_core import exceptions as langchain_errors
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda

import localllama
from langchain_localllama import ChatLocalLlama
from localllama import ChatChunk, ChatResult, LocalLlamaError

CORE_ERRORS = [
    value
    for name in localllama.errors.__all__
    if issubclass(value := getattr(localllama.errors, name), LocalLlamaError)
]
ATTRIBUTES = {
    "RequestTimeoutError": {"limit": "first_token", "seconds": 3.0},
    "ContextOverflowError": {"n_prompt_tokens": 9000, "n_ctx": 8192, "status_code": 400},
    "ServerCrashedError": {"signal_number": 9, "log_tail": "the end", "command": "llama-server -m x"},
    "StreamInterruptedError": {"partial": ChatResult(text="half")},
    "RuntimeBrokenError": {"runtime": "llama-cli", "log_tail": "the end"},
    "RuntimeNotFoundError": {"places": ("PATH: nothing",)},
}
RETRYABLE_IN_LANGCHAIN = {
    langchain_errors.ModelAPIError,
    langchain_errors.ModelConnectionError,
    langchain_errors.ModelTimeoutError,
    langchain_errors.ModelRateLimitError,
}


@pytest.mark.parametrize("cls", CORE_ERRORS, ids=lambda cls: cls.__name__)
def test_each_error_has_both_parents_and_keeps_all_it_says(script, cls: type[LocalLlamaError]) -> None:
    attributes = ATTRIBUTES.get(cls.__name__, {})
    cause = OSError("the cause")
    script.error = cls("what happened", hint="do this", **attributes)
    script.error.__cause__ = cause
    with pytest.raises(cls) as caught:
        ChatLocalLlama(model="m.gguf").invoke("hi")
    error = caught.value
    assert isinstance(error, langchain_errors.ModelError)
    assert type(error).__name__ == cls.__name__
    assert (str(error), error.hint, error.args) == (str(script.error), "do this", script.error.args)
    assert error.__cause__ is cause
    assert {name: getattr(error, name) for name in attributes} == attributes
    assert error.is_retryable == cls.is_retryable
    parents = RETRYABLE_IN_LANGCHAIN & set(type(error).__mro__)
    assert bool(parents) == cls.is_retryable, "a caller that retries by class must do right too"

    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert {name: getattr(again, name) for name in attributes} == attributes


@pytest.mark.parametrize(
    ("cls", "parent"),
    [
        (localllama.ContextOverflowError, langchain_errors.ContextOverflowError),
        (localllama.RequestTimeoutError, langchain_errors.ModelTimeoutError),
        (localllama.ServerConnectionError, langchain_errors.ModelConnectionError),
        (localllama.ModelNotFoundError, langchain_errors.ModelNotFoundError),
        (localllama.AuthenticationError, langchain_errors.ModelAuthenticationError),
        (localllama.ChatTemplateError, langchain_errors.ModelInvalidRequestError),
        (localllama.ServerFaultError, langchain_errors.ModelAPIError),
    ],
)
async def test_by_langchains_name_in_all_four_ways(script, cls, parent) -> None:
    script.chunks = [ChatChunk(text="half")]
    script.error = cls("x")
    llm = ChatLocalLlama(model="m.gguf")
    with pytest.raises(parent):
        llm.invoke("hi")
    with pytest.raises(parent):
        await llm.ainvoke("hi")
    with pytest.raises(parent):
        list(llm.stream("hi"))
    with pytest.raises(parent):
        _ = [chunk async for chunk in llm.astream("hi")]
    assert script.closed_streams == 4


def test_langchains_retry_and_fallback_take_them(script) -> None:
    script.error = localllama.ServerConnectionError("gone")
    llm = ChatLocalLlama(model="m.gguf")
    retried = llm.with_retry(
        retry_if_exception_type=(langchain_errors.ModelConnectionError,),
        stop_after_attempt=3,
        wait_exponential_jitter=False,
    )
    with pytest.raises(localllama.ServerConnectionError):
        retried.invoke("hi")
    assert len(script.sent) == 3
    fallback = llm.with_fallbacks(
        [RunnableLambda(lambda _: "other")], exceptions_to_handle=(langchain_errors.ModelError,)
    )
    assert fallback.invoke("hi") == "other"


def test_another_process_reads_them(script) -> None:
    script.error = localllama.ContextOverflowError("too long", hint="shorten", n_ctx=10, n_prompt_tokens=20)
    with pytest.raises(langchain_errors.ContextOverflowError) as caught:
        ChatLocalLlama(model="m.gguf").invoke("hi")
    code = "import pickle, sys; e = pickle.load(sys.stdin.buffer); print(type(e).__mro__[1:3], e.n_ctx, e.hint)"
    answer = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(caught.value), capture_output=True, check=True, timeout=60
    )
    assert b"localllama.errors.ContextOverflowError" in answer.stdout
    assert answer.stdout.split()[-2:] == [b"10", b"shorten"]


def test_counting_and_starting_raise_them_too(tmp_path) -> None:
    llm = ChatLocalLlama(model=str(tmp_path / "nowhere.gguf"))
    for ask in (
        llm.start,
        lambda: llm.get_token_ids("Hi"),
        lambda: llm.get_num_tokens_from_messages([HumanMessage("Hi")]),
    ):
        with pytest.raises(langchain_errors.ModelNotFoundError):
            ask()
