"""The market: hosts with cards, offers of some of these, and prices that move with time.

Everything is worked out from the seed and the moment, so it needs no timer: two emulators with
one seed show the same prices at the same time after their start.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, field
from decimal import Decimal

from gpubroker_vast.emulator.catalogue import CARDS, DRIVERS, PLACES, PROCESSORS, CardModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One physical machine.

    Attributes:
        price: USD per hour and card. storage_cost: USD per GB and month of 720 h.
        traffic: USD per GB, either way.
        ram: MB. disk: GB. The rest is as the vendor's rows have it.
    """

    machine_id: int
    host_id: int
    card: CardModel
    cards: int
    price: Decimal
    storage_cost: Decimal
    traffic: Decimal
    processor: tuple[str, int, float]
    ram: int
    disk: float
    disk_bandwidth: float
    upload: float
    download: float
    driver: tuple[str, int, float]
    place: str
    verification: str
    datacenter: bool
    reliability: float
    ports: int
    static_ip: bool
    external: bool
    days: int


@dataclass(frozen=True, slots=True)
class Ask:
    """One offer: some cards of one host.

    Attributes:
        slots: which of the host's cards, counted from 0.
    """

    id: int
    host: Host
    slots: frozenset[int]

    @property
    def count(self) -> int:
        """How many cards."""
        return len(self.slots)

    @property
    def share(self) -> float:
        """The part of the host's cards."""
        return self.count / self.host.cards


@dataclass(slots=True)
class Market:
    """Offers, who has them, and what they cost.

    Attributes:
        asks: by id.
        start: when the prices began to move, Unix seconds.
        drift: how far prices move, as a part of themselves; 0 keeps them.
        busy: the part of the hosts that others have, changing with time.
        step: seconds for which prices and others' machines stay as they are.
        used: cards that this account's contracts hold: (machine, slot) -> contract.
        taken: offers that somebody else was told to take.
        prices: USD per hour of offers whose price was set.
    """

    seed: int
    asks: dict[int, Ask]
    start: float
    drift: float = 0.0
    busy: float = 0.0
    step: float = 30.0
    used: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    taken: set[int] = field(default_factory=set[int])
    prices: dict[int, Decimal] = field(default_factory=dict[int, Decimal])

    @classmethod
    def make(
        cls,
        seed: int,
        offers: int,
        start: float,
        *,
        drift: float = 0.0,
        busy: float = 0.0,
        step: float = 30.0,
    ) -> Market:
        """A market with about that many offers."""
        chance = random.Random(f"market {seed}")  # noqa: S311 - to be had again
        asks: dict[int, Ask] = {}
        numbers = itertools.count(27_000_000 + chance.randrange(900_000), 137)
        while len(asks) < offers:
            host = _host(chance, len(asks))
            for slots in _slices(host.cards):
                ask = Ask(next(numbers), host, slots)
                asks[ask.id] = ask
        return cls(seed, asks, start, drift, busy, step)

    def price(self, ask: Ask, now: float) -> Decimal:
        """USD per hour for the cards of an offer, without disk."""
        if ask.id in self.prices:
            return self.prices[ask.id]
        price = ask.host.price * ask.count
        if self.drift:
            turn = (now - self.start) / (20 * self.step) + ask.host.machine_id
            noise = self._chance("price", ask.host.machine_id, now).uniform(-1, 1)
            factor = 1 + self.drift * (0.7 * math.sin(turn) + 0.3 * noise)
            price *= Decimal(str(round(factor, 6)))
        return price.quantize(Decimal("0.0000001"))

    def floor(self, ask: Ask, now: float) -> Decimal:
        """The lowest bid for an offer that can win, USD per hour."""
        return (self.price(ask, now) / 2).quantize(Decimal("0.0000001"))

    def free(self, ask: Ask, now: float) -> bool:
        """Whether an offer can be rented at this moment."""
        if ask.id in self.taken:
            return False
        if any((ask.host.machine_id, slot) in self.used for slot in ask.slots):
            return False
        return not self._others_have(ask.host, now)

    def held(self, ask: Ask) -> bool:
        """Whether this account holds cards of the same host."""
        return any((ask.host.machine_id, slot) in self.used for slot in range(ask.host.cards))

    def occupy(self, ask: Ask, contract: int) -> None:
        """Let a contract hold the cards of an offer."""
        for slot in ask.slots:
            self.used[ask.host.machine_id, slot] = contract

    def vacate(self, contract: int) -> None:
        """Take from a contract what it holds."""
        self.used = {slot: holder for slot, holder in self.used.items() if holder != contract}

    def _others_have(self, host: Host, now: float) -> bool:
        mine = any(machine == host.machine_id for machine, _ in self.used)
        if not self.busy or mine:
            return False
        return self._chance("busy", host.machine_id, now).random() < self.busy

    def _chance(self, what: str, machine: int, now: float) -> random.Random:
        turn = int((now - self.start) // self.step)
        return random.Random(f"{what} {self.seed} {machine} {turn}")  # noqa: S311 - as above


def _host(chance: random.Random, number: int) -> Host:
    card = chance.choices(CARDS, [card.weight for card in CARDS])[0]
    datacenter = chance.random() < (0.6 if card.price > 0.6 else 0.2)
    verified = datacenter or chance.random() < 0.75
    price = card.price * chance.uniform(0.8, 1.35) * (1.1 if datacenter else 1)
    processor = chance.choice(PROCESSORS)
    fast = chance.uniform(2000, 9000) if datacenter else chance.uniform(80, 1800)
    return Host(
        machine_id=10_000 + number * 41 + chance.randrange(40),
        host_id=50_000 + chance.randrange(200_000),
        card=card,
        cards=chance.choices((1, 2, 4, 8), (8, 5, 4, 3))[0],
        price=Decimal(str(round(price, 7))),
        storage_cost=Decimal(str(chance.choice((0.08, 0.1, 0.15, 0.2, 0.3)))),
        traffic=Decimal(str(chance.choice((0, 0.001, 0.0026, 0.005, 0.02)))),
        processor=processor,
        ram=chance.choice((64, 128, 256, 512)) * 1007,
        disk=round(chance.uniform(150, 3500), 1),
        disk_bandwidth=round(chance.uniform(800, 6500), 1),
        upload=round(fast * chance.uniform(0.5, 1.0), 1),
        download=round(fast, 1),
        driver=chance.choices(DRIVERS, (1, 3, 5, 3))[0],
        place=chance.choices([place for place, _ in PLACES], [often for _, often in PLACES])[0],
        verification="verified" if verified else chance.choice(("unverified", "deverified")),
        datacenter=datacenter,
        reliability=round(
            1 - chance.expovariate(150) if verified else chance.uniform(0.6, 0.98), 7
        ),
        ports=chance.choice((0, 1, 50, 100, 200, 500)) if not datacenter else 250,
        static_ip=datacenter or chance.random() < 0.4,
        external=False,
        days=chance.randrange(2, 120),
    )


def _slices(cards: int) -> list[frozenset[int]]:
    """All of a host's cards, its halves, and single ones."""
    sizes = {cards, max(cards // 2, 1), 1}
    return [
        frozenset(range(start, start + size))
        for size in sorted(sizes, reverse=True)
        for start in range(0, cards if size > 1 else min(cards, 2), size)
    ]
