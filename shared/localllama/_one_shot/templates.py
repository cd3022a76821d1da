"""Makes the prompt of a conversation: the model's chat template in Jinja's sandbox, or plain turns where there is none.

Templates come with downloaded models, so they run in the immutable sandbox; what they expect of their surroundings is what
transformers and llama.cpp give them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .vocabulary import Vocabulary

__all__ = ["CHATML", "ChatTemplate", "TemplateRefusalError"]

CHATML = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
_SPEAKERS = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
PLAIN_STOPS = ("\nUser:", "\nSystem:")
"""Where there is no template, the model would go on and write the user's next turn."""


class TemplateRefusalError(Exception):
    """The template does not take this conversation, or is broken."""


class _GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks text for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own form

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise TemplateRefusalError(str(message))


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    # Jinja's own escapes < and & for HTML.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005 - the user's local day


class ChatTemplate:
    """The template of one model.

    Args:
        source: Jinja; None renders plain turns.
        vocabulary: For the tokens that templates ask for.
        variables: Variables for each rendering.

    Raises:
        TemplateRefusalError: The source is not Jinja.
    """

    def __init__(self, source: str | None, vocabulary: Vocabulary, variables: Mapping[str, Any]) -> None:
        self.source = CHATML if source == "chatml" else source
        self._vocabulary = vocabulary
        self._variables = dict(variables)
        self._template: jinja2.Template | None = None
        if self.source is not None:
            environment = ImmutableSandboxedEnvironment(
                trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag], autoescape=False
            )
            environment.filters["tojson"] = _to_json
            environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
            try:
                self._template = environment.from_string(self.source)
            except jinja2.TemplateError as error:
                raise TemplateRefusalError(f"the chat template is no Jinja: {error}") from error

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end an answer beside the model's own end token."""
        return PLAIN_STOPS if self._template is None else ()

    def render(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        """The prompt, ready for the answer. An assistant's turn at the end is begun, for the model to go on with.

        Raises:
            TemplateRefusalError: The template refuses the messages.
        """
        begun = ""
        if messages and messages[-1].get("role") == "assistant" and isinstance(messages[-1].get("content"), str):
            messages, begun = messages[:-1], messages[-1]["content"]
        if self._template is None:
            return _plain(messages) + begun
        prompt = self._rendered(_with_objects(messages), variables) + begun
        bos = self._vocabulary.bos
        # llama.cpp adds it once more.
        return prompt.removeprefix(bos) if self._vocabulary.adds_bos and bos else prompt

    def _rendered(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        assert self._template is not None
        now = datetime.now()  # noqa: DTZ005 - as llama.cpp does
        known = {
            "bos_token": self._vocabulary.bos,
            "eos_token": self._vocabulary.eos,
            "date_string": now.strftime("%d %b %Y"),
            "datetime": now.strftime("%b %d %Y"),
            "tools": None,
            **self._variables,
            **variables,
        }
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **known)
        except TemplateRefusalError as error:
            raise TemplateRefusalError(f"the chat template refused the messages: {error}") from error
        except Exception as error:  # it is a program of somebody else's: any error of it is a refusal
            raise TemplateRefusalError(f"the chat template failed: {type(error).__name__}: {error}") from error


def _with_objects(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Arguments of calls as objects: templates write them as JSON themselves."""
    result = []
    for message in messages:
        copied = dict(message)
        if copied.get("tool_calls"):
            copied["tool_calls"] = [_with_object(call) for call in copied["tool_calls"]]
        result.append(copied)
    return result


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    try:
        function["arguments"] = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError):
        return dict(call)
    return {**call, "function": function}


def _plain(messages: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for message in messages:
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "\n".join(part.get("text", "") for part in content)
        if message.get("tool_calls"):
            raise TemplateRefusalError("the chat template has no place for tool calls")
        lines.append(f"{_SPEAKERS.get(str(message.get('role')), 'User')}: {content}\n")
    return "".join(lines) + "Assistant:"
