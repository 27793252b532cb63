"""Rent the cheapest GPU that can do the job, run the job, bring the results back, give it up.

Everything public is here, in `gpubroker.hookspecs` (the provider contract), in
`gpubroker.transport` (for provider plugins) and in `gpubroker.testing`. Names load at first use,
so importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpubroker.broker import AsyncBroker, ProviderStatus
    from gpubroker.errors import (
        AcquireError,
        AcquireStopped,
        AttemptsExhausted,
        BrokerClosed,
        BrokerError,
        BudgetExceeded,
        CreateUnknown,
        DeadlineExceeded,
        ErrorKind,
        InvalidValue,
        JobError,
        JobFailed,
        LeaseReleased,
        LedgerBusy,
        LedgerError,
        LedgerUnusable,
        MachineLost,
        NoOfferFits,
        ProviderError,
        Scope,
        SetupFailed,
        StaleOwner,
    )
    from gpubroker.hookspecs import (
        CONTRACT_VERSION,
        AccountSettings,
        Emit,
        ProviderPlugin,
        hookimpl,
    )
    from gpubroker.lifecycle.lease import AsyncLease
    from gpubroker.lifecycle.reap import Swept
    from gpubroker.model.decisions import (
        Attempt,
        AttemptState,
        Constraint,
        DecisionRecord,
        ProviderProblem,
        Rejection,
        Verdict,
    )
    from gpubroker.model.events import Event, EventKind
    from gpubroker.model.facts import ProviderFacts
    from gpubroker.model.gpus import gpu_compute_capability, gpu_name, gpu_vram, parse_gpu
    from gpubroker.model.jobs import Job
    from gpubroker.model.leases import LeaseRow, LeaseState, LedgerEvent
    from gpubroker.model.machines import Machine, MachineState, Order
    from gpubroker.model.marks import Mark
    from gpubroker.model.money import Money
    from gpubroker.model.offers import Offer, Price
    from gpubroker.model.ranges import Range
    from gpubroker.model.requirements import Requirements, Setup, TrustTier
    from gpubroker.model.results import (
        JobState,
        Outcome,
        OutputFile,
        ReleaseState,
        Result,
        Timings,
    )
    from gpubroker.plugins import Deadlines, Plugin
    from gpubroker.policy.plan import Ranking, cheapest
    from gpubroker.settings import Budget, Setting, Settings
    from gpubroker.settings import load as load_settings
    from gpubroker.sync import Broker, Lease
    from gpubroker.transport.job_io import JobIO, OutputCallback, Stream
    from gpubroker.transport.receive import ReceivedFile

__version__ = "0.1.0"

_WHERE = {
    "broker": ("AsyncBroker", "ProviderStatus"),
    "errors": (
        "AcquireError",
        "AcquireStopped",
        "AttemptsExhausted",
        "BrokerClosed",
        "BrokerError",
        "BudgetExceeded",
        "CreateUnknown",
        "DeadlineExceeded",
        "ErrorKind",
        "InvalidValue",
        "JobError",
        "JobFailed",
        "LeaseReleased",
        "LedgerBusy",
        "LedgerError",
        "LedgerUnusable",
        "MachineLost",
        "NoOfferFits",
        "ProviderError",
        "Scope",
        "SetupFailed",
        "StaleOwner",
    ),
    "hookspecs": ("CONTRACT_VERSION", "AccountSettings", "Emit", "ProviderPlugin", "hookimpl"),
    "lifecycle.lease": ("AsyncLease",),
    "lifecycle.reap": ("Swept",),
    "model.decisions": (
        "Attempt",
        "AttemptState",
        "Constraint",
        "DecisionRecord",
        "ProviderProblem",
        "Rejection",
        "Verdict",
    ),
    "model.events": ("Event", "EventKind"),
    "model.facts": ("ProviderFacts",),
    "model.gpus": ("gpu_compute_capability", "gpu_name", "gpu_vram", "parse_gpu"),
    "model.jobs": ("Job",),
    "model.leases": ("LeaseRow", "LeaseState", "LedgerEvent"),
    "model.machines": ("Machine", "MachineState", "Order"),
    "model.marks": ("Mark",),
    "model.money": ("Money",),
    "model.offers": ("Offer", "Price"),
    "model.ranges": ("Range",),
    "model.requirements": ("Requirements", "Setup", "TrustTier"),
    "model.results": ("JobState", "Outcome", "OutputFile", "ReleaseState", "Result", "Timings"),
    "plugins": ("Deadlines", "Plugin"),
    "policy.plan": ("Ranking", "cheapest"),
    "settings": ("Budget", "Setting", "Settings", "load_settings"),
    "sync": ("Broker", "Lease"),
    "transport.job_io": ("JobIO", "OutputCallback", "Stream"),
    "transport.receive": ("ReceivedFile",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [  # noqa: PLE0604, RUF022
    "__version__",
    *sorted(_MODULE_OF),
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'gpubroker' has no attribute {name!r}")
    source = "load" if name == "load_settings" else name
    value = getattr(import_module(f"gpubroker.{module}"), source)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
