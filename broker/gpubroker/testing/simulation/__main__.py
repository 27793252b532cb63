"""The command ``python -m gpubroker.testing.simulation``: one seed, or many in parallel."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gpubroker.testing.simulation.many import TAIL, Task, hush, run_many, verdict
from gpubroker.testing.simulation.shrink import shrink
from gpubroker.testing.simulation.simulate import simulate
from gpubroker.testing.virtual_time import BackendName


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = _parser().parse_args(arguments)
    hush()
    backends: list[BackendName] = (
        ["asyncio", "trio"] if given.backend == "both" else [given.backend]
    )
    if given.schedules == 1:
        return max(_one(given, backend) for backend in backends)
    tasks = [
        Task(given.seed + number, backends[number % len(backends)], given.kind)
        for number in range(given.schedules)
    ]
    return run_many(tasks, given.jobs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gpubroker.testing.simulation",
        description="Simulate brokers under drawn faults, and ask the vendors' books.",
    )
    parser.add_argument("--seed", type=int, default=0, help="the seed, or the first of many")
    parser.add_argument("--backend", choices=["asyncio", "trio", "both"], default="both")
    parser.add_argument("--schedules", type=int, default=1, help="how many seeds, one by one")
    parser.add_argument(
        "--pools",
        dest="kind",
        action="store_const",
        const="pools",
        default="leases",
        help="programs that share a pool, instead of leases of their own",
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes in parallel")
    parser.add_argument("--shrink", action="store_true", help="leave out faults while it fails")
    parser.add_argument("--only-faults", help="numbers of the faults that happen, or none")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the whole log")
    return parser


def _one(given: argparse.Namespace, backend: BackendName) -> int:
    only = None
    if given.only_faults is not None:
        words = given.only_faults.replace("none", "").split(",")
        only = [int(word) for word in words if word]
    report = simulate(given.seed, backend, kind=given.kind, only_faults=only)
    if report.violations and given.shrink:
        report = shrink(report)
    print("\n".join(report.schedule.described()))
    if given.verbose:
        print("\n".join(report.log))
    elif report.violations:
        print("\n".join(report.log[-TAIL:]))
    print(verdict(report))
    print(f"log: {len(report.log)} lines, sha256 {report.digest}")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
