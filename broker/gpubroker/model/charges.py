"""What a vendor really billed."""

from __future__ import annotations

from dataclasses import dataclass

from gpubroker.model.money import Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What the vendor billed for one machine, over its whole life so far.

    Attributes:
        machine_id: the vendor's id of the machine.
        amount: USD, everything included: machine, disk, traffic.
    """

    machine_id: str
    amount: Money
