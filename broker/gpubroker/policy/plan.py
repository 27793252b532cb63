"""Which offers to try, in which order, and why not the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gpubroker.errors import InvalidValue
from gpubroker.model.decisions import Constraint, Rejection, Verdict
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.money import Money
from gpubroker.model.names import is_a
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.policy.matching import reject
from gpubroker.policy.pricing import lifetime_within, worst_case

Ranking = Callable[[Offer], float]
"""Gives an offer a score; the lowest is tried first."""


def cheapest(offer: Offer) -> float:
    """USD per hour, the disk included."""
    return float(offer.price.hourly.amount)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the machine is to be held for.

    Attributes:
        lifetime: seconds that the caller set, or ``None``.
        needed: seconds that the job needs at the least.
        left: USD that may still be spent, or ``None`` for no limit.
    """

    lifetime: float | None = None
    needed: float = 0.0
    left: Money | None = None


def plan(
    offers: Iterable[Offer],
    requirements: Requirements,
    facts: Mapping[str, ProviderFacts],
    terms: Terms,
    now: float,
    ranking: Ranking = cheapest,
) -> tuple[Verdict, ...]:
    """A verdict on every offer: those that fit, best first, then the others with the reason.

    Ties go by provider and offer id, so that the same offers give the same plan in any order.

    Raises:
        InvalidValue: the ranking gave an offer something else than a number.
    """
    fitting: list[tuple[float, str, str, Offer]] = []
    rejected: list[Verdict] = []
    for offer in offers:
        rejection = reject(offer, requirements, facts[offer.provider], now) or _over_budget(
            offer, facts[offer.provider], terms
        )
        if rejection is None:
            fitting.append((_score(ranking, offer), offer.provider, offer.id, offer))
        else:
            rejected.append(Verdict(offer=offer, rejection=rejection))
    fitting.sort(key=lambda entry: entry[:3])
    rejected.sort(key=lambda v: (v.offer.price.hourly.amount, v.offer.provider, v.offer.id))
    ranked = (
        Verdict(offer=offer, rank=rank, score=score)
        for rank, (score, _, _, offer) in enumerate(fitting)
    )
    return (*ranked, *rejected)


def _score(ranking: Ranking, offer: Offer) -> float:
    score = ranking(offer)
    # Not-a-number has no place in any order: the plan would depend on who answered first.
    if not is_a(score, int, float) or math.isnan(score):
        raise InvalidValue("ranking", score, f"must give {offer.id} a number")
    return score


def _over_budget(offer: Offer, facts: ProviderFacts, terms: Terms) -> Rejection | None:
    lifetime = lifetime_within(
        offer.price, facts, wanted=terms.lifetime, needed=terms.needed, left=terms.left
    )
    if lifetime is not None:
        return None
    cost = worst_case(offer.price, terms.lifetime or max(60.0, terms.needed), facts)
    return Rejection(Constraint.BUDGET, f"{terms.left} at most", f"{cost} at the worst")
