"""Many simulations in parallel processes, with one line about them now and then."""

from __future__ import annotations

import logging
import multiprocessing
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gpubroker.testing.simulation.report import Report, command
from gpubroker.testing.simulation.schedule import Kind
from gpubroker.testing.simulation.simulate import simulate
from gpubroker.testing.virtual_time import BackendName

#: Lines of the log that are shown of a failure.
TAIL: Final = 40


@dataclass(frozen=True, slots=True)
class Task:
    """One simulation to be run."""

    seed: int
    backend: BackendName
    kind: Kind = "leases"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the parallel processes send back; `failure` is empty where all is well."""

    failure: str
    faults: int
    leases: int
    seconds: float


def hush() -> None:
    """Keep the brokers' own log off the screen: what they say is in that of the simulation."""
    logging.getLogger("gpubroker").addHandler(logging.NullHandler())


def verdict(report: Report) -> str:
    """What became of one, and how to repeat it if a promise was broken."""
    if not report.violations:
        return (
            f"seed {report.schedule.seed} on {report.backend}: every promise kept, "
            f"{report.leases} leases in {report.seconds:.0f} s"
        )
    lines = "".join(f"\n  {violation}" for violation in report.violations)
    return f"seed {report.schedule.seed} on {report.backend} broke a promise:{lines}\nrepeat it: {report.command}"


def run_many(tasks: Sequence[Task], jobs: int) -> int:
    """Run them all, print what fails and how it goes on; returns the exit status."""
    began, shown = time.monotonic(), 0.0
    failed = done = faults = leases = 0
    days = 0.0
    for answer in _answers(tasks, jobs):
        done, faults, leases = done + 1, faults + answer.faults, leases + answer.leases
        days += answer.seconds / 86_400
        if answer.failure:
            failed += 1
            print(answer.failure, flush=True)
        passed = time.monotonic() - began
        if passed - shown >= 10.0 or done == len(tasks):
            shown = passed
            print(
                f"{done} of {len(tasks)} schedules, {done / passed:.1f}/s; {failed} failed; "
                f"{faults} faults, {leases} leases, {days:.1f} days simulated",
                flush=True,
            )
    return 1 if failed else 0


def _answers(tasks: Sequence[Task], jobs: int) -> Iterable[_Answer]:
    if jobs == 1:
        yield from map(_answer, tasks)
        return
    # Fresh interpreters: a fork of one with threads would be no place to start from.
    with multiprocessing.get_context("spawn").Pool(jobs, hush, maxtasksperchild=2000) as pool:
        yield from pool.imap_unordered(_answer, tasks, chunksize=8)


def _answer(task: Task) -> _Answer:
    try:
        report = simulate(task.seed, task.backend, kind=task.kind)
    except Exception:  # noqa: BLE001 - named with its seed, and the others go on
        again = command(task.kind, task.seed, task.backend)
        return _Answer(f"{traceback.format_exc()}repeat it: {again}", 0, 0, 0.0)
    failure = ""
    if report.violations:
        failure = "\n".join([*report.log[-TAIL:], verdict(report)])
    return _Answer(failure, len(report.schedule.faults), report.leases, report.seconds)
