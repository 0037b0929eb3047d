"""Events of the Responses API as they leave the proxy."""

from msgspec import Struct


class Event(Struct, frozen=True, gc=False):
    """One event, encoded once; every sink sends these bytes as they are.

    type: such as b"response.output_text.delta".
    seq: sequence_number, from 0 and without gaps.
    data: the JSON object on one line.
    """

    type: bytes
    seq: int
    data: bytes
