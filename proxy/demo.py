"""The upstream `demo:`: a small deterministic Chat Completions server on a loopback socket, for the first curl."""

import asyncio
import json
import re
import time
import zlib
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from proxy.demo_schema import instance

PACE = 0.04
"""Seconds between two words of a stream."""

Piece = tuple[str, Any]
"""A field of a delta, and what it brings."""


class Message(Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in self.content)
        return self.content or ""


class Function(Struct):
    name: str
    parameters: dict[str, Any] | None = None


class Tool(Struct):
    function: Function


class Request(Struct):
    """The fields of a Chat Completions request that make a difference here."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    model: str = "demo"
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    def prompt(self) -> str:
        """The user's last text."""
        return next((message.text() for message in reversed(self.messages) if message.role == "user"), "")

    def thinks(self) -> bool:
        enabled = (self.chat_template_kwargs or {}).get("enable_thinking")
        if self.reasoning_effort == "none" or enabled is False:
            return False
        return bool(self.reasoning_effort or enabled or re.search(r"\bthink", self.prompt(), re.IGNORECASE))

    def called(self) -> list[Function]:
        """The functions that the answer calls: when there are any and it is the user's turn that is answered."""
        if not self.tools or self.tool_choice == "none" or self.messages[-1].role != "user":
            return []
        functions = [tool.function for tool in self.tools]
        if isinstance(self.tool_choice, dict):
            name = self.tool_choice.get("function", {}).get("name")
            functions = [function for function in functions if function.name == name]
        both = self.parallel_tool_calls is not False and re.search(r"\b(both|parallel)\b", self.prompt(), re.IGNORECASE)
        return (functions * 2)[:2] if both else functions[:1]


class Answer(Struct):
    """What is said to one request: pieces of one word each, already cut to the limit."""

    request: Request
    pieces: list[Piece]
    finish: str

    def usage(self) -> dict[str, Any]:
        words = sum(len(message.text().split()) for message in self.request.messages)
        reasoning = sum(1 for field, _ in self.pieces if field == "reasoning_content")
        return {
            "prompt_tokens": words,
            "completion_tokens": len(self.pieces),
            "total_tokens": words + len(self.pieces),
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }

    def logprobs(self, pieces: list[Piece]) -> dict[str, Any] | None:
        words = [text for field, text in pieces if field == "content"]
        if not self.request.logprobs or not words:
            return None
        others = range(self.request.top_logprobs or 0)
        return {"content": [token(word) | {"top_logprobs": [token(word, n) for n in others]} for word in words]}

    def message(self) -> dict[str, Any]:
        """All pieces in one message, for who does not stream."""
        result: dict[str, Any] = {"role": "assistant", "content": None}
        for field, value in self.pieces:
            if field != "tool_calls":
                result[field] = (result.get(field) or "") + value
            elif "id" in value:
                calls = result.setdefault("tool_calls", [])
                calls.append({key: value[key] for key in ("id", "type")} | {"function": dict(value["function"])})
            else:
                result["tool_calls"][-1]["function"]["arguments"] += value["function"]["arguments"]
        return result


def answer(request: Request) -> Answer:
    """What the demo says to this: always the same to the same."""
    pieces: list[Piece] = []
    if request.thinks():
        thought = f"The user says: {shortened(request.prompt())} I only repeat, so there is little to think about."
        pieces += [("reasoning_content", word) for word in words_of(thought)]
    calls = request.called()
    if calls:
        pieces += call_pieces(request, calls)
    else:
        pieces += [("content", word) for word in words_of(text(request))]
    limit = request.max_completion_tokens or request.max_tokens
    finish = "length" if limit and limit < len(pieces) else "tool_calls" if calls else "stop"
    return Answer(request, pieces[:limit], finish)


