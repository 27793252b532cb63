from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.model.decisions import Estimate
from gpubroker.model.money import ZERO, Money
from gpubroker.model.offers import Offer
from gpubroker.policy.ranking import (
    By,
    Ranking,
    Then,
    cheapest,
    cheapest_to_finish,
    fastest,
    prefer,
    ranking_of,
    weighted,
)
from gpubroker.testing import offer


def of(name: str, price: str = "1", *, run: float = 60.0, provider: str = "acme") -> Offer:
    """An offer on which the job takes `run` seconds, which its estimate is made from."""
    return replace(offer(id=name, price=price), provider=provider, extra={"run": str(run)})


def estimates(what: Offer) -> Estimate:
    run = float(what.extra["run"])
    cost = what.price.hourly * run / 3600
    return Estimate(0.0, 0.0, 0.0, run, ZERO, 0.5, cost)


def by_length(what: Offer) -> float:
    return len(what.id)


def order(ranking: Ranking | Callable[[Offer], float] | str, *offers: Offer) -> list[str]:
    scores = ranking_of(ranking).scores(offers, estimates)
    paired = zip(scores, offers, strict=True)
    return [what.id for _, what in sorted(paired, key=lambda pair: (pair[0], pair[1].id))]


CHEAP: Final = of("cheap", "1", run=400)
QUICK: Final = of("quick", "3", run=100)
OWN: Final = of("own", "2", run=300, provider="own")
ALL: Final = (QUICK, OWN, CHEAP)

markets = st.lists(
    st.builds(
        of,
        name=st.text("abc", min_size=1, max_size=3),
        price=st.decimals(0, 9, places=2).map(str),
        run=st.floats(0, 1e5),
        provider=st.sampled_from(["acme", "own", "other"]),
    ),
    max_size=8,
    unique_by=lambda what: what.id,
)
simple = st.sampled_from(
    [cheapest(), cheapest_to_finish(), fastest(), prefer("own"), ranking_of(by_length)]
)


class TestEach:
    @pytest.mark.parametrize(
        ("ranking", "expected"),
        [
            (cheapest(), ["cheap", "own", "quick"]),
            (fastest(), ["quick", "own", "cheap"]),
            (cheapest_to_finish(), ["quick", "cheap", "own"]),
            (prefer("own") | cheapest(), ["own", "cheap", "quick"]),
            (prefer("own") | prefer("acme") | fastest(), ["own", "quick", "cheap"]),
            (prefer("other", "acme") | cheapest(), ["cheap", "quick", "own"]),
            (weighted((0.9, cheapest()), (0.1, fastest())), ["cheap", "own", "quick"]),
            (weighted((0.1, cheapest()), (0.9, fastest())), ["quick", "own", "cheap"]),
            (by_length, ["own", "cheap", "quick"]),
        ],
    )
    def test_each_ranking_puts_its_own_best_first(
        self, ranking: Ranking | Callable[[Offer], float], expected: list[str]
    ) -> None:
        """One is cheap, one is quick, one belongs to the caller."""
        assert order(ranking, *ALL) == expected

    def test_the_hourly_price_has_the_disk_in_it(self) -> None:
        """The machine alone is never what is paid."""
        dear_disk = replace(offer(id="disk", price="0.3", disk_price="0.2"), provider="acme")

        assert order(cheapest(), dear_disk, of("plain", "0.4")) == ["plain", "disk"]

    def test_time_counts_over_the_chance(self) -> None:
        """A host that works every other time takes twice as long, as far as one can expect."""
        assert fastest().scores([CHEAP], estimates) == [(800.0,)]

    def test_estimates_are_asked_for_only_where_they_are_needed(self) -> None:
        """Thousands of offers are put in order by price without any arithmetic."""

        def none(what: Offer) -> Estimate:
            raise AssertionError(what)

        ranking = prefer("own") | cheapest() | ranking_of(by_length)

        assert len(ranking.scores(ALL, none)) == 3


