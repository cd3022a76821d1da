"""What a model can do, as LangChain's `ModelProfile`, read from the GGUF header alone."""

from __future__ import annotations

from langchain_core.language_models.model_profile import ModelProfile

from localllama import ModelInfo


def to_profile(info: ModelInfo, *, has_projector: bool) -> ModelProfile:
    """The profile of a model that is on this machine.

    Args:
        info: What its header says.
        has_projector: Whether it is served with an `mmproj` file, without which no model sees.
    """
    template = info.chat_template or ""
    return ModelProfile(
        name=info.name,
        open_weights=True,
        max_input_tokens=info.n_ctx,
        text_inputs=True,
        text_outputs=True,
        image_inputs=has_projector,
        image_url_inputs=False,
        image_tool_message=has_projector,
        pdf_inputs=False,
        pdf_tool_message=False,
        video_inputs=False,
        image_outputs=False,
        audio_outputs=False,
        video_outputs=False,
        # The core sees to these on any template, together too: a step of an agent with tools and a response format is a
        # call of a tool or the object.
        tool_calling=True,
        tool_choice=True,
        tool_call_streaming=True,
        structured_output=True,
        # A template that never mentions it cannot show the model its own thinking.
        reasoning_output="reasoning_content" in template or "<think>" in template,
        temperature=True,
    )
