"""The table, and which goals were missed."""

from dataclasses import dataclass
from statistics import median

Results = dict[str, dict[str, list[float]]]
"""Figure -> target -> one value per round."""
FLOOR, JUDGED = "passthrough", "proxy"


@dataclass(frozen=True)
class Figure:
    """One line of the table. A goal is a ratio to the floor if `relative`, else a value; `at_least`: more is better."""

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


FIGURES = [
    Figure("burst_cpu", "burst: CPU us per delta", 1.6, 1.2, peers={"litellm": 100}),
    Figure("paced_cpu", "paced: CPU us per delta", 1.1, 0.8, peers={"litellm": 10}),
    Figure("paced_delivered", "paced: delivered %", 100, None, relative=False, at_least=True),
    Figure("paced_p50", "paced: latency p50 ms", 1.1, 0.8),
    Figure("paced_p99", "paced: latency p99 ms", 1.3, 0.8),
    Figure("capacity_delivered", "350 streams: delivered %", 100, None, relative=False, at_least=True),
    Figure("request_cpu", "CPU us per one-token request", 1.5, 1.2),
    Figure("stream_memory", "memory per open stream KB", 40, 30, relative=False),
    Figure("stalled_memory", "50 stalled readers: growth MB", 25, 15, relative=False),
    Figure("stalled_streams", "50 stalled readers: upstreams that stall", 50, None, relative=False, at_least=True),
]


def ratio(values: list[float], others: list[float]) -> float:
    """The median of the rounds' own ratios: what disturbs a round disturbs both."""
    return median(value / other if other else float("inf") for value, other in zip(values, others, strict=False))


def cell(by_target: dict[str, list[float]], target: str, relative: bool) -> str:
    values = by_target.get(target)
    if not values:
        return "-"
    value = median(values)
    text = f"{value:.3g}" if value < 100 else f"{value:.0f}"
    if not relative or target == FLOOR or FLOOR not in by_target:
        return text
    return f"{text} ({ratio(values, by_target[FLOOR]):.2f}x)"


def table(results: Results, targets: list[str], markdown: bool) -> str:
    targets = [target for target in targets if any(target in by_target for by_target in results.values())]
    rows = [["figure", *targets, "must", "aim"]]
    for figure in FIGURES:
        if by_target := results.get(figure.key):
            cells = (cell(by_target, target, figure.relative) for target in targets)
            rows.append([figure.label, *cells, figure.goal(figure.must), figure.goal(figure.aim)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if markdown:
        rows.insert(1, ["-" * width for width in widths])
    between, edge = (" | ", "| ") if markdown else ("   ", "")
    lines = (between.join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"{edge}{line}{edge[::-1]}".rstrip() for line in lines)


def missed(results: Results) -> list[str]:
    """A sentence for each "must" that the proxy did not reach."""
    sentences = []
    for figure in FIGURES:
        by_target = results.get(figure.key, {})
        if JUDGED not in by_target:
            continue
        mine = by_target[JUDGED]
        if not figure.relative:
            value = median(mine)
        elif FLOOR in by_target:
            value = ratio(mine, by_target[FLOOR])
        else:
            continue
        if not figure.reached(value, figure.must):
            sentences.append(f"{figure.label}: {value:.3g}, must be {figure.goal(figure.must)}")
        for peer, times in (figure.peers or {}).items():
            if peer in by_target and (found := median(by_target[peer]) / median(mine)) < times:
                sentences.append(f"{figure.label}: {peer} needs only {found:.3g} times as much, must be >= {times:g}")
    return sentences
