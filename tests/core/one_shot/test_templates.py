"""Chat templates are rendered as llama.cpp renders them, in a sandbox."""

from __future__ import annotations

from datetime import datetime

import pytest

from localllama._one_shot.templates import CHATML, ChatTemplate, TemplateRefusalError
from localllama._one_shot.vocabulary import Vocabulary

USER = {"role": "user", "content": "Hi"}


def rendered(source: str | None, *messages: dict[str, object], vocabulary: Vocabulary | None = None) -> str:
    return ChatTemplate(source, vocabulary or Vocabulary(bos="<s>", eos="</s>"), {"given": 1}).render(
        messages, {"more": 2}
    )


def test_what_templates_expect_is_there() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'x' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}"
        "{{ eos_token }}{{ {'a': '<é>'} | tojson }}{{ strftime_now('%Y') }}{{ given + more }}"
        "{% generation %}G{% endgeneration %}{{ tools is none }}{{ add_generation_prompt }}"
    )
    year = str(datetime.now().year)  # noqa: DTZ005 - as templates see it
    assert rendered(source, {"role": "x", "content": "no"}, USER) == f'<s>Hi</s>{{"a": "<é>"}}{year}3GTrueTrue'


def test_a_refusal_is_told_with_the_templates_words() -> None:
    with pytest.raises(TemplateRefusalError, match="roles must alternate"):
        rendered("{{ raise_exception('roles must alternate') }}", USER)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ nothing.at.all }}",
        "{{ messages[0]['content'] + 1 }}",
    ],
)
def test_a_template_gets_nowhere(source: str) -> None:
    with pytest.raises(TemplateRefusalError):
        rendered(source, USER)


def test_no_jinja_is_refused_at_once() -> None:
    with pytest.raises(TemplateRefusalError, match="no Jinja"):
        ChatTemplate("{% for %}", Vocabulary(), {})


def test_the_beginning_token_is_not_written_twice() -> None:
    assert rendered("{{ bos_token }}x", USER, vocabulary=Vocabulary(bos="<s>", adds_bos=True)) == "x"


def test_a_begun_answer_is_gone_on_with() -> None:
    prompt = rendered(CHATML, USER, {"role": "assistant", "content": "Well, "})
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell, "
    assert rendered("chatml", USER) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_plain_turns_where_there_is_no_template() -> None:
    prompt = rendered(None, {"role": "system", "content": "Be brief."}, USER)
    assert prompt == "System: Be brief.\nUser: Hi\nAssistant:"


def test_arguments_of_calls_are_objects_for_the_template() -> None:
    call = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    assert rendered("{{ messages[0].tool_calls[0].function.arguments.a + 1 }}", message, USER) == "2"
