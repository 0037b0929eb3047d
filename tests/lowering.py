"""Input items through the chat dialect: the messages that a profile makes of them."""

import json
from typing import Any

from proxy.core.profile import Profile
from proxy.core.turn import Options, Turn
from proxy.dialects.chat_request import encode
from tests.inputs import items

GENERIC = Profile()


def messages(
    *given: dict[str, Any], profile: Profile = GENERIC, instructions: str | None = None
) -> list[dict[str, Any]]:
    sent = encode(Turn("m", instructions, items(*given), [], Options()), profile)
    lowered: list[dict[str, Any]] = json.loads(sent)["messages"]
    return lowered


def function(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}
