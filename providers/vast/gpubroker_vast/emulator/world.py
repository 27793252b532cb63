"""Everything one emulator knows."""

from __future__ import annotations

import itertools
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from gpubroker import InvalidValue, Money
from gpubroker.testing.emulation import (
    Answer,
    Books,
    Call,
    DailyQuota,
    FaultSchedule,
    LifeTasks,
    Span,
    Thresholds,
    afflict,
    sum_of,
)
from gpubroker_vast.emulator.contracts import Contract, contract_row
from gpubroker_vast.emulator.instance_faults import INSTANCE_FAULTS
from gpubroker_vast.emulator.lives import Lives
from gpubroker_vast.emulator.market import Market
from gpubroker_vast.emulator.scenarios import Behaviour

#: Older ones are forgotten.
_MOST_RESULTS: Final = 10_000


@dataclass(slots=True)
class AccountKey:
    """One SSH key of the account."""

    id: int
    public: str
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargedItem:
    """One entry of a charge: the times of one kind at one rate, taken together.

    Attributes:
        rate: USD per hour. hours: billed. amount: USD, rounded as it is shown.
        start, end: Unix seconds.
    """

    kind: str
    rate: Decimal
    start: int
    end: int
    hours: float
    amount: Decimal


@dataclass(slots=True)
class World:
    """The account, the market, the contracts, and what they cost.

    Attributes:
        url: where the API is.
        key: the account key. revoked: how a revoked key is refused: a status, or ``None``.
        ssh_keys: of the account, by id.
        leaks: what of a secret came where it must not.
        machine_faults: faults that the next contracts get.
    """

    url: str
    key: str = field(repr=False)
    behaviour: Behaviour
    market: Market
    books: Books
    lives: Lives
    chance: random.Random
    limits: Thresholds
    quota: DailyQuota
    machine_faults: FaultSchedule
    revoked: int | None = None
    ssh_keys: dict[int, AccountKey] = field(default_factory=dict[int, AccountKey])
    leaks: list[str] = field(default_factory=list[str])
    results: dict[str, Callable[[Call], Answer]] = field(
        default_factory=dict[str, Callable[[Call], Answer]]
    )
    contract_ids: Any = field(default_factory=lambda: itertools.count(31_337_042))
    key_ids: Any = field(default_factory=lambda: itertools.count(88_121))

    def credit(self) -> Money:
        """USD left in the account."""
        return Money(str(self.behaviour.credit)) - self.books.total(time.time())

    @property
    def tasks(self) -> LifeTasks:
        """What instances go through."""
        return self.lives.tasks

    def machines(self, now: float) -> Sequence[dict[str, Any]]:
        """Every contract that there ever was."""
        rows: list[dict[str, Any]] = []
        for contract in self.lives.contracts.values():
            row = contract_row(contract, now) | {"destroyed_at": contract.destroyed_at}
            row.pop("jupyter_token")
            rows.append(row)
        return rows

    def afflict(self, machine: str, fault: str, options: dict[str, Any]) -> None:
        """Let a fault happen to an instance.

        Raises:
            InvalidValue: there is no such instance or fault.
        """
        contract = self.lives.contracts.get(int(machine)) if machine.isdigit() else None
        if contract is None:
            raise InvalidValue("instance", machine, "there is no such instance")
        afflict(INSTANCE_FAULTS, self, contract, fault, options)

    async def close(self) -> None:
        """End every instance."""
        await self.lives.close()

    def visible(self, now: float) -> list[Contract]:
        """Contracts that readings show at a moment, in the order of their ids."""
        return [c for c in self.lives.contracts.values() if c.shown_at(now)]

    def owned(self, word: str) -> Contract | None:
        """A contract by its id, unless it was destroyed."""
        contract = self.lives.contracts.get(int(word)) if word.isdigit() else None
        return contract if contract is not None and contract.destroyed_at is None else None

    def publish(self, answer: Callable[[Call], Answer]) -> str:
        """A URL where a result is read by whoever knows it."""
        name = f"{secrets.token_hex(24)}.log"
        self.results[name] = answer
        while len(self.results) > _MOST_RESULTS:
            del self.results[next(iter(self.results))]
        return f"{self.url}/_results/{name}"

    def items(self, contract: str, since: float, until: float) -> list[ChargedItem]:
        """What is shown as charged for one contract between two moments."""
        start, end = round(since * 1e6), round(until * 1e6)
        groups: dict[tuple[str, Decimal], list[Span]] = {}
        for span in self.books.of(contract):
            if span.micros(start, end):
                groups.setdefault((span.item, span.rate), []).append(span)
        return [self._item(spans, start, end) for spans in groups.values()]

    def _item(self, spans: list[Span], start: int, end: int) -> ChargedItem:
        digits = self.behaviour.charge_digits
        exact = sum_of(spans, start, end)
        ends = [end if span.end is None else min(span.end, end) for span in spans]
        return ChargedItem(
            kind=spans[0].item,
            rate=spans[0].rate,
            start=max(min(span.start for span in spans), start) // 1_000_000,
            end=max(ends) // 1_000_000,
            hours=sum(span.micros(start, end) for span in spans) / 3.6e9,
            amount=Decimal(round(exact * 10**digits)).scaleb(-digits),
        )

    def billed(self, machine: str) -> Money:
        """What the charges of one contract come to, once they have settled."""
        amounts = (item.amount for item in self.items(machine, 0.0, time.time()))
        return Money(sum(amounts, Decimal(0)))
