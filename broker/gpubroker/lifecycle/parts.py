"""What every driver of one open broker shares."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from gpubroker.errors import InvalidValue
from gpubroker.ledger.access import LedgerAccess
from gpubroker.lifecycle.lease_files import LeaseFiles
from gpubroker.lifecycle.owner import Identity
from gpubroker.lifecycle.readings import Readings
from gpubroker.lifecycle.recall import Recall
from gpubroker.model.events import BudgetAlert, Event, EventKind
from gpubroker.model.marks import Mark
from gpubroker.model.offers import Offer
from gpubroker.plugins import BrokenPlugin, Provider
from gpubroker.policy.budget import Budget, Limits

if TYPE_CHECKING:
    from gpubroker.lifecycle.hold import Hold
    from gpubroker.lifecycle.renting.quoting import Asking

#: Where what a program should log goes, if it logs.
_log: Final = logging.getLogger("gpubroker")


@dataclass(slots=True, kw_only=True)
class Parts:
    """The parts of one open broker.

    Attributes:
        former_ids: ids of ledgers that were lost, whose machines were adopted into this one.
        mark_key_shared: other ledgers may have the same key.
        identity: which process this is, for the owner row.
        now: reads the wall clock, Unix seconds. Waiting goes by the event loop's own clock.
        source: all randomness: ids, marks, jitter.
        budget: the limits that hold for all of it.
        taken: offers of which there is one that this broker rents, or is about to: by provider and
            offer, with the hold once there is one.
        asking: the quotes that are under way.
        files: what heirs need of leases; ``None`` where the ledger has no place on a disk.
        pools: names of the pools that are open here.
        recall: what is remembered of failures and hosts.
        concerns: what is wrong with the ledger, though it can be used.
        broken: plugins that could not be opened, and why.
        blocking: what the watchdog has to say of a provider, by name.
        listeners: called with each event, in order; one that raises is left out from then on.
    """

    ledger: LedgerAccess
    ledger_id: str
    mark_key: bytes
    mark_key_shared: bool = False
    former_ids: set[str] = field(default_factory=set[str])
    identity: Identity
    now: Callable[[], float]
    source: random.Random
    budget: Budget = field(default_factory=Budget)
    providers: dict[str, Provider] = field(default_factory=dict[str, Provider])
    readings: dict[str, Readings] = field(default_factory=dict[str, Readings])
    taken: dict[tuple[str, str], Hold | None] = field(
        default_factory=dict[tuple[str, str], "Hold | None"]
    )
    asking: list[Asking] = field(default_factory=list["Asking"])
    files: LeaseFiles | None = None
    pools: set[str] = field(default_factory=set[str])
    recall: Recall = field(default_factory=Recall)
    concerns: list[str] = field(default_factory=list[str])
    broken: list[BrokenPlugin] = field(default_factory=list[BrokenPlugin])
    blocking: dict[str, str] = field(default_factory=dict[str, str])
    listeners: list[Callable[[Event], None]] = field(default_factory=list[Callable[[Event], None]])

    def emit(
        self,
        kind: EventKind,
        text: str,
        *,
        provider: str | None = None,
        lease_id: str | None = None,
        alert: BudgetAlert | None = None,
    ) -> None:
        """Tell every listener what happened; of budgets, the program's log too."""
        event = Event(
            at=self.now(),
            kind=kind,
            text=text,
            provider=provider,
            lease_id=lease_id,
            alert=alert,
        )
        if alert is not None:
            _log.warning("%s", text)
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a listener must not be able to stop a release
                self.listeners.remove(listener)

    @contextmanager
    def pool(self, name: str, limits: Limits | None) -> Generator[None]:
        """Have a pool of this name open, with limits of its own.

        Raises:
            InvalidValue: there is one already.
        """
        if name in self.pools:
            raise InvalidValue("name", name, "this broker has a pool of that name already")
        tag, before = f"pool:{name}", self.budget.tag
        self.pools.add(name)
        if limits is not None:
            self.budget = replace(self.budget, tag={**before, tag: limits})
        try:
            yield
        finally:
            self.pools.discard(name)
            kept = {key: value for key, value in self.budget.tag.items() if key != tag}
            if tag in before:
                kept[tag] = before[tag]
            self.budget = replace(self.budget, tag=kept)

    def is_taken(self, offer: Offer) -> bool:
        """Whether this broker itself stands in the way of renting an offer."""
        key = (offer.provider, offer.id)
        if key not in self.taken:
            return False
        hold = self.taken[key]
        return hold is None or (
            not hold.left and hold.row.state.open and hold.row.acknowledged_at is None
        )

    def new_id(self, prefix: str) -> str:
        """A short id that is new in this ledger."""
        return f"{prefix}-{self.source.getrandbits(48):012x}"

    def new_mark(self) -> Mark:
        """A mark for one attempt."""
        return Mark.make(self.mark_key, self.ledger_id, self.source.randbytes(10))

    def ours(self, mark: Mark) -> bool:
        """Whether a mark was made with this ledger's key, for this ledger or one that it follows."""
        return self._follows(mark.ledger_id) and mark.verifies(self.mark_key)

    def may_be_in_use(self, ledger_id: str) -> bool:
        """Whether a ledger whose marks were made with our key may have a broker of its own."""
        return self.mark_key_shared and not self._follows(ledger_id)

    def _follows(self, ledger_id: str) -> bool:
        return ledger_id == self.ledger_id or ledger_id in self.former_ids
