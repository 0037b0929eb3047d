"""The table, and which goals were missed."""

from dataclasses import dataclass
from statistics import median

Results = dict[str, dict[str, list[float]]]
"""Figure -> target -> one value per round."""
FLOOR = "passthrough"


@dataclass(frozen=True)
class Figure:
    """One line of a table. A goal is a ratio to the floor if `relative`, else a value; `at_least`: more is better."""

    key: str
    label: str
    must: float
    aim: float | None
    relative: bool = True
    at_least: bool = False
    peers: dict[str, float] | None = None
    """How many times more each peer must need, at least."""

    def goal(self, limit: float | None) -> str:
        return "" if limit is None else f"{'>=' if self.at_least else '<='} {limit:g}{'x' if self.relative else ''}"

    def reached(self, value: float, limit: float) -> bool:
        return value >= limit if self.at_least else value <= limit


@dataclass(frozen=True)
class Section:
    """One table: its columns, of which `floor` is what the others are compared with, and `judged` must reach goals."""

    title: str
    targets: tuple[str, ...]
    judged: tuple[str, ...]
    figures: tuple[Figure, ...]
    floor: str = FLOOR


SECTIONS = (
    Section(
        "Responses",
        (FLOOR, "proxy", "proxy + uvloop", "litellm", "direct"),
        ("proxy",),
        (
            Figure("burst_cpu", "burst: CPU us per delta", 1.6, 1.2, peers={"litellm": 100}),
            Figure("paced_cpu", "paced: CPU us per delta", 1.1, 0.8, peers={"litellm": 10}),
            Figure("paced_delivered", "paced: delivered %", 100, None, relative=False, at_least=True),
            Figure("paced_p50", "paced: latency p50 ms", 1.1, 0.8),
            Figure("paced_p99", "paced: latency p99 ms", 1.3, 0.8),
            Figure("capacity_delivered", "350 streams: delivered %", 100, None, relative=False, at_least=True),
            Figure("request_cpu", "CPU us per one-token request", 1.5, 1.2),
            Figure("stream_memory", "memory per open stream KB", 40, 30, relative=False),
            Figure("stalled_memory", "50 stalled readers: growth MB", 25, 15, relative=False),
            Figure("stalled_streams", "50 stalled readers: stalled upstreams", 50, None, relative=False, at_least=True),
        ),
    ),
    Section(
        "Chat completions that pass through",
        (FLOOR, "forward", "forward + uvloop", "nginx", "direct"),
        ("forward",),
        (
            Figure("burst_cpu", "burst: CPU us per delta", 1.2, None),
            Figure("paced_cpu", "paced: CPU us per delta", 1.1, 0.8),
            Figure("paced_delivered", "paced: delivered %", 100, None, relative=False, at_least=True),
            Figure("paced_p50", "paced: latency p50 ms", 1.1, None),
            Figure("paced_p99", "paced: latency p99 ms", 1.3, None),
            Figure("request_cpu", "CPU us per one-token request", 1.2, 1),
        ),
    ),
    Section(
        "Routing: 1,000 routes and 100 upstreams, by policy",
        ("proxy", "least_loaded", "affinity"),
        ("least_loaded", "affinity"),
        (Figure("routing_cpu", "CPU us per one-token request", 1.05, None),),
        floor="proxy",
    ),
)


def ratio(values: list[float], others: list[float]) -> float:
    """The median of the rounds' own ratios: what disturbs a round disturbs both."""
    return median(value / other if other else float("inf") for value, other in zip(values, others, strict=False))


def cell(by_target: dict[str, list[float]], target: str, floor: str, relative: bool) -> str:
    values = by_target.get(target)
    if not values:
        return "-"
    value = median(values)
    text = f"{value:.3g}" if value < 100 else f"{value:.0f}"
    if not relative or target == floor or floor not in by_target:
        return text
    return f"{text} ({ratio(values, by_target[floor]):.2f}x)"


def tables(results: Results, markdown: bool) -> str:
    return "\n\n".join(filter(None, (table(results, section, markdown) for section in SECTIONS)))


def table(results: Results, section: Section, markdown: bool) -> str:
    """Empty when none of its own targets has been measured."""
    figures = [figure for figure in section.figures if figure.key in results]
    measured = {target for figure in figures for target in results[figure.key]}
    targets = [target for target in section.targets if target in measured]
    if not set(targets) - {FLOOR, "direct"}:
        return ""
    rows = [["figure", *targets, "must", "aim"]]
    for figure in figures:
        cells = (cell(results[figure.key], target, section.floor, figure.relative) for target in targets)
        rows.append([figure.label, *cells, figure.goal(figure.must), figure.goal(figure.aim)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if markdown:
        rows.insert(1, ["-" * width for width in widths])
    between, edge = (" | ", "| ") if markdown else ("   ", "")
    lines = (between.join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join([f"{section.title}\n", *(f"{edge}{line}{edge[::-1]}".rstrip() for line in lines)])


def missed(results: Results) -> list[str]:
    """A sentence for each "must" that was not reached."""
    return [
        sentence
        for section in SECTIONS
        for target in section.judged
        for figure in section.figures
        if target in results.get(figure.key, {})
        for sentence in failures(figure, target, results[figure.key], section.floor)
    ]


def failures(figure: Figure, target: str, by_target: dict[str, list[float]], floor: str) -> list[str]:
    mine = by_target[target]
    sentences = []
    if not figure.relative or floor in by_target:
        value = ratio(mine, by_target[floor]) if figure.relative else median(mine)
        if not figure.reached(value, figure.must):
            sentences.append(f"{target}, {figure.label}: {value:.3g}, must be {figure.goal(figure.must)}")
    for peer, times in (figure.peers or {}).items():
        if peer in by_target and (found := median(by_target[peer]) / median(mine)) < times:
            sentences.append(f"{figure.label}: {peer} needs only {found:.3g} times as much, must be >= {times:g}")
    return sentences
