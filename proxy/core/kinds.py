"""The two tables that stand where branches would: kinds of text and kinds of call (RESPONSES 5.2)."""

from msgspec import Struct


class TextKind(Struct, frozen=True):
    """How one kind of text is shown in the stream.

    item: type of the item that holds it.
    part: type of the content part.
    field: the part's and the done event's field for the text.
    group: the item's field that lists such parts, and thereby the name of the index.
    empty: the rest of the part as it is added.
    added, delta, done, closed: the event types, in the order of a part's life.
    """

    item: str
    part: str
    field: str
    group: str
    added: str
    delta: str
    done: str
    closed: str

    @property
    def index(self) -> str:
        """The field that numbers the parts of a group."""
        return "summary_index" if self.group == "summary" else "content_index"


OUTPUT_TEXT = TextKind(
    item="message",
    part="output_text",
    field="text",
    group="content",
    added="response.content_part.added",
    delta="response.output_text.delta",
    done="response.output_text.done",
    closed="response.content_part.done",
)
REFUSAL = TextKind(
    item="message",
    part="refusal",
    field="refusal",
    group="content",
    added="response.content_part.added",
    delta="response.refusal.delta",
    done="response.refusal.done",
    closed="response.content_part.done",
)
REASONING_TEXT = TextKind(
    item="reasoning",
    part="reasoning_text",
    field="text",
    group="content",
    added="response.content_part.added",
    delta="response.reasoning_text.delta",
    done="response.reasoning_text.done",
    closed="response.content_part.done",
)
SUMMARY_TEXT = TextKind(
    item="reasoning",
    part="summary_text",
    field="text",
    group="summary",
    added="response.reasoning_summary_part.added",
    delta="response.reasoning_summary_text.delta",
    done="response.reasoning_summary_text.done",
    closed="response.reasoning_summary_part.done",
)


class CallKind(Struct, frozen=True):
    """How one kind of call is shown in the stream.

    item: type of the item. prefix: of its id. field: where its input is. delta, done: the event types of the input.
    """

    item: str
    prefix: str
    field: str
    delta: str
    done: str


FUNCTION_CALL = CallKind(
    item="function_call",
    prefix="fc_",
    field="arguments",
    delta="response.function_call_arguments.delta",
    done="response.function_call_arguments.done",
)

PREFIXES = {"message": "msg_", "reasoning": "rs_"}
