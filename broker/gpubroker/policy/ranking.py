"""In which order offers are tried.

A ranking gives each offer a score; the lowest is tried first. Rankings compose: ``prefer("local") |
cheapest()`` goes by the first and, where that is equal, by the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from gpubroker.errors import InvalidValue
from gpubroker.model.decisions import Estimate
from gpubroker.model.offers import Offer

Estimates = Callable[[Offer], Estimate]
"""What finishing the job on an offer is expected to take; worked out when it is asked for."""

Score = tuple[float, ...]


class Ranking(Protocol):
    """Gives scores to offers that all fit."""

    @property
    def name(self) -> str:
        """What it is called, in the words that settings use."""
        ...

    def scores(self, offers: Sequence[Offer], estimates: Estimates) -> list[Score]:
        """A score for each offer, in order; all of the same length."""
        ...


class _Composable:
    """Gives a ranking its ``|``."""

    def __or__(self, other: Ranking) -> Then:
        return Then((self, other))  # type: ignore[arg-type]


@dataclass(frozen=True)
class By(_Composable):
    """A ranking by one number per offer."""

    name: str
    key: Callable[[Offer, Estimates], float]

    def scores(self, offers: Sequence[Offer], estimates: Estimates) -> list[Score]:
        """See `Ranking`."""
        key = self.key
        return [(key(offer, estimates),) for offer in offers]


@dataclass(frozen=True)
class Then(_Composable):
    """One ranking after another: the later ones decide between equals."""

    rankings: tuple[Ranking, ...]

    @property
    def name(self) -> str:
        """See `Ranking`."""
        return ", ".join(ranking.name for ranking in self.rankings)

    def scores(self, offers: Sequence[Offer], estimates: Estimates) -> list[Score]:
        """See `Ranking`."""
        columns = [ranking.scores(offers, estimates) for ranking in self.rankings]
        return [
            tuple(part for score in row for part in score) for row in zip(*columns, strict=True)
        ]


@dataclass(frozen=True)
class Weighted(_Composable):
    """A weighted sum of rankings, each as a multiple of its best offer's score."""

    parts: tuple[tuple[float, Ranking], ...]

    def __post_init__(self) -> None:
        for weight, ranking in self.parts:
            if not 0 < weight < math.inf:
                raise InvalidValue("weight", weight, f"of {ranking.name} must be above 0")

    @property
    def name(self) -> str:
        """See `Ranking`."""
        return " + ".join(f"{weight:g}*{ranking.name}" for weight, ranking in self.parts)

    def scores(self, offers: Sequence[Offer], estimates: Estimates) -> list[Score]:
        """See `Ranking`."""
        totals = [0.0] * len(offers)
        for weight, ranking in self.parts:
            column = [score[0] for score in ranking.scores(offers, estimates)]
            # Free offers make the best score 0; any other is then infinitely worse, in effect.
            best = abs(min(column, default=0.0)) or 1e-9
            for index, value in enumerate(column):
                totals[index] += weight * value / best
        return [(total,) for total in totals]


# Not lambdas: equal rankings are equal, and settings can be handed to another process.


def _hourly(offer: Offer, _: Estimates) -> float:
    return offer.price.hourly_usd


def _cost(offer: Offer, estimates: Estimates) -> float:
    return float(estimates(offer).cost.amount)


def _time(offer: Offer, estimates: Estimates) -> float:
    found = estimates(offer)
    return found.seconds / found.chance


@dataclass(frozen=True)
class _Place:
    """How early a provider is named."""

    providers: tuple[str, ...]

    def __call__(self, offer: Offer, _: Estimates) -> float:
        names = self.providers
        return float(names.index(offer.provider) if offer.provider in names else len(names))


def cheapest() -> By:
    """By USD per hour, the disk included."""
    return By("cheapest", _hourly)


def cheapest_to_finish() -> By:
    """By the expected cost of the whole job: boot, set-up, transfer and run, over the chance."""
    return By("cheapest_to_finish", _cost)


def fastest() -> By:
    """By the expected time until the job is done, over the chance that the host works."""
    return By("fastest", _time)


def prefer(*providers: str) -> By:
    """These providers first, in this order; the others after them, all alike."""
    if not providers:
        raise InvalidValue("prefer", (), "needs the name of a provider")
    return By(f"prefer({', '.join(providers)})", _Place(providers))


def weighted(*parts: tuple[float, Ranking]) -> Weighted:
    """A weighted sum: ``weighted((0.7, cheapest()), (0.3, fastest()))``.

    Each score counts as a multiple of the best offer's, so that dollars and seconds add up.
    """
    if not parts:
        raise InvalidValue("weighted", (), "needs at least one ranking")
    return Weighted(parts)


def ranking_of(value: Ranking | Callable[[Offer], float] | str) -> Ranking:
    """A ranking from what callers give: a ranking, a function of an offer, or words.

    Words are those of settings: ``cheapest``, ``fastest``, ``cheapest_to_finish``,
    ``prefer(local)``, ``0.7*cheapest + 0.3*fastest``; several after each other, separated by
    commas.

    Raises:
        InvalidValue: none of these, or unknown words, with the nearest known one.
    """
    if isinstance(value, str):
        terms = [_sum(term) for term in _split(value)]
        return terms[0] if len(terms) == 1 else Then(tuple(terms))
    if hasattr(value, "scores"):
        return cast("Ranking", value)
    if not callable(value):
        raise InvalidValue("rank", value, "must be a ranking, a function of an offer, or words")
    return By(getattr(value, "__name__", "custom"), lambda offer, _: value(offer))


def _split(text: str) -> list[str]:
    """The terms of a text, at the commas outside of parentheses."""
    terms, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            terms.append("")
        else:
            terms[-1] += character
    return [term.strip() for term in terms]


def _sum(text: str) -> Ranking:
    if "*" not in text:
        return _named(text)
    parts: list[tuple[float, Ranking]] = []
    for term in text.split("+"):
        weight, _, name = term.partition("*")
        try:
            parts.append((float(weight), _named(name.strip())))
        except ValueError as error:
            if isinstance(error, InvalidValue):
                raise
            raise InvalidValue("rank", text, f"{weight.strip()!r} is no weight") from None
    return Weighted(tuple(parts))


def _named(name: str) -> Ranking:
    known = {"cheapest": cheapest, "cheapest_to_finish": cheapest_to_finish, "fastest": fastest}
    if name.startswith("prefer(") and name.endswith(")"):
        return prefer(*(part.strip() for part in name[7:-1].split(",") if part.strip()))
    if name not in known:
        raise InvalidValue.unknown("rank", name, [*known, "prefer(…)"], noun="ranking")
    return known[name]()
