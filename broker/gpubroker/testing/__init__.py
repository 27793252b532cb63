"""Simulation: test what rents GPUs without a cloud, a card, or the time it takes.

- `ScriptedCloud` is a paid provider in memory that does as it was told, with its own books on
  what runs and what it costs; `offer` makes offers for it. `Clouds` are several on one clock, and
  the brokers that rent from them; `SCENARIOS` are stories to tell them, by name.
- `tried` and `ruled_out` say what a decision record says, in words that a test can compare.
- `run_virtual` and `virtual_backend` run code in virtual time, on asyncio or trio: a simulated
  day takes milliseconds. `VirtualWallClock` is the wall clock that goes with it.
- `sandbox` starts the emulators of all vendors that have one, real HTTP servers with real machines
  behind them, and makes settings that rent from them. It needs the extra ``sandbox``.
- `gpubroker.testing.pytest_plugin` are fixtures and a marker for pytest; `strategies` and
  `state_machine` are for hypothesis.
- `gpubroker.testing.simulation` runs whole programs that share a ledger under faults drawn from a
  seed, and asks the clouds' books whether every promise was kept.
- `cancel_at` and `count_suspensions` cancel a scenario at each point where it can be cancelled.

trio is needed for its own event loop only; pytest and hypothesis for their modules only. Names load
at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpubroker.testing.books import CreateRequest, DestroyRequest, JobRun
    from gpubroker.testing.cancellation import cancel_at, count_suspensions
    from gpubroker.testing.clouds import Clouds
    from gpubroker.testing.decided import ruled_out, tried
    from gpubroker.testing.offers import offer
    from gpubroker.testing.sandboxing import Sandbox, sandbox
    from gpubroker.testing.scenarios import SCENARIOS, Scenario
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
    "SCENARIOS",
    "Clouds",
    "CreateRequest",
    "DestroyRequest",
    "JobRun",
    "Sandbox",
    "Scenario",
    "ScriptedCloud",
    "ScriptedPlugin",
    "VirtualDeadlock",
    "VirtualEventLoop",
    "VirtualWallClock",
    "cancel_at",
    "count_suspensions",
    "offer",
    "ruled_out",
    "run_virtual",
    "sandbox",
    "tried",
    "virtual_backend",
    "virtual_backends",
]

_MODULE_OF = {
    "CreateRequest": "books",
    "DestroyRequest": "books",
    "JobRun": "books",
    "cancel_at": "cancellation",
    "count_suspensions": "cancellation",
    "Clouds": "clouds",
    "ruled_out": "decided",
    "tried": "decided",
    "offer": "offers",
    "Sandbox": "sandboxing",
    "sandbox": "sandboxing",
    "SCENARIOS": "scenarios",
    "Scenario": "scenarios",
    "ScriptedCloud": "scripted",
    "ScriptedPlugin": "scripted",
    "VirtualDeadlock": "virtual_time",
    "VirtualEventLoop": "virtual_time",
    "VirtualWallClock": "virtual_time",
    "run_virtual": "virtual_time",
    "virtual_backend": "virtual_time",
    "virtual_backends": "virtual_time",
}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'gpubroker.testing' has no attribute {name!r}")
    value = getattr(import_module(f"gpubroker.testing.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
