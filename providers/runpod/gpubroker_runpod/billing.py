"""What the vendor billed, summed up per pod."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from gpubroker import Charge, Money
from gpubroker.rest import rows
from gpubroker_runpod.pods import is_id

_HOUR: Final = 3600


def hours(since: float, until: float) -> tuple[str, str]:
    """The whole hours that cover two moments (Unix time), as the vendor writes moments."""
    first = math.floor(since / _HOUR) * _HOUR
    last = max(first + _HOUR, math.ceil(until / _HOUR) * _HOUR)
    return _moment(first), _moment(last)


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def charges(records: Iterable[object]) -> list[Charge]:
    """One charge per pod, exactly; none for a pod of which a record cannot be read."""
    sums: dict[str, Decimal] = {}
    unreadable: set[str] = set()
    for entry in records:
        row = rows.table(entry) or {}
        pod_id, amount = rows.text(row, "podId"), rows.decimal(row, "totalAmount")
        if not is_id(pod_id):
            continue
        if amount is None:
            unreadable.add(pod_id)
        else:
            sums[pod_id] = sums.get(pod_id, Decimal(0)) + amount
    return [
        Charge(machine_id=pod_id, amount=Money(amount))
        for pod_id, amount in sums.items()
        if pod_id not in unreadable
    ]