class TestComposition:
    @given(markets, simple, simple)
    def test_a_later_ranking_decides_only_between_equals(
        self, market: list[Offer], first: Ranking, second: Ranking
    ) -> None:
        """``first | second`` never contradicts ``first``."""
        both = Then((first, second)).scores(market, estimates)
        firsts, seconds = first.scores(market, estimates), second.scores(market, estimates)

        assert both == [(*one, *other) for one, other in zip(firsts, seconds, strict=True)]
        ordered = sorted(range(len(market)), key=lambda index: both[index])
        assert [firsts[index] for index in ordered] == sorted(firsts)

    @given(markets, simple, st.floats(0.01, 100))
    def test_one_ranking_weighted_alone_is_that_ranking(
        self, market: list[Offer], ranking: Ranking, weight: float
    ) -> None:
        """A weight changes no order by itself."""
        plain = [score for (score,) in ranking.scores(market, estimates)]
        heavy = [score for (score,) in weighted((weight, ranking)).scores(market, estimates)]

        for one, other in zip(plain, heavy, strict=True):
            assert all((a < one) <= (b <= other) for a, b in zip(plain, heavy, strict=True))

    @given(markets, simple, simple)
    def test_what_is_better_by_both_is_better_by_their_sum(
        self, market: list[Offer], first: Ranking, second: Ranking
    ) -> None:
        """A weighted sum respects what its parts agree on."""
        total = weighted((1, first), (2, second)).scores(market, estimates)
        parts = [
            (*one, *other)
            for one, other in zip(
                first.scores(market, estimates), second.scores(market, estimates), strict=True
            )
        ]

        for score, part in zip(total, parts, strict=True):
            for other_score, other in zip(total, parts, strict=True):
                if all(a <= b for a, b in zip(part, other, strict=True)):
                    assert score <= other_score

    def test_the_most_of_something_may_be_weighted_too(self) -> None:
        """A function that is negative where more is better keeps its order in a sum."""
        small, big = replace(CHEAP, id="small", vram=24.0), replace(CHEAP, id="big", vram=80.0)
        most = ranking_of(lambda what: -(what.vram or 0.0))

        assert order(most, small, big) == ["big", "small"]
        assert order(weighted((1.0, most)), small, big) == ["big", "small"]
        assert order(weighted((0.5, most), (0.5, cheapest())), small, big) == ["big", "small"]

    def test_free_machines_come_first_in_a_sum(self) -> None:
        """Nothing is a multiple of nothing; any price is then far behind."""
        free = of("free", "0", run=900)

        assert order(weighted((0.9, cheapest()), (0.1, fastest())), free, QUICK)[0] == "free"

    @given(markets, simple)
    def test_each_offer_gets_its_own_score_in_any_order(
        self, market: list[Offer], ranking: Ranking
    ) -> None:
        """Who stands beside it has no part in a plain ranking."""
        there = ranking.scores(market, estimates)
        back = ranking.scores(market[::-1], estimates)

        assert there == back[::-1]
        assert ranking.scores([], estimates) == []


class TestWords:
    @pytest.mark.parametrize(
        ("words", "name"),
        [
            ("cheapest", "cheapest"),
            (" fastest ", "fastest"),
            ("cheapest_to_finish", "cheapest_to_finish"),
            ("prefer(own)", "prefer(own)"),
            ("prefer( own ,acme), cheapest", "prefer(own, acme), cheapest"),
            ("0.7*cheapest + 0.3*fastest", "0.7*cheapest + 0.3*fastest"),
            ("prefer(own), 2*cheapest+1*fastest", "prefer(own), 2*cheapest + 1*fastest"),
        ],
    )
    def test_words_name_a_ranking_and_its_name_is_the_words(self, words: str, name: str) -> None:
        """What the record says can be written into the settings again."""
        ranking = ranking_of(words)

        assert ranking.name == name
        assert ranking_of(name).name == name
        assert order(name, *ALL) == order(words, *ALL)

    def test_a_ranking_is_itself_and_a_function_has_its_name(self) -> None:
        """Any callable will do; one without a name is called custom."""
        ranking = cheapest()
        named, unnamed = ranking_of(by_length), ranking_of(_Callable())

        assert ranking_of(ranking) is ranking
        assert (named.name, unnamed.name) == ("by_length", "custom")
        assert named.scores([CHEAP], estimates) == [(5,)]

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            ("cheapst", "unknown ranking; did you mean 'cheapest'"),
            ("Fastest", "did you mean 'fastest'"),
            ("prefer", "did you mean 'prefer"),
            ("prefer()", "needs the name of a provider"),
            ("", "unknown ranking"),
            ("cheapest,", "unknown ranking"),
            ("0.5*cheepest + 0.5*fastest", "did you mean 'cheapest'"),
            ("half*cheapest", "'half' is no weight"),
            ("0*cheapest", "must be above 0"),
            ("-1*cheapest", "must be above 0"),
            ("nan*cheapest", "must be above 0"),
            (7, "must be a ranking"),
            (None, "must be a ranking"),
            (["cheapest"], "must be a ranking"),
        ],
    )
    def test_what_names_no_ranking_is_refused_with_the_nearest(
        self, words: Any, problem: str
    ) -> None:
        """One error that says what is wrong."""
        with pytest.raises(InvalidValue, match=problem):
            ranking_of(words)

    @pytest.mark.parametrize("make", [prefer, weighted])
    def test_a_ranking_of_nothing_is_refused(self, make: Callable[[], Ranking]) -> None:
        """Neither without a provider nor without a part."""
        with pytest.raises(InvalidValue):
            make()

    @given(st.text() | st.text("prefer(own),*+0.5 cheapst"))
    def test_any_text_is_a_ranking_or_refused(self, words: str) -> None:
        """Nothing but `InvalidValue` comes out of senseless text."""
        try:
            ranking = ranking_of(words)
        except InvalidValue:
            return
        assert len(ranking.scores(ALL, estimates)) == 3


class _Callable:
    """Has no name of its own."""

    def __call__(self, what: Offer) -> float:
        return float(what.price.hourly.amount)


def test_a_ranking_of_ones_own_composes_with_others() -> None:
    """``By`` is what the built-in ones are made of."""
    by_price = By("mine", lambda what, _: float(what.price.hourly > Money(2)))

    assert order(by_price | cheapest(), *ALL) == ["cheap", "own", "quick"]
