"""Run the simulation of a seed."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from gpubroker.testing.simulation.determinism import repeatable
from gpubroker.testing.simulation.play import Simulation
from gpubroker.testing.simulation.pooled.play import PooledSimulation
from gpubroker.testing.simulation.pooled.schedule import draw_pooled
from gpubroker.testing.simulation.report import Report
from gpubroker.testing.simulation.schedule import Kind, draw
from gpubroker.testing.virtual_time import BackendName


def simulate(
    seed: int,
    backend: BackendName = "asyncio",
    *,
    kind: Kind = "leases",
    only_faults: Collection[int] | None = None,
) -> Report:
    """Run the simulation of a seed.

    Args:
        kind: what its programs do: ``"leases"``, each for itself; or ``"pools"``, which share one.
        only_faults: the numbers of those faults that are to happen; all where left out.
    """
    with repeatable(backend, seed), _folder() as folder:
        return _simulation(kind, seed, only_faults, backend, folder).run()


def _simulation(
    kind: Kind,
    seed: int,
    only_faults: Collection[int] | None,
    backend: BackendName,
    folder: Path,
) -> Simulation:
    if kind == "pools":
        pooled = draw_pooled(seed)
        if only_faults is not None:
            pooled = pooled.with_faults(only_faults)
        return PooledSimulation(pooled, backend, folder)
    schedule = draw(seed)
    if only_faults is not None:
        schedule = schedule.with_faults(only_faults)
    return Simulation(schedule, backend, folder)


@contextmanager
def _folder() -> Generator[Path]:
    """In memory where that is to be had: nothing there needs to outlive the process."""
    memory = Path("/dev/shm")  # noqa: S108
    parent = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gpubroker-simulation-", dir=parent) as folder:
        yield Path(folder)
