import json
from typing import Any

import pytest

from proxy.errors import RequestError
from proxy.wire.create import Create, decode_create

SAID = {"role": "user", "content": "hi"}


def update(**fields: Any) -> dict[str, Any]:
    return {"type": "configuration_update", **fields}


def create(*items: dict[str, Any], **fields: Any) -> Create:
    return decode_create(json.dumps({"model": "m", "input": list(items), **fields}).encode())


def test_the_newest_update_holds() -> None:
    made = create(update(reasoning={"effort": "low"}), SAID, update(reasoning={"effort": "high"}), SAID)
    assert made.reasoning
    assert made.reasoning.effort == "high"
    assert len(made.items) == 2


def test_each_field_has_its_own_newest_update() -> None:
    shape = {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}
    made = create(update(text=shape), update(reasoning={"effort": "low"}), SAID)
    assert made.reasoning
    assert made.reasoning.effort == "low"
    assert made.schema is not None


def test_what_the_request_says_itself_counts_more() -> None:
    made = create(update(reasoning={"effort": "low"}), SAID, reasoning={"effort": "high", "summary": "auto"})
    assert made.reasoning
    assert made.reasoning.effort == "high"
    made = create(update(reasoning={"effort": "low"}), SAID, reasoning={"summary": "auto"})
    assert made.reasoning
    assert (made.reasoning.effort, made.reasoning.summary) == ("low", "auto")


@pytest.mark.parametrize(
    "wrong", [{"reasoning": 3}, {"reasoning": {"effort": "huge"}}, {"text": {"format": {"type": "x"}}}]
)
def test_a_bad_update_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        create(update(**wrong), SAID)


def test_a_text_that_says_configuration_update_is_no_update() -> None:
    assert len(create({"role": "user", "content": "configuration_update"}).items) == 1
