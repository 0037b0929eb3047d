"""The answer of a Chat Completions server -> deltas, at any cut of the bytes.

Decides nothing about what the client sees.
"""

from typing import Any

import msgspec

from proxy.core.deltas import Annotation, Delta, End, Finish, Reasoning, Refusal, Summary, Text, Tier, Usage
from proxy.core.profile import Profile
from proxy.dialects import chat_chunk, chat_errors
from proxy.dialects.chat_calls import Calls
from proxy.dialects.chat_chunk import Choice, Chunk, ToolCall, decode, decode_leniently, decode_plain
from proxy.dialects.chat_think import ThinkTags
from proxy.errors import Broken, ProxyError
from proxy.wire.sse import Splitter

_LENGTH = {"length", "max_tokens", "model_length", "max_output_tokens", "MAX_TOKENS"}
_FILTER = {"content_filter", "safety", "SAFETY", "RECITATION", "sensitive", "PROHIBITED_CONTENT", "BLOCKLIST"}
_FAILED = {"error", "abort", "insufficient_system_resource", "network_error", "MALFORMED_FUNCTION_CALL"}
_KNOWN = {"stop", "tool_calls", "function_call", "eos", "eos_token", "end_turn", "stop_sequence", "tool_use", "STOP"}


class ChatDecoder:
    """See proxy.dialects.Decoder.

    An answer that begins like JSON is no stream: it is kept until its end, and then decoded whole (pitfall 13).
    """

    def __init__(self, profile: Profile, limit: int) -> None:
        self.failure: ProxyError | None = None
        self.done = False
        self.notes: list[str] = []
        self._limit = limit
        self._splitter = Splitter(limit)
        self._eof_completes = profile.missing_finish == "complete"
        self._think = ThinkTags() if profile.think_tags else None
        self._begun = False
        self._body: list[bytes] | None = None  # of an answer that is no stream
        self._size = 0
        self._calls = Calls()
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._tier: str | None = None
        self._annotations: set[bytes] = set()  # those that have come, to know repeats
        self._seen = False  # a choice
        self._plain = not profile.think_tags  # the next chunk may well be a piece of text and nothing else
        self._refused = False

    def feed(self, data: bytes) -> list[Delta]:
        deltas: list[Delta] = []
        if not self._begun:
            self._sniff(data)
        if (body := self._body) is not None:
            self._collect(body, data)
        elif not self.done and self.failure is None:
            for payload in self._splitter.feed(data):
                if self._plain:  # the hot path; a chunk that is not plain costs it once
                    try:
                        choice = decode_plain(payload).choices[0]
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                        self._plain = False
                    else:
                        self._seen = True
                        if text := choice.delta.content:
                            deltas.append(Text(text))
                        if choice.finish_reason:
                            self._plain = False  # behind it comes usage, if anything
                            self._finish_with(choice.finish_reason, deltas)
                        continue
                self._take(payload, deltas)
            if self._splitter.overflow:
                self._fail(
                    Broken(f"The upstream sent an event of more than {self._limit} bytes.", code="server_error"), deltas
                )
        return deltas

    def close(self) -> list[Delta]:
        deltas: list[Delta] = []
        if not self.done and self.failure is None:
            for payload in self._whole() if self._body is not None else self._splitter.close():
                self._take(payload, deltas, last=True)
        if self.done or self.failure is not None:
            return deltas
        if self._finish is not None or (self._eof_completes and self._seen):
            self._end(deltas)
        elif self._seen:
            self._fail(
                Broken("The upstream's stream ended early: it closed without a finish_reason.", code="server_error"),
                deltas,
            )
        else:  # llama-cpp-python answers a prompt that is too long so
            self._fail(Broken("The upstream answered with an empty stream.", code="server_error"), deltas)
        return deltas

    # -- an answer that is no stream

    def _sniff(self, data: bytes) -> None:
        first = data.lstrip(b" \t\r\n\xef\xbb\xbf")[:1]
        if first:
            self._begun = True
            if first in b"{[":
                self._body = []

    def _collect(self, body: list[bytes], data: bytes) -> None:
        if self.failure is not None:
            return
        body.append(data)
        self._size += len(data)
        if self._size > self._limit:
            body.clear()
            self.failure = Broken(f"The upstream sent a body of more than {self._limit} bytes.", code="server_error")

    def _whole(self) -> list[bytes]:
        """The body as one payload; or, when it is no JSON, its lines: NDJSON, or a stream after all."""
        body = b"".join(self._body or ()).strip().removeprefix(b"\xef\xbb\xbf")
        try:
            msgspec.json.decode(body, type=msgspec.Raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            lines = body.splitlines()
            if len(lines) > 1:
                return Splitter(self._limit).feed(b"\n".join(lines) + b"\n\n")
        return [body]

    # -- payloads

    def _take(self, payload: bytes, deltas: list[Delta], *, last: bool = False) -> None:
        if self.done or self.failure is not None:
            return
        if len(payload) < 16 and payload.strip() == b"[DONE]":  # pitfall 65
            self._take_done(deltas)
            return
        try:
            chunk = decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            maybe = self._take_odd(payload, deltas, last=last)
            if maybe is None:
                return
            chunk = maybe
        choices = chunk.choices
        if choices:
            for choice in choices:
                if not choice.index:  # n is never asked for: others are none of ours
                    self._choice(choice, deltas)
        self._rest(chunk, deltas)

    def _take_done(self, deltas: list[Delta]) -> None:
        """pitfall 4: [DONE] alone is no success."""
        if not self._seen:
            self._fail(Broken("The upstream answered with an empty stream.", code="server_error"), deltas)
            return
        if self._finish is None:
            self.notes.append("the upstream sent [DONE] without a finish_reason")
        self._end(deltas)

    def _take_odd(self, payload: bytes, deltas: list[Delta], *, last: bool) -> Chunk | None:
        try:
            return decode_leniently(payload)
        except (msgspec.DecodeError, RecursionError, ValueError):
            text = payload.decode("utf-8", "replace").strip()
        if text.startswith('{"error"'):  # transformers serve writes its errors without escaping
            self._fail(chat_errors.in_stream(text.removeprefix('{"error"').strip(' :"}')), deltas)
        elif last and self._seen:  # cut off within its frame: what came before it counts
            self.notes.append("the upstream's stream ended within an event")
        elif text:
            what = f"The upstream sent what is no chunk of a chat completion: {text[:200]}"
            self._fail(Broken(what, code="server_error"), deltas)
        return None

    def _choice(self, choice: Choice, deltas: list[Delta]) -> None:
        """Thought, text, refusal, annotations, calls: in this order when they share a chunk (pitfalls 25, 38)."""
        self._seen = True
        delta = choice.delta or choice.message
        if delta is not None:
            content = delta.content
            if delta.reasoning_content or delta.reasoning or delta.reasoning_details or delta.thinking_blocks:
                self._thought(delta, deltas)
            if isinstance(content, str) and choice.logprobs is None and self._think is None:
                if content:
                    deltas.append(Text(content))
                    self._plain = True  # more of them will follow
            else:
                self._content(content, choice, deltas)
            if delta.refusal:
                self._refused = True
                deltas.append(Refusal(delta.refusal))
            if delta.annotations:
                self._annotate(delta.annotations, deltas)
            if delta.tool_calls or delta.function_call:
                self._call(delta, deltas)
            if (
                delta.audio is not None
                and isinstance(delta.audio, dict)
                and isinstance(delta.audio.get("transcript"), str)
            ):
                deltas.append(Text(delta.audio["transcript"]))
        if choice.error:
            self._fail(chat_errors.in_stream(choice.error), deltas)
        if choice.finish_reason:
            self._finish_with(choice.finish_reason, deltas)
        if choice.usage is not None:
            self._usage = chat_chunk.usage(choice.usage) or self._usage

    def _thought(self, delta: chat_chunk.Delta, deltas: list[Delta]) -> None:
        """One of the fields: servers that send two say the same in both (RESPONSES 4.3.2)."""
        details = [d for d in delta.reasoning_details or () if isinstance(d, dict)]
        summary = "".join(
            d["summary"] for d in details if d.get("type") == "reasoning.summary" and isinstance(d.get("summary"), str)
        )
        if summary:
            deltas.append(Summary(summary))
            return
        text = delta.reasoning_content or delta.reasoning or "".join(_texts(details, "text"))
        text = text or "".join(_texts(delta.thinking_blocks or (), "thinking"))
        if text:
            deltas.append(Reasoning(text))

    def _content(self, content: str | list[Any] | None, choice: Choice, deltas: list[Delta]) -> None:
        entries = choice.logprobs.content if choice.logprobs is not None else None
        logprobs = chat_chunk.logprobs(entries) if entries else None
        if isinstance(content, list):  # Mistral
            for part in content:
                self._part(part, deltas)
        elif self._think is not None and content:
            deltas += self._think.feed(content)
        elif content or logprobs:
            deltas.append(Text(content or "", logprobs))

    def _part(self, part: Any, deltas: list[Delta]) -> None:
        if not isinstance(part, dict):
            return
        thinking = part.get("thinking")
        if part.get("type") == "thinking":
            text = thinking if isinstance(thinking, str) else "".join(_texts(thinking or (), "text"))
            if text:
                deltas.append(Reasoning(text))
        elif isinstance(part.get("text"), str) and part["text"]:
            deltas.append(Text(part["text"]))

    def _annotate(self, annotations: list[Any], deltas: list[Delta]) -> None:
        for said in annotations:
            annotation = chat_chunk.annotation(said)
            key = msgspec.json.encode(annotation)
            if annotation is not None and key not in self._annotations:
                self._annotations.add(key)
                deltas.append(Annotation(annotation))

    def _call(self, delta: chat_chunk.Delta, deltas: list[Delta]) -> None:
        pieces = delta.tool_calls
        if pieces:
            self._let_go(deltas)
            deltas += map(self._calls.delta, pieces if isinstance(pieces, list) else [pieces])
            self._legacy = False
        elif delta.function_call is not None and (self._legacy or not self._calls):
            self._legacy = True
            self._let_go(deltas)
            deltas.append(self._calls.delta(ToolCall(index=0, function=delta.function_call)))

    _legacy = False
    """Calls come as function_call. llama-cpp-python sends such a twin beside each tool call: of no interest."""

    def _let_go(self, deltas: list[Delta]) -> None:
        if self._think is not None:
            deltas += self._think.close()

    def _finish_with(self, reason: str, deltas: list[Delta]) -> None:
        if reason in _FAILED:
            self._fail(Broken(f"The upstream gave up: finish_reason {reason!r}.", code="server_error"), deltas)
        elif reason in _LENGTH or self._finish == "length":  # pitfall 11: length wins
            self._finish = "length"
        elif reason in _FILTER or (reason == "refusal" and not self._refused):
            self._finish = "content_filter"
        elif self._finish is None:  # pitfall 8: a second one changes nothing
            self._finish = "stop"
            if reason not in _KNOWN and reason != "refusal":
                self.notes.append(f"unknown finish_reason {reason!r} taken for the normal end")

    def _rest(self, chunk: Chunk, deltas: list[Delta]) -> None:
        if chunk.usage is not None:
            self._usage = chat_chunk.usage(chunk.usage) or self._usage
        if chunk.service_tier and chunk.service_tier != self._tier:
            self._tier = chunk.service_tier
            deltas.append(Tier(chunk.service_tier))
        if (groq := chunk.x_groq) is not None:
            self._usage = (groq.usage and chat_chunk.usage(groq.usage)) or self._usage
            if groq.error:
                self._fail(chat_errors.in_stream(groq.error), deltas)
        if chunk.error:
            self._fail(chat_errors.in_stream({"error": chunk.error}), deltas)
        elif chunk.choices is None and (
            chunk.object == "error" or chunk.detail or chunk.message
        ):  # older vLLM, FastAPI
            self._fail(chat_errors.in_stream({"message": chunk.message, "detail": chunk.detail}), deltas)

    def _end(self, deltas: list[Delta]) -> None:
        self.done = True
        self._let_go(deltas)
        if self._usage is not None:
            deltas.append(self._usage)
        deltas += (Finish(self._finish or "stop"), End())

    def _fail(self, failure: ProxyError, deltas: list[Delta]) -> None:
        if self.failure is None:
            self.failure = failure
            self._plain = False  # what follows in this read is of no interest
            self._let_go(deltas)
            if self._usage is not None:
                deltas.append(self._usage)


def _texts(parts: Any, field: str) -> list[str]:
    if not isinstance(parts, list | tuple):
        return []
    return [part[field] for part in parts if isinstance(part, dict) and isinstance(part.get(field), str)]
