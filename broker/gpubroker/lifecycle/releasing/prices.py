"""The price on delivery, and afterwards: compared with the one that was agreed."""

from __future__ import annotations

from dataclasses import replace

from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.releasing.release import release_margin
from gpubroker.model.events import EventKind
from gpubroker.model.machines import Machine
from gpubroker.policy.pricing import still_held


async def risen(parts: Parts, hold: Hold, machine: Machine, *, until: float) -> str | None:
    """Book a price above the one on record, with an alarm; returns what rose, if anything did.

    What the machine can cost at that price is held from then on, whatever limits say: that is what
    the vendor may bill.

    Args:
        until: Unix seconds at which it is to be given up.
    """
    lease, delivered = hold.row, machine.hourly
    if delivered is None or delivered.micros_up <= lease.hourly.micros_up:
        return None
    text = f"the price rose: agreed on {hold.offer.price.hourly}/h, delivered at {delivered}/h"
    held = still_held(replace(lease, hourly=delivered), release_margin(parts, lease), until)
    hold.update(
        await parts.ledger(
            lambda ledger: ledger.note(
                lease, parts.now(), "price rose", text, hourly=delivered, reserved=held
            )
        )
    )
    parts.emit(EventKind.ALARM, f"{machine.id}: {text}", provider=lease.provider, lease_id=lease.id)
    return text
