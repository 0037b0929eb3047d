"""The two tables that stand where branches would: kinds of text and kinds of call (RESPONSES 5.2).

What is written into events is bytes.
"""

from msgspec import Struct


class TextKind(Struct, frozen=True):
    """How one kind of text is shown in the stream.

    item: type of the item that holds it.
    part: type of the content part.
    field: the part's and the done event's field for the text.
    index: the field that numbers the item's parts of this kind.
    added, delta, done, closed: the event types, in the order of a part's life.
    """

    item: bytes
    part: bytes
    field: bytes
    index: bytes
    added: bytes
    delta: bytes
    done: bytes
    closed: bytes


OUTPUT_TEXT = TextKind(
    item=b"message",
    part=b"output_text",
    field=b"text",
    index=b"content_index",
    added=b"response.content_part.added",
    delta=b"response.output_text.delta",
    done=b"response.output_text.done",
    closed=b"response.content_part.done",
)
REFUSAL = TextKind(
    item=b"message",
    part=b"refusal",
    field=b"refusal",
    index=b"content_index",
    added=b"response.content_part.added",
    delta=b"response.refusal.delta",
    done=b"response.refusal.done",
    closed=b"response.content_part.done",
)
REASONING_TEXT = TextKind(
    item=b"reasoning",
    part=b"reasoning_text",
    field=b"text",
    index=b"content_index",
    added=b"response.content_part.added",
    delta=b"response.reasoning_text.delta",
    done=b"response.reasoning_text.done",
    closed=b"response.content_part.done",
)
SUMMARY_TEXT = TextKind(
    item=b"reasoning",
    part=b"summary_text",
    field=b"text",
    index=b"summary_index",
    added=b"response.reasoning_summary_part.added",
    delta=b"response.reasoning_summary_text.delta",
    done=b"response.reasoning_summary_text.done",
    closed=b"response.reasoning_summary_part.done",
)


class CallKind(Struct, frozen=True):
    """How one kind of call is shown in the stream.

    item: type of the item. prefix: of its id. field: where its input is. delta, done: the event types of the input.
    """

    item: bytes
    prefix: str
    field: bytes
    delta: bytes
    done: bytes


FUNCTION_CALL = CallKind(
    item=b"function_call",
    prefix="fc_",
    field=b"arguments",
    delta=b"response.function_call_arguments.delta",
    done=b"response.function_call_arguments.done",
)

PREFIXES = {b"message": "msg_", b"reasoning": "rs_"}
