"""Leave out of a failing schedule what it fails without."""

from __future__ import annotations

from gpubroker.testing.simulation.report import Report
from gpubroker.testing.simulation.simulate import simulate


def shrink(report: Report) -> Report:
    """The report of as few faults as break the same promise.

    Args:
        report: of a simulation that failed.
    """
    promise = report.violations[0].promise
    smallest = report
    for number in [number for number, _ in report.schedule.faults]:
        rest = [n for n, _ in smallest.schedule.faults if n != number]
        smaller = simulate(
            report.schedule.seed, report.backend, kind=report.schedule.kind, only_faults=rest
        )
        if any(violation.promise == promise for violation in smaller.violations):
            smallest = smaller
    return smallest
