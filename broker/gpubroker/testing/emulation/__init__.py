"""What every emulator of a vendor's API is made of.

An emulator is a real HTTP server on loopback with real machines behind it. Here is what is no
vendor's own:

- `ApiServer` serves a handler of `Call`s from a thread of its own; a `Dispatcher` finds the
  `Endpoint` that a call is for, and keeps a `RequestRecord` of each.
- `FaultSchedule` says which request meets which fault; `WIRE_FAULTS` are those that any HTTP
  API can have.
- `Thresholds` and `DailyQuota` limit how often one may ask.
- `Books` know exactly what each machine cost.
- `EmulatedMachine` is a machine on a `Ground`: a folder, processes, an SSH server with two ways
  to it; `Cards` are what its ``nvidia-smi`` reports.

It needs the extra ``sandbox``.
"""

from __future__ import annotations

from gpubroker.testing.emulation.cards import Cards
from gpubroker.testing.emulation.dispatch import Dispatcher, RequestRecord
from gpubroker.testing.emulation.endpoints import Endpoint, find
from gpubroker.testing.emulation.exchange import DROPPED, Answer, Call
from gpubroker.testing.emulation.faults import WIRE_FAULTS, Act, Fault, FaultRule, FaultSchedule
from gpubroker.testing.emulation.ground import Ground
from gpubroker.testing.emulation.limits import DailyQuota, Thresholds
from gpubroker.testing.emulation.machine import EmulatedMachine
from gpubroker.testing.emulation.metering import Books, Span, sum_of
from gpubroker.testing.emulation.relay import Relay
from gpubroker.testing.emulation.serving import ApiServer
from gpubroker.testing.emulation.ssh import sshd_path

__all__ = [
    "DROPPED",
    "WIRE_FAULTS",
    "Act",
    "Answer",
    "ApiServer",
    "Books",
    "Call",
    "Cards",
    "DailyQuota",
    "Dispatcher",
    "EmulatedMachine",
    "Endpoint",
    "Fault",
    "FaultRule",
    "FaultSchedule",
    "Ground",
    "Relay",
    "RequestRecord",
    "Span",
    "Thresholds",
    "find",
    "sshd_path",
    "sum_of",
]
