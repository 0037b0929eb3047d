"""Profiles: the quirks of one product within a dialect, as data."""

from typing import Literal

from msgspec import Struct

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Hint = Literal["verbosity", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user"]


class Profile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one product expects and tolerates. Every field can be overridden in the YAML, beside the profile's name.

    The defaults are those of `generic`: what most Chat Completions servers take.
    """

    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The field that limits the output."""

    system_role: Literal["system", "developer", "user"] = "system"
    """The role that system and developer messages and the instructions get."""

    system_position: Literal["first_only", "anywhere"] = "first_only"
    """first_only: all leading ones become one message; a later one becomes a user message in <system> tags."""

    alternate_roles: bool = False
    """Neighbouring user messages become one; between a tool message and a user message comes an assistant's "OK."."""

    merge_assistant: bool = False
    """Neighbouring assistant texts are merged into one message, joined by an empty line."""

    trailing_assistant: Literal["keep", "error"] = "keep"
    """Whether the last message may be the assistant's: some take it as the beginning of the answer, some refuse it."""

    null_content: bool = False
    """An assistant message that has only tool calls gets content null; otherwise "", which everybody takes."""

    content_parts: bool = True
    """Several text parts stay parts; otherwise they are joined by a line feed."""

    refusals: Literal["text", "field"] = "text"
    """Where an earlier refusal goes: into the assistant message's content, or into its field `refusal`."""

    reasoning_field: tuple[str, ...] = ("reasoning_content",)
    """The fields of an assistant message in which earlier reasoning goes back; () for none."""

    reasoning_scope: Literal["tool_loop", "tool_turns", "all", "never"] = "tool_loop"
    """Which messages get it: those after the last user message, every one with tool calls, or all."""

    reasoning_required: bool = False
    """A message in scope gets the field even when the reasoning is lost: as ""."""

    effort: Literal["reasoning_effort", "enable_thinking", "thinking", "reasoning", "none"] = "reasoning_effort"
    """How reasoning.effort is said: as reasoning_effort, as chat_template_kwargs.enable_thinking, as thinking.type, as
    reasoning.effort, or not at all."""

    efforts: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    """The steps that are understood; others are clamped downwards (to "none" never), below the lowest upwards."""

    think_tags: bool = False
    """<think>...</think> at the beginning of the content is reasoning."""

    call_ids: Literal["keep", "nine", "indexed"] = "keep"
    """What a call id has to look like: anything, exactly nine letters or digits (Mistral), functions.NAME:N (Kimi)."""

    tool_choice: Literal["full", "no_named", "auto_only"] = "full"
    """no_named: a named choice becomes that one tool and "required". auto_only: only that one tool is offered."""

    strict_tools: bool = True
    """`strict` of a function is passed on when the client gave it."""

    args_must_be_json: bool = True
    """Servers and templates that parse the arguments of earlier calls: what is no JSON object is wrapped in one."""

    json_schema: Literal["json_schema", "json_object", "prompt", "none"] = "json_schema"
    """How a schema is said: as response_format json_schema, as json_object with schema, as json_object with the schema
    in the system message, or not at all."""

    tool_media: Literal["next_message", "inline"] = "next_message"
    """Where images and files in tool outputs go: into a user message behind the outputs, or into the tool message."""

    files: Literal["inline_text", "file_part"] = "inline_text"
    """Files: text files are written into the message, others refused; or everything goes as a `file` part."""

    video: bool = False
    """input_video can be passed on as a video_url part."""

    stream_usage: bool = True
    """stream_options.include_usage is sent."""

    hints: tuple[Hint, ...] = ()
    """Fields that are passed on when the client gave them: verbosity, service_tier, prompt_cache_key and so on."""

    history_repair: Literal["lenient", "strict"] = "lenient"
    """Calls without output and outputs without call: mended, or refused with a 400 as OpenAI does."""

    missing_finish: Literal["complete", "fail"] = "fail"
    """An answer that ends, by end of file, without a finish_reason."""
