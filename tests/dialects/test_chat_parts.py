"""Content parts -> parts of messages, and what is refused."""

from base64 import b64encode
from typing import Any

import pytest

from proxy.core.profile import Profile
from proxy.core.turn import Options, Turn
from proxy.dialects.chat_profiles import PROFILES
from proxy.dialects.chat_request import encode
from proxy.errors import RequestError
from proxy.wire.items import Message, Part
from tests.inputs import call, output, text, user
from tests.lowering import GENERIC, messages, tool


def content(*parts: dict[str, Any], profile: Profile = GENERIC) -> Any:
    return messages({"role": "user", "content": list(parts)}, profile=profile)[0]["content"]


def refusal(*parts: dict[str, Any], profile: Profile = GENERIC) -> RequestError:
    with pytest.raises(RequestError) as caught:
        messages(user("first"), {"role": "user", "content": [text("a"), *parts]}, profile=profile)
    return caught.value


def test_one_text_is_a_string_and_more_are_parts() -> None:
    assert content(text("a")) == "a"
    assert content(text("a"), {"type": "output_text", "text": "b"}) == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    assert content(text("a"), text("b"), profile=Profile(content_parts=False)) == "a\nb"


@pytest.mark.parametrize(
    ("part", "image"),
    [
        ({"image_url": "http://a/b"}, {"url": "http://a/b"}),
        ({"image_url": "http://a/b", "detail": "auto"}, {"url": "http://a/b"}),
        ({"image_url": "http://a/b", "detail": "low"}, {"url": "http://a/b", "detail": "low"}),
        ({"image_url": "http://a/b", "detail": "original"}, {"url": "http://a/b", "detail": "high"}),
        ({"image_url": {"url": "http://a/b", "detail": "high"}}, {"url": "http://a/b", "detail": "high"}),
    ],
)
def test_an_image(part: dict[str, Any], image: dict[str, Any]) -> None:
    assert content({"type": "input_image", **part}) == [{"type": "image_url", "image_url": image}]


def test_audio_and_video() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
    assert content(audio | {"detail": None}) == [audio]
    video = {"type": "input_video", "video_url": "http://a/b"}
    assert content(video, profile=PROFILES["vllm"]) == [{"type": "video_url", "video_url": {"url": "http://a/b"}}]


PLAIN = b64encode("grüß\n".encode()).decode()


@pytest.mark.parametrize("data", [PLAIN, f"data:text/plain;base64,{PLAIN}", "data:text/plain,gr%C3%BC%C3%9F%0A"])
def test_a_text_file_is_written_into_the_message(data: str) -> None:
    file = {"type": "input_file", "filename": "a.txt", "file_data": data}
    assert content(file) == "File: a.txt\ngrüß\n"
    [_, answer] = messages(call("a"), output("a", [file]))
    assert answer == tool("a", "File: a.txt\ngrüß\n")


def test_a_file_may_be_a_part() -> None:
    file = {"type": "input_file", "filename": "a.pdf", "file_data": "AAAA"}
    data = {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}
    assert content(file, profile=PROFILES["openai"]) == [{"type": "file", "file": data}]


@pytest.mark.parametrize(
    ("part", "field", "code"),
    [
        ({"type": "input_image", "file_id": "file-1"}, "file_id", "unsupported_value"),
        ({"type": "input_image"}, "image_url", "missing_required_parameter"),
        ({"type": "input_file", "file_id": "file-1"}, "file_id", "unsupported_value"),
        ({"type": "input_file", "file_url": "http://a/b"}, "file_url", "unsupported_value"),
        ({"type": "input_file", "filename": "a"}, "file_data", "missing_required_parameter"),
        ({"type": "input_file", "file_data": "%%%"}, "file_data", "invalid_base64"),
        ({"type": "input_file", "file_data": b64encode(b"\xff\xfe").decode()}, "file_data", "unsupported_value"),
        ({"type": "input_file", "file_data": b64encode(b"a\0").decode()}, "file_data", "unsupported_value"),
        ({"type": "input_file", "file_data": b64encode(b"%PDF-1.7").decode()}, "file_data", "unsupported_value"),
        ({"type": "input_audio", "input_audio": {"data": "AA"}}, "input_audio", "missing_required_parameter"),
        ({"type": "input_video", "video_url": "http://a/b"}, "type", "unsupported_value"),
    ],
)
def test_a_part_that_can_not_be_sent_is_named(part: dict[str, Any], field: str, code: str) -> None:
    error = refusal(part)
    assert (error.status, error.param, error.code) == (400, f"input[1].content[1].{field}", code)


def test_a_text_that_is_null_is_empty() -> None:
    assert content({"type": "input_text", "text": None}) == ""


def test_a_part_of_unknown_type_is_refused() -> None:
    message = Message("user", [Part(type="hologram")])
    with pytest.raises(RequestError, match="'hologram'") as caught:
        encode(Turn("m", None, [message], [], Options()), GENERIC)
    assert caught.value.param == "input[0].content[0].type"


def test_a_video_needs_an_address() -> None:
    assert refusal({"type": "input_video"}, profile=PROFILES["vllm"]).param == "input[1].content[1].video_url"


def test_a_part_of_an_output_that_can_not_be_sent_is_refused() -> None:
    with pytest.raises(RequestError, match="file-1") as caught:
        messages(call("a"), output("a", [{"type": "input_image", "file_id": "file-1"}]))
    assert caught.value.param == "input"
