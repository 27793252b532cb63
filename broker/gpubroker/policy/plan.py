"""Which offers to try, in which order, and why not the others."""

from __future__ import annotations

import gc
import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import attrgetter

from gpubroker.errors import InvalidValue
from gpubroker.model.decisions import Constraint, Estimate, Rejection, Verdict
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.money import ZERO, Money
from gpubroker.model.names import is_a
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.policy.cooldown import Cooldown, cooling
from gpubroker.policy.estimate import Work, estimate
from gpubroker.policy.experience import Memory
from gpubroker.policy.matching import Check, checks_of
from gpubroker.policy.pricing import SHORTEST_LIFETIME, lifetime_within, worst_case
from gpubroker.policy.ranking import Ranking, cheapest


@dataclass(frozen=True, slots=True)
class Terms:
    """What the machine is to be held for.

    Attributes:
        lifetime: seconds that the caller set, or ``None``.
        needed: seconds that the job needs at the least.
        left: USD that may still be spent, or ``None`` for no limit. left_with: the same with single
            providers, where that is less.
        reached: there must be a way to it: not all it is to do can be handed over with the order.
    """

    lifetime: float | None = None
    needed: float = 0.0
    left: Money | None = None
    reached: bool = False
    left_with: Mapping[str, Money] = field(default_factory=dict[str, Money])

    def of(self, provider: str) -> Terms:
        """The terms for offers of one provider."""
        return replace(self, left=self.left_with.get(provider, self.left))


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What a plan is made from.

    Attributes:
        offers: for each of the ordered alternatives, the offers that were quoted for it.
        facts: of each provider.
        cooldowns: what is left alone. memory: what was seen of hosts.
        now: Unix seconds.
    """

    offers: Sequence[Iterable[Offer]]
    facts: Mapping[str, ProviderFacts]
    cooldowns: Sequence[Cooldown] = ()
    memory: Memory | None = None
    now: float


def plan(
    market: Market,
    wanted: Sequence[Requirements],
    terms: Terms,
    rank: Ranking | None = None,
    work: Work | None = None,
) -> tuple[Verdict, ...]:
    """A verdict on every offer: those that fit, best first, then the others with the reason.

    The offers of an earlier alternative all come before those of a later one; what is under a
    cooldown comes after what is not. Ties go by provider and offer id, so that the same offers
    give the same plan in any order.

    Raises:
        InvalidValue: the ranking gave an offer something else than numbers.
    """
    with _no_collection():
        return _plan(market, wanted, terms, rank or cheapest(), work or Work())


@contextmanager
def _no_collection() -> Generator[None]:
    """Keep the garbage collector out: a plan makes no cycles, but objects by the ten thousand.

    It would walk through all offers again and again, and a large market would take more than its
    share of time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _plan(
    market: Market,
    wanted: Sequence[Requirements],
    terms: Terms,
    rank: Ranking,
    work: Work,
) -> tuple[Verdict, ...]:
    ranked: list[Verdict] = []
    rejected: list[Verdict] = []
    for alternative, (offers, requirements) in enumerate(zip(market.offers, wanted, strict=True)):
        fitting: list[Offer] = []
        out: list[Verdict] = []
        checks = {
            name: _checks(requirements, facts, market, terms.of(name))
            for name, facts in market.facts.items()
        }
        for offer in offers:
            for check in checks[offer.provider]:
                rejection = check(offer)
                if rejection is not None:
                    out.append(Verdict(offer, None, None, rejection, None, alternative))
                    break
            else:
                fitting.append(offer)
        # By price, then provider, then id: two stable sorts are quicker than one by all three.
        out.sort(key=attrgetter("offer.provider", "offer.id"))
        out.sort(key=attrgetter("offer.price.hourly_usd"))
        rejected += out
        estimates = Estimates(market, requirements, work)
        ordered = _ordered(fitting, rank, estimates)
        if market.cooldowns:
            # What failed a while ago comes last: trying it beats giving up.
            ordered.sort(key=lambda row: cooling(row[1], market.cooldowns, market.now) is not None)
        for score, offer in ordered:
            made = estimates.of(offer)
            ranked.append(Verdict(offer, len(ranked), score, None, made, alternative))
    return (*ranked, *rejected)


