from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.model.decisions import Constraint, Verdict
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.policy.matching import reject
from gpubroker.policy.plan import Ranking, Terms, cheapest, plan
from gpubroker.testing import offer

NOW: Final = 1_000_000.0
FACTS: Final = {
    "acme": ProviderFacts(paid=True, ports=True),
    "other": ProviderFacts(paid=True, runs_images=False),
    "own": ProviderFacts(paid=False),
}


def of(provider: str, *args: Any, **parts: Any) -> Offer:
    return replace(offer(*args, **parts), provider=provider)


offers = st.builds(
    of,
    provider=st.sampled_from(sorted(FACTS)),
    gpu=st.sampled_from(["RTX 4090", "H100", None]),
    price=st.decimals("-0.1", 5, places=2).map(Money),
    count=st.integers(1, 3),
    vram=st.none() | st.sampled_from([8.0, 24.0, 80.0]),
    region=st.none() | st.sampled_from(["DE", "US"]),
    spot=st.booleans(),
    expires_at=st.none() | st.sampled_from([NOW - 1, NOW, NOW + 1]),
    host=st.none() | st.sampled_from(["h1", "h2"]),
)
markets = st.lists(offers, max_size=12, unique_by=lambda o: (o.provider, o.id))
wishes = st.builds(
    Requirements,
    gpu=st.sampled_from([(), "4090", ["4090", "H100"]]),
    count=st.none() | st.sampled_from([1, "1..2"]),
    vram=st.none() | st.just(24),
    region=st.sampled_from([(), "DE"]),
    spot=st.sampled_from([None, True, False]),
    max_price=st.none() | st.just("2.50"),
    image=st.none() | st.just("img"),
    exclude=st.sampled_from([(), "other"]),
)
terms = st.builds(
    Terms,
    lifetime=st.none() | st.floats(60, 86_400),
    needed=st.floats(0, 7200),
    left=st.none() | st.decimals(0, 10, places=2).map(Money),
)


def planned(
    *market: Offer,
    wanted: Requirements | None = None,
    bounds: Terms | None = None,
    ranking: Ranking = cheapest,
) -> tuple[Verdict, ...]:
    return plan(market, wanted or Requirements(), FACTS, bounds or Terms(), NOW, ranking)


class TestOrder:
    def test_the_cheapest_that_fits_comes_first(self) -> None:
        """By the hourly price with the disk in it, not by the machine's alone."""
        dear_disk = of("acme", price="0.30", disk_price="0.20", id="dear disk")
        plain = of("acme", price="0.40", id="plain")
        dear = of("acme", price="0.60", id="dear")

        verdicts = planned(dear, dear_disk, plain)

        assert [v.offer.id for v in verdicts] == ["plain", "dear disk", "dear"]
        assert [v.rank for v in verdicts] == [0, 1, 2]
        assert [v.score for v in verdicts] == [0.4, 0.5, 0.6]

    def test_ties_go_by_provider_and_offer(self) -> None:
        """Equal prices are no matter of luck."""
        market = [of("other", id="a"), of("acme", id="b"), of("acme", id="a")]

        verdicts = planned(*market)

        assert [(v.offer.provider, v.offer.id) for v in verdicts] == [
            ("acme", "a"),
            ("acme", "b"),
            ("other", "a"),
        ]

    def test_a_ranking_of_the_callers_decides(self) -> None:
        """Any callable that gives a number; the lowest is tried first."""
        market = [of("acme", price="0.1", vram=24), of("acme", price="9", vram=80)]

        verdicts = planned(*market, ranking=lambda o: -(o.vram or 0))

        assert [v.offer.vram for v in verdicts] == [80, 24]

    @pytest.mark.parametrize("score", [math.nan, None, "cheap"])
    def test_a_ranking_that_gives_no_number_is_named(self, score: Any) -> None:
        """Not-a-number cannot be put in order, so it is the caller's mistake and said to be."""
        with pytest.raises(InvalidValue, match="ranking"):
            planned(of("acme"), ranking=lambda _: score)

    def test_rejected_offers_come_last_with_their_reason(self) -> None:
        """The cheapest of them first: the nearest miss is what people ask about."""
        wanted = Requirements(gpu="H100")
        market = [of("acme", price="2"), of("acme", price="1"), of("acme", "H100", price="9")]

        verdicts = planned(*market, wanted=wanted)

        assert [v.offer.price.hourly for v in verdicts] == [Money(9), Money(1), Money(2)]
        assert [v.rejection and v.rejection.constraint for v in verdicts] == [
            None,
            Constraint.GPU,
            Constraint.GPU,
        ]
        assert verdicts[1].rank is None
        assert verdicts[1].score is None


