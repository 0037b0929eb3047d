"""The products known to speak Chat Completions: in what each differs from most."""

from msgspec.structs import replace

from proxy.core.profile import Profile

_OPENAI = Profile(
    max_tokens="max_completion_tokens",  # reasoning models refuse max_tokens
    system_role="developer",
    system_position="anywhere",
    null_content=True,
    refusals="field",
    reasoning_field=(),  # "Unknown parameter"
    reasoning_scope="never",
    args_must_be_json=False,
    files="file_part",
    hints=("verbosity", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user"),
)

PROFILES: dict[str, Profile] = {
    # For any server: what all that were tried take. reasoning_content in earlier messages is taken by vLLM, SGLang,
    # llama.cpp, llama-cpp-python and transformers; a server that refuses it (groq, mistral) sends none to give back.
    "generic": Profile(),
    # The real thing, whose fields the others have in part.
    "openai": _OPENAI,
    # As OpenAI, but its API versions know the hints at different times.
    "azure": replace(_OPENAI, hints=()),
    # vLLM 0.33: `reasoning`, before January 2026 `reasoning_content`; each ignores the other. Video, media in outputs.
    "vllm": Profile(reasoning_field=("reasoning", "reasoning_content"), tool_media="inline", video=True),
    # SGLang 0.5.23: as generic, and video.
    "sglang": Profile(video=True),
    # llama.cpp b11549: a named tool_choice is ignored, "required" is enforced.
    "llamacpp": Profile(tool_choice="no_named"),
    # Ollama /v1: tool_choice is ignored; any other effort is a 400.
    "ollama": Profile(
        reasoning_field=("reasoning",), tool_choice="auto_only", efforts=("none", "low", "medium", "high")
    ),
    # V3.2 and later: 400 without the reasoning of every message with calls (pitfall 28), and for json_schema.
    "deepseek": Profile(reasoning_scope="tool_turns", reasoning_required=True, effort="thinking", json_schema="prompt"),
    # 422 for any unknown field, stream_options too (usage comes unasked); 400 for other call ids and orders of roles.
    "mistral": Profile(
        alternate_roles=True,
        merge_assistant=True,
        trailing_assistant="error",
        reasoning_field=(),
        reasoning_scope="never",
        effort="none",
        call_ids="nine",
        stream_usage=False,
    ),
    # Kimi: as DeepSeek, its template wants its own form of call ids, and a forced call is a 400 while it thinks.
    "moonshot": Profile(
        reasoning_scope="tool_turns",
        reasoning_required=True,
        effort="thinking",
        call_ids="indexed",
        tool_choice="auto_only",
    ),
    # 400 "property 'reasoning_content' is unsupported", whatever the field for reasoning is called.
    "groq": Profile(reasoning_field=(), reasoning_scope="never", efforts=("none", "low", "medium", "high")),
    # Its own word for the effort; refuses `reasoning_effort` beside it.
    "openrouter": Profile(reasoning_field=("reasoning",), effort="reasoning"),
}
"""By the word in the YAML."""