class Estimates:
    """What finishing the job is expected to cost, worked out for the offers it is asked for."""

    def __init__(self, market: Market, requirements: Requirements, work: Work) -> None:
        self._market = market
        self._requirements = requirements
        self._work = work
        self._memory = market.memory or Memory((), market.now)
        self.made: dict[str, Estimate] = {}

    def __call__(self, offer: Offer) -> Estimate:
        """The estimate for one offer."""
        key = f"{offer.provider}/{offer.id}"
        if key not in self.made:
            facts = self._market.facts[offer.provider]
            self.made[key] = estimate(offer, self._requirements, self._work, facts, self._memory)
        return self.made[key]

    def of(self, offer: Offer) -> Estimate | None:
        """The estimate for one offer, if it was asked for."""
        return self.made.get(f"{offer.provider}/{offer.id}") if self.made else None


def _ordered(
    offers: list[Offer], rank: Ranking, estimates: Estimates
) -> list[tuple[tuple[float, ...], Offer]]:
    scores = rank.scores(offers, estimates)
    rows: list[tuple[tuple[float, ...], str, str, Offer]] = []
    for score, offer in zip(scores, offers, strict=True):
        for part in score:
            # Not-a-number has no place in any order: the plan would depend on who answered first.
            if not is_a(part, int, float) or math.isnan(part):
                raise InvalidValue(rank.name, part, f"must give {offer.id} a number")
        rows.append((score, offer.provider, offer.id, offer))
    rows.sort(key=lambda row: row[:3])
    return [(row[0], row[3]) for row in rows]


def _checks(
    requirements: Requirements, facts: ProviderFacts, market: Market, terms: Terms
) -> tuple[Check, ...]:
    """Everything that can speak against an offer of one provider, in order."""
    checks = checks_of(requirements, facts, market.now)
    if terms.reached and facts.ssh:
        checks = (*checks, _reached)
    if terms.left is not None:
        checks = (*checks, _budget(facts, terms))
    strict = [c for c in market.cooldowns if c.strict and c.until > market.now]
    if strict and facts.paid:  # another try at what is free costs nothing
        checks = (*checks, _cooldowns(strict, market.now))
    return checks


def _reached(offer: Offer) -> Rejection | None:
    if offer.ssh:
        return None
    wanted = "a way for files, outputs, secrets or several jobs"
    return Rejection(Constraint.SSH, wanted, "none for certain")


def _cooldowns(strict: Sequence[Cooldown], now: float) -> Check:
    return lambda offer: _left_alone(offer, strict, now)


def _budget(facts: ProviderFacts, terms: Terms) -> Check:
    affordable = _affordable(facts, terms)

    def check(offer: Offer) -> Rejection | None:
        price = offer.price
        within = price.hourly_usd <= affordable and price.traffic is ZERO
        return None if within else _over_budget(offer, facts, terms)

    return check


def _affordable(facts: ProviderFacts, terms: Terms) -> float:
    """USD per hour below which any offer is within what is left; above, it is worked out."""
    if terms.left is None:
        return math.inf
    seconds = terms.lifetime or max(SHORTEST_LIFETIME, terms.needed)
    billed = seconds + facts.release_margin + facts.billing_quantum
    return float(terms.left.amount) * 3600.0 / billed * 0.999


def _over_budget(offer: Offer, facts: ProviderFacts, terms: Terms) -> Rejection | None:
    lifetime = lifetime_within(
        offer.price, facts, wanted=terms.lifetime, needed=terms.needed, left=terms.left
    )
    if lifetime is not None:
        return None
    shortest = terms.lifetime or max(SHORTEST_LIFETIME, terms.needed)
    cost = worst_case(offer.price, shortest, facts)
    return Rejection(Constraint.BUDGET, f"{terms.left} at most", f"{cost} at the worst")


def _left_alone(offer: Offer, cooldowns: Sequence[Cooldown], now: float) -> Rejection | None:
    found = cooling(offer, cooldowns, now)
    if found is None:
        return None
    said = f"{found.scope} failed {found.failures}x, left alone for {found.until - now:.0f} s more"
    return Rejection(Constraint.COOLING_DOWN, "nothing against it", f"{said}: {found.reason}")
