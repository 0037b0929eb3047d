"""Events of the Responses API as they leave the proxy."""

from msgspec import Struct


class Event(Struct, frozen=True, gc=False):
    """One event, encoded once; every sink sends these bytes as they are.

    type: such as b"response.output_text.delta".
    seq: sequence_number, from 0 and without gaps.
    frame: the whole SSE frame, blank line included.
    """

    type: bytes
    seq: int
    frame: bytes

    @property
    def data(self) -> bytes:
        """The JSON object, on one line."""
        return self.frame[len(lead(self.type)) : -2]


def lead(type: bytes) -> bytes:
    """What stands before an event's data in its frame."""
    return b"event: " + type + b"\ndata: "
