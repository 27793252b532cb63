"""``python -m tests.crashes``: so many trials, a table of them, and exit status 1 if one failed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import nullcontext

from tests.crashes.plan import Trial, plan
from tests.crashes.running import list_points, postgres_ledgers, run, sqlite_ledger, table, working
from tests.crashes.scenarios import SCENARIOS
from tests.crashes.trial import LedgerIn, Stage
from tests.crashes.vendors import Vendors


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.crashes", description=__doc__)
    parser.add_argument("--trials", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0, help="which repeats there are")
    parser.add_argument("--workers", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS))
    parser.add_argument("--ledger", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--list", action="store_true", help="the points, and nothing else")
    parser.add_argument("--repeat", metavar="TRIAL", help="do one trial, and keep its folder")
    chosen = parser.parse_args()
    with nullcontext(sqlite_ledger) if chosen.ledger == "sqlite" else postgres_ledgers() as ledger:
        if chosen.repeat:
            return _repeat(Trial.parse(chosen.repeat), ledger)
        return _run(chosen, ledger)


def _run(chosen: argparse.Namespace, ledger: LedgerIn) -> int:
    names: list[str] = chosen.scenario or list(SCENARIOS)
    number = chosen.trials * int(os.environ.get("GPUBROKER_TRIALS", "1"))
    began = time.monotonic()
    with working(chosen.workers, ledger) as workers:
        points, wrong = list_points(workers, names)
        for problem in wrong:
            say(f"FAILED: {problem}")
        if wrong:
            return 1
        if chosen.list:
            for name in names:
                say(name)
                for point, count in points[name].items():
                    say(f"  {count:>4} x {point}")
            return 0
        costs = {name: SCENARIOS[name].cost for name in names}
        repeat = f"python -m tests.crashes --ledger {chosen.ledger} --repeat"
        tallies = run(plan(points, costs, number, chosen.seed), workers, say, repeat)
    took = time.monotonic() - began
    for line in table(points, tallies):
        say(line)
    say(f"{number} trials in {took:.0f} s, {number / took:.2f}/s")
    never = [
        f"{name}: {point}"
        for name in names
        for point in points[name]
        if name in tallies and point not in tallies[name].hit
    ]
    enough = number >= sum(map(len, points.values()))
    if never and enough:
        say(f"{len(never)} points were never reached: " + "; ".join(never[:20]))
    failed = sum(tally.failures for tally in tallies.values())
    return int(bool(failed or (never and enough)))


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def _repeat(trial: Trial, ledger: LedgerIn) -> int:
    vendors = Vendors()
    try:
        verdict = Stage(vendors, ledger).run(trial, keep=True)
    finally:
        vendors.close()
    say(f"{trial}: {'reached' if verdict.reached else 'not reached'}, {verdict.seconds:.1f} s")
    for problem in verdict.problems:
        say(problem)
    return int(bool(verdict.problems))


if __name__ == "__main__":
    sys.exit(main())
