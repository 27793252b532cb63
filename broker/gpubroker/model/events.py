"""What happens while a broker works, as values handed to a callback."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from gpubroker.model.money import Money


class EventKind(enum.StrEnum):
    """What happened."""

    QUOTING = "quoting"  #: all providers are being asked
    PROVIDER_PROBLEM = "provider problem"  #: one gave no usable answer, or broke its contract
    WAITING = "waiting"  #: for a pause to be over, or for capacity
    ATTEMPT = "attempt"  #: an offer is about to be rented
    ACCEPTED = "accepted"  #: the provider accepted; the machine boots, and bills
    FAILED = "failed"  #: an attempt failed
    BOOTING = "booting"  #: the provider's word on how far booting is
    PROBING = "probing"  #: the machine is asked whether it is what was offered
    SETTING_UP = "setting up"
    READY = "ready"
    SERVING = "serving"  #: a server on the machine is ready
    RUNNING = "running"  #: a job started
    TRANSFERRING = "transferring"  #: how far files have come, once a second at the most
    JOB_ENDED = "job ended"  #: results, if any, are on disk
    RELEASING = "releasing"  #: release requested, durably where the ledger allows
    ACKNOWLEDGED = "acknowledged"  #: the provider accepted the destroy
    PROVEN = "proven"  #: shown to be gone
    SETTLED = "settled"  #: what the vendor billed is on record
    NOTE = "note"  #: what a provider has to say
    FOUND = "found"  #: a sweep found something to act on or to know of
    BUDGET = "budget"  #: so much of a limit has been spent; `Event.alert` says which and how much
    BATCH = "batch"  #: how far a batch has come
    ALARM = "alarm"  #: somebody should look: a machine may go on billing


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAlert:
    """What was really spent has reached a fraction of a limit. Told once in each window.

    Attributes:
        limit: its name, such as ``budget of this day``.
        fraction: the highest one that was reached; 1 is the whole limit.
        amount: USD that the limit allows.
        spent: USD settled, and counted so far of leases that are open.
        committed: USD reserved and spent, together: new leases are refused by this.
        since, until: the half-open window, in Unix seconds, where it has one.
    """

    limit: str
    fraction: float
    amount: Money
    spent: Money
    committed: Money
    since: float | None = None
    until: float | None = None

    def __str__(self) -> str:
        reached = "spent" if self.fraction == 1 else f"{self.fraction:.0%} spent"
        return (
            f"{self.limit}: {reached}: {self.spent} of {self.amount},"
            f" {self.committed} with what is reserved"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened. `at` is Unix seconds; `text` is one sentence for people.

    Attributes:
        alert: of kind ``budget``: which limit, and how full it is.
    """

    at: float
    kind: EventKind
    text: str
    provider: str | None = None
    lease_id: str | None = None
    alert: BudgetAlert | None = None
