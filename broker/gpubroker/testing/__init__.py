"""Simulation: test what rents GPUs without a cloud, a card, or the time it takes.

- `ScriptedCloud` is a paid provider in memory that does as it was told, with its own books on
  what runs and what it costs; `offer` makes offers for it.
- `run_virtual` and `virtual_backend` run code in virtual time, on asyncio or trio: a simulated
  day takes milliseconds. `VirtualWallClock` is the wall clock that goes with it.
- `sandbox` starts the emulators of all vendors that have one, real HTTP servers with real machines
  behind them, and makes settings that rent from them. It needs the extra ``sandbox``.
- `gpubroker.testing.simulation` runs whole programs that share a ledger under faults drawn from a
  seed, and asks the clouds' books whether every promise was kept.
- `cancel_at` and `count_suspensions` cancel a scenario at each point where it can be cancelled.

trio is needed for its own event loop only; pytest is not needed at all.
"""

from __future__ import annotations

from gpubroker.testing.books import CreateRequest, DestroyRequest, JobRun
from gpubroker.testing.cancellation import cancel_at, count_suspensions
from gpubroker.testing.offers import offer
from gpubroker.testing.sandboxing import Sandbox, sandbox
from gpubroker.testing.scripted import ScriptedCloud, ScriptedPlugin
from gpubroker.testing.virtual_time import (
    VirtualDeadlock,
    VirtualEventLoop,
    VirtualWallClock,
    run_virtual,
    virtual_backend,
    virtual_backends,
)

__all__ = [
    "CreateRequest",
    "DestroyRequest",
    "JobRun",
    "Sandbox",
    "ScriptedCloud",
    "ScriptedPlugin",
    "VirtualDeadlock",
    "VirtualEventLoop",
    "VirtualWallClock",
    "cancel_at",
    "count_suspensions",
    "offer",
    "run_virtual",
    "sandbox",
    "virtual_backend",
    "virtual_backends",
]
