from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import ErrorKind, InvalidValue, Scope
from gpubroker.model.decisions import Constraint, Verdict
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.policy.cooldown import Cooldown, cooling
from gpubroker.policy.estimate import Work
from gpubroker.policy.experience import Experience, Memory
from gpubroker.policy.matching import reject
from gpubroker.policy.plan import Market, Terms, plan
from gpubroker.policy.pricing import lifetime_within
from gpubroker.policy.ranking import (
    Ranking,
    cheapest,
    cheapest_to_finish,
    fastest,
    prefer,
    ranking_of,
    weighted,
)
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


def cooldown(
    provider: str = "acme",
    scope: Scope = Scope.OFFER,
    key: str = "",
    kind: ErrorKind = ErrorKind.CAPACITY,
    lasts: float = 60.0,
) -> Cooldown:
    return Cooldown(
        provider=provider,
        scope=scope,
        key=key,
        kind=kind,
        reason="no",
        failures=1,
        since=NOW - 1,
        until=NOW + lasts,
    )


cooldowns = st.lists(
    st.builds(
        cooldown,
        provider=st.sampled_from(sorted(FACTS)),
        scope=st.sampled_from([Scope.HOST, Scope.MODEL, Scope.REGION, Scope.PROVIDER]),
        key=st.sampled_from(["h1", "h2", "RTX 4090", "DE", ""]),
        kind=st.sampled_from([ErrorKind.CAPACITY, ErrorKind.HOST_BROKEN]),
        lasts=st.sampled_from([-1.0, 0.0, 60.0]),
    ),
    max_size=4,
)
rankings = st.sampled_from(
    [
        cheapest(),
        fastest(),
        cheapest_to_finish(),
        ranking_of("prefer(own), cheapest"),
        weighted((1, cheapest()), (2, fastest())),
        ranking_of(lambda o: -(o.vram or 0.0)),
    ]
)


def planned(
    *market: Offer,
    wanted: Requirements | None = None,
    bounds: Terms | None = None,
    ranking: Ranking | Callable[[Offer], float] | None = None,
    cooling_down: Sequence[Cooldown] = (),
) -> tuple[Verdict, ...]:
    there = Market(offers=[market], facts=FACTS, cooldowns=cooling_down, now=NOW)
    rank = None if ranking is None else ranking_of(ranking)
    return plan(there, [wanted or Requirements()], bounds or Terms(), rank)


class TestOrder:
    def test_the_cheapest_that_fits_comes_first(self) -> None:
        """By the hourly price with the disk in it, not by the machine's alone."""
        dear_disk = of("acme", price="0.30", disk_price="0.20", id="dear disk")
        plain = of("acme", price="0.40", id="plain")
        dear = of("acme", price="0.60", id="dear")

        verdicts = planned(dear, dear_disk, plain)

        assert [v.offer.id for v in verdicts] == ["plain", "dear disk", "dear"]
        assert [v.rank for v in verdicts] == [0, 1, 2]
        assert [v.score for v in verdicts] == [(0.4,), (0.5,), (0.6,)]

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

        def mine(_: Offer) -> Any:
            return score

        with pytest.raises(InvalidValue, match=r"must give 1x-rtx-4090-0\.40 a number") as caught:
            planned(of("acme"), ranking=mine)

        assert caught.value.field == "mine"

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


class TestAlternatives:
    def test_an_earlier_alternative_comes_before_a_later_one(self) -> None:
        """An A100, or else two 4090s: the price decides only among offers of one alternative."""
        big = of("acme", "A100 80GB", price="2")
        pair = of("acme", "RTX 4090", price="0.5", count=2)
        wanted = [Requirements(gpu="A100"), Requirements(gpu="4090", count=2)]

        verdicts = plan(Market(offers=[[big], [pair]], facts=FACTS, now=NOW), wanted, Terms())

        assert [(v.offer.id, v.rank, v.alternative) for v in verdicts] == [
            (big.id, 0, 0),
            (pair.id, 1, 1),
        ]

    def test_each_alternative_is_checked_by_its_own_requirements(self) -> None:
        """What fits the second does not fit the first, and both are said."""
        single = of("acme", "RTX 4090", price="0.5")
        wanted = [Requirements(gpu="A100"), Requirements(gpu="4090")]

        verdicts = plan(Market(offers=[[single], [single]], facts=FACTS, now=NOW), wanted, Terms())

        assert [(v.alternative, v.rejection and v.rejection.constraint) for v in verdicts] == [
            (1, None),
            (0, Constraint.GPU),
        ]


class TestCooldowns:
    def test_what_failed_lately_comes_last(self) -> None:
        """It may work by now, and trying it beats giving up: however cheap, after all the rest."""
        market = [of("acme", price=price, id=price) for price in ("0.1", "0.2", "0.3")]

        verdicts = planned(*market, cooling_down=[cooldown(key="0.1"), cooldown(key="0.2")])

        assert [v.offer.id for v in verdicts] == ["0.3", "0.1", "0.2"]
        assert all(v.rejection is None for v in verdicts)

    def test_a_host_that_did_not_deliver_is_ruled_out(self) -> None:
        """It costs money each time; the reason says what failed, and for how much longer."""
        broken = cooldown(scope=Scope.HOST, key="h1", kind=ErrorKind.HOST_BROKEN, lasts=3600)

        (verdict,) = planned(of("acme", host="h1"), cooling_down=[broken])

        assert str(verdict.rejection) == (
            "cooling down: wanted nothing against it, "
            "offered host failed 1x, left alone for 3600 s more: no"
        )

    def test_a_cooldown_that_is_over_changes_nothing(self) -> None:
        """Neither ruled out nor put last."""
        market = [of("acme", price=price, id=price, host=price) for price in ("0.1", "0.2")]
        over = [
            cooldown(key="0.1", lasts=0),
            cooldown(scope=Scope.HOST, key="0.1", kind=ErrorKind.HOST_BROKEN, lasts=0),
        ]

        assert planned(*market, cooling_down=over) == planned(*market)


