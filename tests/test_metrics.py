"""What can be counted, and what the documents say of it."""

import asyncio
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from proxy.metrics import GAPS, Done, Limit, Metrics, Outcome, UpstreamState
from proxy.prometheus import Prometheus

DOCS = Path(__file__).parent.parent / "docs"
OPERATIONS = (DOCS / "operations.md").read_text("utf-8")
ALERTS = yaml.safe_load((DOCS / "alerts.yaml").read_text("utf-8"))["groups"]
RULES = [rule for group in ALERTS for rule in group["rules"]]
DONE = Done(endpoint="other", status=200, input=1, first=1, gaps=[1] * (len(GAPS) + 1))


def count_all(metrics: Metrics) -> None:
    """Everything once."""
    metrics.opened("r")
    metrics.request(DONE)
    metrics.closed("r")
    for outcome in get_args(Outcome):
        metrics.attempt("r", "p", "u", outcome)
    metrics.retry("p")
    metrics.fallback("r")
    for limit in get_args(Limit):
        metrics.limited(limit)
    metrics.lag(0.1)
    metrics.reloaded(ok=True)
    metrics.watch(lambda: [UpstreamState("u", available=True)])


async def families() -> dict[str, Any]:
    """All that there are, by the names under which they are read."""
    metrics = Prometheus("1", "asyncio")
    count_all(metrics)
    text = (await metrics.render())[1].decode()
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in parse(text)}


async def test_every_metric_is_in_the_manual_and_no_other() -> None:
    named = set(re.findall(r"`((?:responses_proxy|process)_\w+)`", OPERATIONS))
    assert named == set(await families())


async def test_the_manual_names_the_labels_of_every_metric() -> None:
    for name, family in (await families()).items():
        (row,) = (line for line in OPERATIONS.splitlines() if line.startswith("|") and f"`{name}`" in line)
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert set(re.findall(r"`(\w+)`", row.split("|")[2])) == labels, name


async def test_names_follow_the_conventions() -> None:
    found = {name: family for name, family in (await families()).items() if not name.startswith("process_")}
    assert all(re.fullmatch(r"responses_proxy_[a-z_]+", name) for name in found)
    assert all(family.documentation for family in found.values())
    assert all(name.endswith("_seconds") for name, family in found.items() if family.type == "histogram")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
async def test_an_alert_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    known: dict[str, set[str]] = {}
    for family in (await families()).values():
        for sample in family.samples:
            known.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    used = re.findall(r"responses_proxy_\w+", rule["expr"])
    assert used
    allowed = set.union(*(known[name] for name in used))
    labels = re.findall(r"by \(([^)]*)\)", rule["expr"]) + re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
    labels += re.findall(r'(\w+) ?(?:=|!=|=~|!~)"', rule["expr"])
    assert {label for names in labels for label in names.split(", ")} <= allowed
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_the_manual_says_what_to_do_at_every_alert() -> None:
    assert re.findall(r"^\| `(ResponsesProxy\w+)`", OPERATIONS, re.MULTILINE) == [rule["alert"] for rule in RULES]


async def test_words_of_labels_are_in_the_manual() -> None:
    words = set(re.findall(r"`(\w+)`", OPERATIONS))
    assert {*get_args(Outcome), *get_args(Limit)} <= words


async def test_scrapes_at_one_time_share_a_rendering_and_later_ones_do_not() -> None:
    metrics = Prometheus("1", "asyncio")
    first, second = await asyncio.gather(metrics.render(), metrics.render())
    assert first[1] is second[1]
    assert (await metrics.render())[1] is not first[1]


async def test_a_scrape_that_is_given_up_takes_nothing_from_the_other() -> None:
    metrics = Prometheus("1", "asyncio")
    first, second = (asyncio.ensure_future(metrics.render()) for _ in range(2))
    await asyncio.sleep(0)  # both have begun
    first.cancel()
    assert b"build_info" in (await second)[1]


async def test_numbers_beyond_floats_leave_the_metrics_readable() -> None:
    metrics = Prometheus("1", "asyncio")
    metrics.request(Done(endpoint="other", status=200, input=10**400))
    assert b'kind="input"' in (await metrics.render())[1]


async def test_nothing_is_counted_where_metrics_are_off() -> None:
    metrics = Metrics()
    metrics.start()
    count_all(metrics)
    metrics.close()
    assert (await metrics.render())[1] == b""


def test_all_that_can_be_counted_is() -> None:
    offered = {name for name, value in vars(Metrics).items() if callable(value)}
    assert offered <= set(vars(Prometheus))