def text(request: Request) -> str:
    form = request.response_format or {}
    if form.get("type") == "json_schema":
        return written(form.get("json_schema", {}).get("schema") or {}, request)
    if form.get("type") == "json_object":
        return written({"const": {"demo": True, "you_said": request.prompt()}}, request)
    if request.messages[-1].role == "tool":
        outputs = [message.text() for message in request.messages if message.role == "tool"]
        return f"I am the demo model. The tool says: {shortened(outputs[-1])}"
    return (
        f"Hello from the demo model, which is built into this proxy and only repeats. You said: "
        f"{shortened(request.prompt())} Name a real endpoint to talk to a real model."
    )


def call_pieces(request: Request, functions: list[Function]) -> Iterator[Piece]:
    for index, function in enumerate(functions):
        # The number of messages makes the id unique within a conversation.
        start = {"id": f"call_demo_{len(request.messages)}_{index}", "type": "function"}
        yield "tool_calls", {"index": index, **start, "function": {"name": function.name, "arguments": ""}}
        for word in words_of(written(function.parameters or {"type": "object"}, request)):
            yield "tool_calls", {"index": index, "function": {"arguments": word}}


def written(schema: dict[str, Any], request: Request) -> str:
    """JSON that satisfies the schema."""
    return json.dumps(instance(schema, request.prompt()), ensure_ascii=False)


def words_of(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def shortened(text: str) -> str:
    words = text.split()
    return "“" + " ".join(words[:20]) + (" …”" if len(words) > 20 else "”.")


def token(word: str, rank: int = 0) -> dict[str, Any]:
    """A token as in logprobs; of a rank above 0, something less likely in its place."""
    logprob = -(zlib.crc32(word.encode()) % 200) / 1000 - rank
    word += str(rank or "")
    return {"token": word, "logprob": logprob, "bytes": list(word.encode())}


class Demo:
    """The running server. url: its base URL. Must be closed."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"

    async def close(self) -> None:
        await self._runner.cleanup()


async def start(pace: float = PACE) -> Demo:
    """Serves on any free port. pace: seconds between two words of a stream."""

    async def complete(request: web.Request) -> web.StreamResponse:
        try:
            asked = msgspec.json.decode(await request.read(), type=Request)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            detail = {"message": str(error), "type": "invalid_request_error", "param": None, "code": None}
            return web.json_response({"error": detail}, status=400)
        return await stream(request, answer(asked), pace) if asked.stream else whole(answer(asked))

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_get("/v1/models", models)
    # A client that goes away ends its stream, and closing waits for none; aiohttp 3.14 takes 0 for "no limit".
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return Demo(runner)


async def models(_request: web.Request) -> web.Response:
    model = {"id": "demo", "object": "model", "created": 0, "owned_by": "responses-proxy"}
    return web.json_response({"object": "list", "data": [model]})


def whole(reply: Answer) -> web.Response:
    choice = {"index": 0, "message": reply.message(), "logprobs": reply.logprobs(reply.pieces)}
    choices = [choice | {"finish_reason": reply.finish}]
    return web.json_response({**head(reply, "chat.completion"), "choices": choices, "usage": reply.usage()})


async def stream(request: web.Request, reply: Answer, pace: float) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    for chunk in chunks(reply):
        await response.write(b"data: " + msgspec.json.encode(chunk) + b"\n\n")
        await asyncio.sleep(pace)
    await response.write(b"data: [DONE]\n\n")
    return response


def chunks(reply: Answer) -> Iterator[dict[str, Any]]:
    start = head(reply, "chat.completion.chunk")
    yield start | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    for field, value in reply.pieces:
        delta = {field: [value] if field == "tool_calls" else value}
        choice = {"index": 0, "delta": delta, "logprobs": reply.logprobs([(field, value)]), "finish_reason": None}
        yield start | {"choices": [choice]}
    yield start | {"choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish}]}
    if (reply.request.stream_options or {}).get("include_usage"):
        yield start | {"choices": [], "usage": reply.usage()}


def head(reply: Answer, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-demo", "object": kind, "created": int(time.time()), "model": reply.request.model}
