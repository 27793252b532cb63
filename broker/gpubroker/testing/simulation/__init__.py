"""Deterministic simulation: the real broker, thousands of times, under everything that goes wrong.

From a seed a world is drawn (vendors, prices, delays), the work in it (programs that share one
ledger), and a schedule of faults: lost answers, late machines, hanging calls, lying lists, revoked
keys, crashes, pauses, jumping clocks, a ledger that cannot be written. It runs in virtual time on
either event loop; then everything heals, a reaper runs, and the vendors' own books are asked
whether every promise was kept::

    report = simulate(123, "trio")
    assert not report.violations, report.command

The same seed gives the same log, byte for byte. ``python -m gpubroker.testing.simulation`` runs
many seeds, and says how to repeat one that fails.
"""

from __future__ import annotations

from gpubroker.testing.simulation.oracle import Violation
from gpubroker.testing.simulation.report import Report
from gpubroker.testing.simulation.schedule import Fault, Schedule, draw
from gpubroker.testing.simulation.simulate import simulate

__all__ = ["Fault", "Report", "Schedule", "Violation", "draw", "simulate"]
