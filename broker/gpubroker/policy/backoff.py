"""How long to wait before trying again."""

from __future__ import annotations

import random

from gpubroker.errors import ErrorKind

QUARANTINE_AFTER = 60.0
"""Seconds of failed releases after which a lease is quarantined and an alarm raised."""


def delay(
    failures: int,
    source: random.Random,
    *,
    first: float = 1.0,
    cap: float = 60.0,
    retry_after: float | None = None,
) -> float:
    """Seconds to wait after the `failures`-th failure in a row (1 is the first).

    Exponential with full jitter, never below a tenth of a second; what the provider asked for is
    obeyed, five minutes of it at the most.
    """
    ceiling = min(cap, first * 2.0 ** min(failures - 1, 30))
    waiting = source.uniform(0.1, max(0.1, ceiling))
    return waiting if retry_after is None else max(waiting, min(max(retry_after, 0.0), 300.0))


def quarantines(kind: ErrorKind, failing_for: float) -> bool:
    """Whether a release that fails with `kind`, for so many seconds now, is an alarm.

    A refused key is one at once: trying again will not mend it without somebody's help.
    """
    return kind is ErrorKind.AUTH or failing_for >= QUARANTINE_AFTER
