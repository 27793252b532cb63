"""``python -m tests.mutants``: plant each mutant by itself, and see which test notices.

python -m tests.mutants                    all of them; 1 if one survives
python -m tests.mutants --only ID ID       some of them
python -m tests.mutants --json             the table as JSON on standard output
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.mutants.mutant import Mutant, NotArmed, planted
from tests.mutants.running import End, Run, clean_copy, mutated_copy, run_suite

_VERDICTS = {
    End.PASSED: "SURVIVED",
    End.FAILED: "caught",
    End.TIMED_OUT: "timed out",  # which counts as caught: unplanted, the suite ends in time
    End.DID_NOT_RUN: "DID NOT RUN",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one mutant; without a run where nothing can notice it."""

    mutant: Mutant
    run: Run | None

    @property
    def verdict(self) -> str:
        """In a word."""
        return "equivalent" if self.run is None else _VERDICTS[self.run.end]

    @property
    def well(self) -> bool:
        """Whether it was noticed, or cannot be."""
        return self.run is None or self.run.end in (End.FAILED, End.TIMED_OUT)

    @property
    def text(self) -> str:
        """The row for people, in two lines."""
        by, seconds = (
            (self.mutant.equivalent, 0.0)
            if self.run is None
            else (self.run.first, self.run.seconds)
        )
        head = f"{self.mutant.id:32} {self.verdict:11} {seconds:5.1f} s"
        return f"{head}  {self.mutant.failure}\n{'':54}{by or ' '.join(self.mutant.suite)}"

    def as_data(self) -> dict[str, object]:
        """The row as plain data."""
        mutant, run = self.mutant, self.run
        return {
            "id": mutant.id,
            "failure": mutant.failure,
            "whose": mutant.whose,
            "suite": list(mutant.suite),
            "verdict": self.verdict,
            "by": mutant.equivalent if run is None else run.first,
            "seconds": 0.0 if run is None else round(run.seconds, 1),
        }


def main() -> int:
    """Do what the command line says; returns the exit code."""
    asked = _arguments()
    try:
        mutants = [m for m in planted() if not asked.only or m.id in asked.only]
        unknown = set(asked.only) - {mutant.id for mutant in mutants}
        if unknown:
            raise NotArmed(f"there is no {', '.join(sorted(unknown))}")
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            say = partial(print, file=sys.stderr if asked.json else sys.stdout, flush=True)
            rows = list(_rows(mutants, Path(folder), asked.jobs, asked.limit, say))
    except NotArmed as problem:
        print(problem, file=sys.stderr)
        return 1
    if asked.json:
        print(json.dumps([row.as_data() for row in rows], indent=2))
    bad = [row.mutant.id for row in rows if not row.well]
    print(f"{len(rows)} mutants, {len(bad)} not noticed {' '.join(bad)}".strip(), file=sys.stderr)
    return 1 if bad else 0


def _rows(
    mutants: list[Mutant], folder: Path, jobs: int, limit: float, say: Callable[[str], None]
) -> Iterable[Row]:
    """Each mutant's row, in their order, told as it comes.

    Raises:
        NotArmed: a suite does not pass where nothing is planted, or a mutant cannot be planted.
    """
    clean = clean_copy(folder / "clean")
    for mutant in mutants:
        mutant.changed(clean)
    suites = list(dict.fromkeys(mutant.suite for mutant in mutants if mutant.suite))
    with ThreadPoolExecutor(jobs) as threads:

        def pass_clean(suite: tuple[str, ...]) -> Run:
            once = run_suite(clean, suite, limit=limit)
            # Some tests are in real time, and fail on a crowded machine: one more try.
            return once if once.end is End.PASSED else run_suite(clean, suite, limit=limit)

        passing = threads.map(pass_clean, suites)
        for suite, alone in zip(suites, passing, strict=True):
            words = " ".join(suite)
            if alone.end is not End.PASSED:
                raise NotArmed(f"with nothing planted, {words} {alone.end}: {alone.first}")
            say(f"{alone.seconds:5.1f} s  {words}")

        def plant(mutant: Mutant) -> Run | None:
            if mutant.equivalent:
                return None
            tree = mutated_copy(clean, folder / str(mutants.index(mutant)), mutant)
            try:
                return run_suite(tree, mutant.suite, limit=limit)
            finally:
                shutil.rmtree(tree, ignore_errors=True)

        for mutant, run in zip(mutants, threads.map(plant, mutants), strict=True):
            row = Row(mutant, run)
            say(row.text)
            yield row


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="ID")
    parser.add_argument("--jobs", type=int, default=2, help="suites at the same time")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds for one suite")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
