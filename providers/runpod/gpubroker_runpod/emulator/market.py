"""Stock and prices: how many cards of a type are free in a cloud and a data center.

The catalogue and the orders read the same numbers; the catalogue may read them late.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from gpubroker_runpod.emulator.catalogue import CARDS, PLACES, CardType, Place

SECURE: Final = "SECURE"
COMMUNITY: Final = "COMMUNITY"
CLOUDS: Final = (SECURE, COMMUNITY)

#: USD per hour for a GB of container disk: 0.10 for a month of 730 hours.
DISK_RATE: Final = Decimal("0.10") / 730


@dataclass(frozen=True, slots=True)
class Spot:
    """Where cards are counted: a type in a cloud and a data center."""

    card: str
    cloud: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What machines an order, or a look at the catalogue, is about.

    Attributes:
        count: cards on one machine.
        places: only these data centers; empty: any. countries: likewise.
        cuda: only these versions; empty: any. cuda_from: only this one and later ones.
    """

    cloud: str = SECURE
    count: int = 1
    places: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    cuda: tuple[str, ...] = ()
    cuda_from: str | None = None

    def suits(self, card: CardType, place: Place) -> bool:
        """Whether a data center's hosts with a type of card are meant, full or not."""
        version = place.cuda if card.manufacturer == "NVIDIA" else None
        if self.cuda and version not in self.cuda:
            return False
        if self.cuda_from and (version is None or _number(version) < _number(self.cuda_from)):
            return False
        if self.places and place.id not in self.places:
            return False
        return not self.countries or place.country in self.countries


@dataclass(slots=True)
class Market:
    """The stock of everything, and the prices.

    Attributes:
        stock: free cards. prices: USD per hour for one card, by type and cloud.
    """

    stock: dict[Spot, int]
    prices: dict[tuple[str, str], Decimal]
    _shown: dict[Spot, int] = field(default_factory=dict[Spot, int])
    _shown_at: float = float("-inf")

    @classmethod
    def make(cls, seed: int, scarcity: float) -> Market:
        """A market as it is when the emulator starts."""
        chance = random.Random(f"market {seed}")  # noqa: S311 - to be had again
        stock: dict[Spot, int] = {}
        prices: dict[tuple[str, str], Decimal] = {}
        for card in CARDS:
            for cloud, price in ((SECURE, card.secure), (COMMUNITY, card.community)):
                prices[card.id, cloud] = Decimal(str(price))
                if not price:
                    continue
                for place in chance.sample(PLACES, chance.randint(3, 6)):
                    free = card.stock if chance.random() >= scarcity else 0
                    stock[Spot(card.id, cloud, place.id)] = free
        return cls(stock, prices)

    def free(self, card: CardType, wish: Wish) -> list[Place]:
        """Data centers where an order would find a machine at this moment."""
        return [place for place, cards in self._places(self.stock, card, wish) if cards]

    def sold(self, card: CardType, cloud: str) -> bool:
        """Whether a type of card is sold in a cloud at all."""
        return bool(self.prices[card.id, cloud])

    def take(self, card: CardType, cloud: str, place: str, count: int) -> None:
        """Rent some cards, or give some back: a negative number."""
        spot = Spot(card.id, cloud, place)
        self.stock[spot] = max(self.stock.get(spot, 0) - count, 0)

    def shown(
        self, card: CardType, wish: Wish, now: float, lag: float
    ) -> list[tuple[Place, str, bool]]:
        """Data centers that the catalogue names for a type.

        Returns:
            For each its level of availability, and whether a machine is free by that account.
        """
        if now - self._shown_at >= lag:
            self._shown, self._shown_at = dict(self.stock), now
        return [
            (place, level(cards), bool(cards))
            for place, cards in self._places(self._shown, card, wish)
        ]

    def set(self, matches: Callable[[Spot], bool], cards: int) -> int:
        """Set the stock of some; how many were meant."""
        found = [spot for spot in self.stock if matches(spot)]
        self.stock.update(dict.fromkeys(found, cards))
        return len(found)

    def _places(
        self, stock: Mapping[Spot, int], card: CardType, wish: Wish
    ) -> list[tuple[Place, int]]:
        """Data centers with such machines, and the cards free there; 0 if fewer than wanted."""
        if wish.count > card.most:
            return []
        found: list[tuple[Place, int]] = []
        for place in PLACES:
            cards = stock.get(Spot(card.id, wish.cloud, place.id))
            if cards is not None and wish.suits(card, place):
                found.append((place, cards if cards >= wish.count else 0))
        return found


def level(cards: int) -> str:
    """How the catalogue puts a number of free cards."""
    return "NONE" if cards <= 0 else "LOW" if cards < 6 else "MEDIUM" if cards < 12 else "HIGH"


def card_of(word: str) -> CardType | None:
    """A type of card by its id."""
    return next((card for card in CARDS if card.id == word), None)


def _number(version: str) -> tuple[int, ...]:
    """A CUDA version to be compared: 12.11 comes after 12.2."""
    return tuple(int(part) for part in version.split("."))