class TestBudget:
    def test_what_cannot_be_paid_is_rejected_with_both_amounts(self) -> None:
        """The reason says what is left, and what it could cost at the worst."""
        (verdict,) = planned(of("acme", price="10"), bounds=Terms(left=Money("0.05")))

        assert verdict.rejection is not None
        assert str(verdict.rejection) == (
            "budget: wanted $0.05 at most, offered $0.50 at the worst"
        )

    def test_a_set_lifetime_is_what_must_be_paid(self) -> None:
        """Two hours at a dollar do not fit two dollars: the machine also takes time to go."""
        bounds = Terms(lifetime=7200, left=Money(2))

        (verdict,) = planned(of("acme", price="1"), bounds=bounds)

        assert verdict.rejection is not None
        assert verdict.rejection.offered == "$2.033334 at the worst"

    def test_a_requirement_is_named_before_the_budget(self) -> None:
        """More money would not make a misfit fit."""
        (verdict,) = planned(
            of("acme", price="99"), wanted=Requirements(gpu="H100"), bounds=Terms(left=Money(0))
        )

        assert verdict.rejection is not None
        assert verdict.rejection.constraint is Constraint.GPU

    def test_no_limit_rejects_nothing(self) -> None:
        """Without a budget the price alone is no reason."""
        (verdict,) = planned(of("acme", price="9999"))

        assert verdict.rejection is None


class TestProperties:
    @given(markets, wishes, terms, st.randoms(use_true_random=False))
    def test_the_same_offers_give_the_same_plan_in_any_order(
        self, market: list[Offer], wanted: Requirements, bounds: Terms, source: Any
    ) -> None:
        """Which provider answered first decides nothing."""
        shuffled = list(market)
        source.shuffle(shuffled)

        assert planned(*shuffled, wanted=wanted, bounds=bounds) == planned(
            *market, wanted=wanted, bounds=bounds
        )

    @given(markets, wishes, terms)
    def test_nothing_is_ranked_that_does_not_fit(
        self, market: list[Offer], wanted: Requirements, bounds: Terms
    ) -> None:
        """An offer is ranked if and only if nothing speaks against it."""
        for verdict in planned(*market, wanted=wanted, bounds=bounds):
            misfit = reject(verdict.offer, wanted, FACTS[verdict.offer.provider], NOW)
            if verdict.rank is not None:
                assert misfit is None
            else:
                assert verdict.rejection is not None
                assert verdict.rejection == misfit or (
                    verdict.rejection.constraint is Constraint.BUDGET
                )

    @given(markets, wishes, terms)
    def test_every_offer_gets_one_verdict(
        self, market: list[Offer], wanted: Requirements, bounds: Terms
    ) -> None:
        """Nothing is lost, nothing is doubled; ranks count from zero in order of score."""
        verdicts = planned(*market, wanted=wanted, bounds=bounds)
        ranked = [v for v in verdicts if v.rejection is None]

        assert len(verdicts) == len(market)
        assert {id(v.offer) for v in verdicts} == {id(o) for o in market}
        assert [v.rank for v in ranked] == list(range(len(ranked)))
        assert list(verdicts[: len(ranked)]) == ranked
        assert [v.score for v in ranked] == sorted(v.score or 0 for v in ranked)

    @given(markets, wishes)
    def test_less_money_never_makes_an_offer_fit(
        self, market: list[Offer], wanted: Requirements
    ) -> None:
        """What fits with a dollar fits with two."""

        def fitting(left: int) -> set[tuple[str, str]]:
            verdicts = planned(*market, wanted=wanted, bounds=Terms(left=Money(left)))
            return {(v.offer.provider, v.offer.id) for v in verdicts if v.rejection is None}

        assert fitting(1) <= fitting(2)