class TestEstimates:
    def test_a_ranking_that_asks_for_estimates_has_them_kept(self) -> None:
        """The arithmetic behind each score is part of its verdict."""
        seen = Experience(
            provider="acme", host="h1", image="", tries=9, successes=9, boot_seconds=90, at=NOW
        )
        market = Market(
            offers=[[of("acme", host="h1")]], facts=FACTS, memory=Memory([seen], NOW), now=NOW
        )

        (verdict,) = plan(market, [Requirements()], Terms(), cheapest_to_finish(), Work(60))

        assert verdict.estimate is not None
        assert verdict.estimate.run == 60
        assert verdict.score == (float(verdict.estimate.cost.amount),)

    def test_a_ranking_by_price_makes_none(self) -> None:
        """What nobody asked for is not worked out."""
        (verdict,) = planned(of("acme"), ranking=prefer("acme"))

        assert verdict.estimate is None

    @pytest.mark.parametrize("speed", [math.nan, -1.0, 0.0, 1e-320, math.inf])
    def test_no_bandwidth_that_a_provider_states_spoils_the_plan(self, speed: float) -> None:
        """Not-a-number counts as not stated; the offers of everybody else are still ranked."""
        strange, sound = of("other", download=speed, upload=speed), of("acme")
        market = Market(offers=[[strange, sound]], facts=FACTS, now=NOW)

        verdicts = plan(
            market, [Requirements()], Terms(), fastest(), Work(60, sends=1.0, returns=1.0)
        )

        assert all(v.estimate is not None and v.estimate.transfer >= 0 for v in verdicts)
        assert len(verdicts) == 2


class TestProperties:
    @given(markets, wishes, terms, rankings, cooldowns, st.randoms(use_true_random=False))
    def test_the_same_offers_give_the_same_plan_in_any_order(
        self,
        market: list[Offer],
        wanted: Requirements,
        bounds: Terms,
        ranking: Ranking,
        cooled: list[Cooldown],
        source: Any,
    ) -> None:
        """Which provider answered first decides nothing, whatever the ranking."""
        shuffled = list(market)
        source.shuffle(shuffled)

        assert planned(
            *shuffled, wanted=wanted, bounds=bounds, ranking=ranking, cooling_down=cooled
        ) == planned(*market, wanted=wanted, bounds=bounds, ranking=ranking, cooling_down=cooled)

    @given(markets, wishes, terms, rankings, cooldowns)
    def test_nothing_is_ranked_that_does_not_fit(
        self,
        market: list[Offer],
        wanted: Requirements,
        bounds: Terms,
        ranking: Ranking,
        cooled: list[Cooldown],
    ) -> None:
        """An offer is ranked if and only if nothing speaks against it, and the reason is named."""
        strict = [c for c in cooled if c.strict]
        for verdict in planned(
            *market, wanted=wanted, bounds=bounds, ranking=ranking, cooling_down=cooled
        ):
            facts = FACTS[verdict.offer.provider]
            misfit = reject(verdict.offer, wanted, facts, NOW)
            unaffordable = misfit is None and (
                lifetime_within(
                    verdict.offer.price,
                    facts,
                    wanted=bounds.lifetime,
                    needed=bounds.needed,
                    left=bounds.left,
                )
                is None
            )
            # What is free is never ruled out by a cooldown, since trying it costs nothing.
            broken = cooling(verdict.offer, strict, NOW) if facts.paid else None
            if verdict.rejection is None:
                assert verdict.rank is not None
                assert (misfit, unaffordable, broken) == (None, False, None)
            elif misfit is not None:
                assert verdict.rejection == misfit
            elif unaffordable:
                assert verdict.rejection.constraint is Constraint.BUDGET
            else:
                assert broken is not None
                assert verdict.rejection.constraint is Constraint.COOLING_DOWN

    @given(markets, cooldowns)
    def test_what_cools_down_comes_after_what_does_not(
        self, market: list[Offer], cooled: list[Cooldown]
    ) -> None:
        """Once the first of them is reached, nothing else is left."""
        ranked = [v for v in planned(*market, cooling_down=cooled) if v.rejection is None]
        resting = [cooling(v.offer, cooled, NOW) is not None for v in ranked]

        assert resting == sorted(resting)

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
        assert [v.score for v in ranked] == sorted(v.score or () for v in ranked)

    @given(markets, wishes)
    def test_less_money_never_makes_an_offer_fit(
        self, market: list[Offer], wanted: Requirements
    ) -> None:
        """What fits with a dollar fits with two."""

        def fitting(left: int) -> set[tuple[str, str]]:
            verdicts = planned(*market, wanted=wanted, bounds=Terms(left=Money(left)))
            return {(v.offer.provider, v.offer.id) for v in verdicts if v.rejection is None}

        assert fitting(1) <= fitting(2)
