"""What became of one simulation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from gpubroker.testing.simulation.oracle import Violation
from gpubroker.testing.simulation.schedule import Kind, Schedule
from gpubroker.testing.virtual_time import BackendName


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one simulation.

    Attributes:
        log: one line for everything that happened, the same each time.
        violations: the promises that were broken; none, if all is well.
        leases: how many there were. seconds: how long it lasted, in its own time.
    """

    schedule: Schedule
    backend: BackendName
    log: tuple[str, ...]
    violations: tuple[Violation, ...]
    leases: int
    seconds: float

    @property
    def digest(self) -> str:
        """A hash of the log, to compare two runs by."""
        return hashlib.sha256("\n".join(self.log).encode()).hexdigest()

    @property
    def command(self) -> str:
        """What repeats it, byte for byte."""
        numbers = [number for number, _ in self.schedule.faults]
        every = len(numbers) == self.schedule.drawn
        only = "" if every else f" --only-faults {','.join(map(str, numbers)) or 'none'}"
        return f"{command(self.schedule.kind, self.schedule.seed, self.backend)}{only}"


def command(kind: Kind, seed: int, backend: BackendName) -> str:
    """What runs the simulation of a seed."""
    pools = "--pools " if kind == "pools" else ""
    return f"python -m gpubroker.testing.simulation {pools}--seed {seed} --backend {backend}"
