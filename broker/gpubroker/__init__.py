"""Rent the cheapest GPU that can do the job, run the job, bring the results back, give it up.

Everything public is here, in `gpubroker.hookspecs` (the provider contract), in
`gpubroker.transport` and `gpubroker.rest` (for provider plugins) and in `gpubroker.testing`. Names
load at first use, so importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpubroker.broker import AsyncBroker
    from gpubroker.errors import (
        AcquireError,
        AcquireStopped,
        AttemptsExhausted,
        BrokerClosed,
        BrokerError,
        BudgetExceeded,
        ChannelLost,
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
        PoolFull,
        PoolTimeout,
        ProviderError,
        Scope,
        SecretsRefused,
        ServiceFailed,
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
    from gpubroker.lifecycle.leasing.lease import AsyncLease
    from gpubroker.lifecycle.leasing.service import AsyncServer
    from gpubroker.lifecycle.pooling.pool import AsyncPool, AsyncPoolMachine
    from gpubroker.lifecycle.reaping.reap import Swept
    from gpubroker.lifecycle.standing import ProviderStatus
    from gpubroker.model.charges import Charge
    from gpubroker.model.costs import CostLine, Costs
    from gpubroker.model.decisions import (
        Attempt,
        AttemptState,
        Constraint,
        DecisionRecord,
        Estimate,
        ProviderProblem,
        Rejection,
        Verdict,
    )
    from gpubroker.model.events import BudgetAlert, Event, EventKind
    from gpubroker.model.facts import ProviderFacts
    from gpubroker.model.gpus import gpu_compute_capability, gpu_name, gpu_vram, parse_gpu
    from gpubroker.model.jobs import Job
    from gpubroker.model.leases import LeaseRow, LeaseState, LedgerEvent, OnOwnerDeath, ReleaseState
    from gpubroker.model.machines import Machine, MachineState, Order, PlannedJob, Route
    from gpubroker.model.marks import Mark
    from gpubroker.model.money import Money
    from gpubroker.model.offers import Offer, Price
    from gpubroker.model.pools import PoolStatus
    from gpubroker.model.ranges import Range
    from gpubroker.model.requirements import Requirements, Setup, TrustTier
    from gpubroker.model.results import (
        HostIdentity,
        JobState,
        Outcome,
        OutputFile,
        Result,
        Timings,
    )
    from gpubroker.model.services import Service
    from gpubroker.plugins import Deadlines, Plugin
    from gpubroker.policy.budget import AtLimit, Budget, Limits
    from gpubroker.policy.estimate import Work
    from gpubroker.policy.keep_warm import Gap, Gaps, KeepWarm, break_even, fixed, learnt
    from gpubroker.policy.policy import Policy
    from gpubroker.policy.ranking import (
        Ranking,
        cheapest,
        cheapest_to_finish,
        fastest,
        prefer,
        weighted,
    )
    from gpubroker.policy.retry import Retry, Rule, elsewhere, here, stop
    from gpubroker.policy.schedule import Schedule
    from gpubroker.settings import Setting, Settings
    from gpubroker.settings import load as load_settings
    from gpubroker.sync import Broker, Lease, Pool, PoolMachine, Server
    from gpubroker.transport.channel import Channel, Execution
    from gpubroker.transport.job_io import JobIO, OutputCallback, Stream
    from gpubroker.transport.receive import ReceivedFile

__version__ = "0.1.0"

__all__ = [
    "CONTRACT_VERSION",
    "AccountSettings",
    "AcquireError",
    "AcquireStopped",
    "AsyncBroker",
    "AsyncLease",
    "AsyncPool",
    "AsyncPoolMachine",
    "AsyncServer",
    "AtLimit",
    "Attempt",
    "AttemptState",
    "AttemptsExhausted",
    "Broker",
    "BrokerClosed",
    "BrokerError",
    "Budget",
    "BudgetAlert",
    "BudgetExceeded",
    "Channel",
    "ChannelLost",
    "Charge",
    "Constraint",
    "CostLine",
    "Costs",
    "CreateUnknown",
    "DeadlineExceeded",
    "Deadlines",
    "DecisionRecord",
    "Emit",
    "ErrorKind",
    "Estimate",
    "Event",
    "EventKind",
    "Execution",
    "Gap",
    "Gaps",
    "HostIdentity",
    "InvalidValue",
    "Job",
    "JobError",
    "JobFailed",
    "JobIO",
    "JobState",
    "KeepWarm",
    "Lease",
    "LeaseReleased",
    "LeaseRow",
    "LeaseState",
    "LedgerBusy",
    "LedgerError",
    "LedgerEvent",
    "LedgerUnusable",
    "Limits",
    "Machine",
    "MachineLost",
    "MachineState",
    "Mark",
    "Money",
    "NoOfferFits",
    "Offer",
    "OnOwnerDeath",
    "Order",
    "Outcome",
    "OutputCallback",
    "OutputFile",
    "PlannedJob",
    "Plugin",
    "Policy",
    "Pool",
    "PoolFull",
    "PoolMachine",
    "PoolStatus",
    "PoolTimeout",
    "Price",
    "ProviderError",
    "ProviderFacts",
    "ProviderPlugin",
    "ProviderProblem",
    "ProviderStatus",
    "Range",
    "Ranking",
    "ReceivedFile",
    "Rejection",
    "ReleaseState",
    "Requirements",
    "Result",
    "Retry",
    "Route",
    "Rule",
    "Schedule",
    "Scope",
    "SecretsRefused",
    "Server",
    "Service",
    "ServiceFailed",
    "Setting",
    "Settings",
    "Setup",
    "SetupFailed",
    "StaleOwner",
    "Stream",
    "Swept",
    "Timings",
    "TrustTier",
    "Verdict",
    "Work",
    "__version__",
    "break_even",
    "cheapest",
    "cheapest_to_finish",
    "elsewhere",
    "fastest",
    "fixed",
    "gpu_compute_capability",
    "gpu_name",
    "gpu_vram",
    "here",
    "hookimpl",
    "learnt",
    "load_settings",
    "parse_gpu",
    "prefer",
    "stop",
    "weighted",
]

_MODULE_OF = {
    "AccountSettings": "hookspecs",
    "AcquireError": "errors",
    "AcquireStopped": "errors",
    "AsyncBroker": "broker",
    "AsyncLease": "lifecycle.leasing.lease",
    "AsyncServer": "lifecycle.leasing.service",
    "Attempt": "model.decisions",
    "AttemptState": "model.decisions",
    "AttemptsExhausted": "errors",
    "Broker": "sync",
    "BrokerClosed": "errors",
    "BrokerError": "errors",
    "AtLimit": "policy.budget",
    "Budget": "policy.budget",
    "BudgetAlert": "model.events",
    "Costs": "model.costs",
    "CostLine": "model.costs",
    "Limits": "policy.budget",
    "BudgetExceeded": "errors",
    "Channel": "transport.channel",
    "ChannelLost": "errors",
    "Charge": "model.charges",
    "CONTRACT_VERSION": "hookspecs",
    "Constraint": "model.decisions",
    "CreateUnknown": "errors",
    "DeadlineExceeded": "errors",
    "Deadlines": "plugins",
    "DecisionRecord": "model.decisions",
    "Emit": "hookspecs",
    "ErrorKind": "errors",
    "Estimate": "model.decisions",
    "Event": "model.events",
    "EventKind": "model.events",
    "Execution": "transport.channel",
    "HostIdentity": "model.results",
    "InvalidValue": "errors",
    "Job": "model.jobs",
    "JobError": "errors",
    "JobFailed": "errors",
    "JobIO": "transport.job_io",
    "JobState": "model.results",
    "Lease": "sync",
    "LeaseReleased": "errors",
    "LeaseRow": "model.leases",
    "LeaseState": "model.leases",
    "LedgerBusy": "errors",
    "LedgerError": "errors",
    "LedgerEvent": "model.leases",
    "LedgerUnusable": "errors",
    "Machine": "model.machines",
    "MachineLost": "errors",
    "MachineState": "model.machines",
    "Mark": "model.marks",
    "Money": "model.money",
    "NoOfferFits": "errors",
    "Offer": "model.offers",
    "Order": "model.machines",
    "PlannedJob": "model.machines",
    "Outcome": "model.results",
    "OutputCallback": "transport.job_io",
    "OutputFile": "model.results",
    "Plugin": "plugins",
    "Policy": "policy.policy",
    "Price": "model.offers",
    "ProviderError": "errors",
    "ProviderFacts": "model.facts",
    "ProviderPlugin": "hookspecs",
    "ProviderProblem": "model.decisions",
    "ProviderStatus": "lifecycle.standing",
    "Range": "model.ranges",
    "Ranking": "policy.ranking",
    "ReceivedFile": "transport.receive",
    "Rejection": "model.decisions",
    "OnOwnerDeath": "model.leases",
    "ReleaseState": "model.leases",
    "Requirements": "model.requirements",
    "Result": "model.results",
    "Retry": "policy.retry",
    "Route": "model.machines",
    "Rule": "policy.retry",
    "Scope": "errors",
    "SecretsRefused": "errors",
    "Server": "sync",
    "Service": "model.services",
    "ServiceFailed": "errors",
    "Setting": "settings",
    "Settings": "settings",
    "Setup": "model.requirements",
    "SetupFailed": "errors",
    "StaleOwner": "errors",
    "Stream": "transport.job_io",
    "Swept": "lifecycle.reaping.reap",
    "Timings": "model.results",
    "TrustTier": "model.requirements",
    "Verdict": "model.decisions",
    "Work": "policy.estimate",
    "cheapest": "policy.ranking",
    "cheapest_to_finish": "policy.ranking",
    "elsewhere": "policy.retry",
    "fastest": "policy.ranking",
    "gpu_compute_capability": "model.gpus",
    "gpu_name": "model.gpus",
    "gpu_vram": "model.gpus",
    "here": "policy.retry",
    "hookimpl": "hookspecs",
    "load_settings": "settings",
    "parse_gpu": "model.gpus",
    "prefer": "policy.ranking",
    "stop": "policy.retry",
    "weighted": "policy.ranking",
    "PoolFull": "errors",
    "PoolTimeout": "errors",
    "AsyncPool": "lifecycle.pooling.pool",
    "AsyncPoolMachine": "lifecycle.pooling.pool",
    "Pool": "sync",
    "PoolMachine": "sync",
    "PoolStatus": "model.pools",
    "KeepWarm": "policy.keep_warm",
    "Gaps": "policy.keep_warm",
    "break_even": "policy.keep_warm",
    "fixed": "policy.keep_warm",
    "learnt": "policy.keep_warm",
    "Schedule": "policy.schedule",
    "Gap": "policy.keep_warm",
}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'gpubroker' has no attribute {name!r}")
    source = "load" if name == "load_settings" else name
    value = getattr(import_module(f"gpubroker.{module}"), source)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
