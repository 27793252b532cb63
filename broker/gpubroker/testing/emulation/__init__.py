"""What every emulator of a vendor's API is made of.

An emulator is a real HTTP server on loopback with real machines behind it. Here is what is no
vendor's own:

- `EmulatedVendor` is the handle that tests hold, and `ControlApi` the same over HTTP.
- `ApiServer` serves a handler of `Call`s from a thread of its own; a `Dispatcher` finds the
  `Endpoint` that a call is for, and keeps a `RequestRecord` of each.
- `FaultSchedule` says which request meets which fault; `WIRE_FAULTS` are those that any HTTP
  API can have.
- `Affliction`s are faults of single machines; `AFFLICTIONS` are those that any machine can have.
- `Thresholds`, `RateWindows` and `DailyQuota` limit how often one may ask.
- `LifeTasks` are what machines go through; `Books` know exactly what each machine cost.
- `EmulatedMachine` is a machine on a `Ground`: a folder, processes, an SSH server with two ways
  to it; `Cards` are what its ``nvidia-smi`` reports.

It needs the extra ``sandbox``.
"""

from __future__ import annotations

from gpubroker.testing.emulation.afflictions import (
    AFFLICTIONS,
    Affliction,
    Options,
    afflict,
    condition,
    condition_of,
    later,
)
from gpubroker.testing.emulation.cards import Cards
from gpubroker.testing.emulation.control import ControlApi, EmulatedWorld
from gpubroker.testing.emulation.dispatch import Dispatcher, RequestRecord
from gpubroker.testing.emulation.endpoints import Endpoint, find
from gpubroker.testing.emulation.exchange import DROPPED, Answer, Call, Cut
from gpubroker.testing.emulation.faults import (
    WIRE_FAULTS,
    Act,
    Fault,
    FaultRule,
    FaultSchedule,
    flake,
)
from gpubroker.testing.emulation.ground import Ground
from gpubroker.testing.emulation.limits import DailyQuota, RateWindow, RateWindows, Thresholds
from gpubroker.testing.emulation.machine import PUBLIC_KEY, EmulatedMachine
from gpubroker.testing.emulation.metering import Books, Span, sum_of
from gpubroker.testing.emulation.relay import Relay
from gpubroker.testing.emulation.serving import ApiServer
from gpubroker.testing.emulation.ssh import sshd_path
from gpubroker.testing.emulation.tasks import LifeTasks
from gpubroker.testing.emulation.vendor import Assembly, EmulatedVendor, Setup

__all__ = [
    "AFFLICTIONS",
    "DROPPED",
    "PUBLIC_KEY",
    "WIRE_FAULTS",
    "Act",
    "Affliction",
    "Answer",
    "ApiServer",
    "Assembly",
    "Books",
    "Call",
    "Cards",
    "ControlApi",
    "Cut",
    "DailyQuota",
    "Dispatcher",
    "EmulatedMachine",
    "EmulatedVendor",
    "EmulatedWorld",
    "Endpoint",
    "Fault",
    "FaultRule",
    "FaultSchedule",
    "Ground",
    "LifeTasks",
    "Options",
    "RateWindow",
    "RateWindows",
    "Relay",
    "RequestRecord",
    "Setup",
    "Span",
    "Thresholds",
    "afflict",
    "condition",
    "condition_of",
    "find",
    "flake",
    "later",
    "sshd_path",
    "sum_of",
]
