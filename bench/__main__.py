"""Run the benchmark and print its table: see README.md beside this file."""

import argparse
import asyncio
import dataclasses
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench import targets
from bench.client import CHAT, WrongStreamError
from bench.report import Results, missed, tables
from bench.scenarios import FINE, FRESH, SCENARIOS, STEADY, Load, paced, quick, request
from bench.targets import CORES, Process, Target

LATENCIES = ("paced_p50", "paced_p99")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure the proxy against a bare pass-through."
    )
    parser.add_argument("--quick", action="store_true", help="less load and 3 rounds: a first look")
    parser.add_argument("--rounds", type=int, help="rounds of each scenario (default: 7)")
    parser.add_argument(
        "--only",
        default=",".join(SCENARIOS),
        metavar="SCENARIO,...",
        help=f"some of {','.join(SCENARIOS)}; latency is paced",
    )
    parser.add_argument("--targets", metavar="NAME,...", help="some of the targets")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    args = parser.parse_args()
    args.only = [name.replace("latency", "paced") for name in args.only.split(",")]
    if unknown := set(args.only) - set(SCENARIOS):
        parser.error(f"--only {','.join(unknown)}: there are {', '.join(SCENARIOS)}, latency")
    return args


class Bench:
    """One run: the upstream, the targets, the figures so far."""

    def __init__(self, load: Load, direct: Process, folder: Path) -> None:
        self.load, self.direct, self.folder = load, direct, folder
        self.results: Results = defaultdict(lambda: defaultdict(list))
        self.failures = 0

    async def measure(self, scenario: str, process: Process) -> None:
        await process.quiet()
        try:
            figures = await SCENARIOS[scenario](process, self.load)
        except (WrongStreamError, OSError) as error:
            if (status := self.direct.popen.poll()) is not None:
                raise SystemExit(f"The upstream ended with status {status}.") from error
            self.failures += 1
            print(f"{scenario:9} {process.name:16} FAILED: {error}", file=sys.stderr)
            return
        found = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"{scenario:9} {process.name:16} {found}", file=sys.stderr)
        for name, value in figures.items():
            self.results[name][process.name].append(value)

    async def measure_all(self, scenarios: list[str], chosen: list[Target]) -> None:
        async with AsyncExitStack() as stack:
            running = [(target, await stack.enter_async_context(self.warm(target))) for target in chosen]
            for scenario in scenarios:
                rounds = self.load.rounds * 3 if scenario in FINE else self.load.rounds
                for number in range(min(rounds, 3) if scenario in STEADY else rounds):
                    await self.round(scenario, number, [each for each in running if scenario in each[0].scenarios])

    async def round(self, scenario: str, number: int, running: list[tuple[Target, Process]]) -> None:
        """Every target once; backwards every other time, so that none is always the one after another."""
        if scenario == "paced":
            figures = await paced(self.direct, self.load)
            for name in LATENCIES:
                self.results[name][self.direct.name].append(figures[name])
        due = [(target, process) for target, process in running if target.rounds is None or number < target.rounds]
        for target, process in due if number % 2 == 0 else reversed(due):
            if scenario in FRESH:
                async with target.run(self.load.upstream, self.folder) as fresh:
                    await self.measure(scenario, fresh)
            else:
                await self.measure(scenario, process)

    @asynccontextmanager
    async def warm(self, target: Target) -> AsyncIterator[Process]:
        async with target.run(self.load.upstream, self.folder) as process:
            try:
                await request(process, self.load)
            except WrongStreamError as error:
                raise SystemExit(f"{target.name}, first requests: {error}") from error
            yield process


async def main() -> int:
    args = arguments()
    chosen = targets.targets(os.environ.get("PEER", ""))
    if args.targets:
        chosen = [target for target in chosen if target.name in args.targets.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        async with Target("direct", CHAT, targets.upstream).run(0, Path(folder)) as upstream:
            os.sched_setaffinity(upstream.popen.pid, CORES[:-1] or CORES)
            os.sched_setaffinity(0, CORES[:-1] or CORES)
            load = quick(upstream.port) if args.quick else Load(upstream.port)
            if args.rounds:
                load = dataclasses.replace(load, rounds=args.rounds)
            bench = Bench(load, upstream, Path(folder))
            await bench.measure_all(args.only, chosen)
    print(tables(bench.results, args.markdown))
    misses = missed(bench.results)
    for sentence in misses:
        print(f"missed: {sentence}", file=sys.stderr)
    return 1 if bench.failures or (args.check and misses) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
