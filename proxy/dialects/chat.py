"""Chat Completions: what vLLM, SGLang, llama.cpp, Ollama and most others speak."""

from collections.abc import Sequence
from typing import Any

import msgspec

from proxy.core.profile import Profile
from proxy.core.turn import Turn
from proxy.dialects.chat_errors import refusal
from proxy.dialects.chat_profiles import PROFILES
from proxy.dialects.chat_request import encode
from proxy.dialects.chat_stream import ChatDecoder

__all__ = ["MODELS", "PATH", "PROFILES", "decoder", "encode", "models", "refusal"]

PATH = "/chat/completions"
MODELS = "/models"


def decoder(turn: Turn, profile: Profile, limit: int) -> ChatDecoder:
    """See proxy.dialects.Dialect."""
    del turn
    return ChatDecoder(profile, limit)


class _Models(msgspec.Struct):
    data: list[Any] | None  # null: Ollama without a model


def models(body: bytes) -> Sequence[str] | None:
    """See proxy.dialects.Dialect."""
    try:
        listed = msgspec.json.decode(body, type=_Models).data or []
        return [each["id"] for each in listed if isinstance(each, dict) and isinstance(each.get("id"), str)]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
