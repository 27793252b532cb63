from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import InvalidValue
from gpubroker.model.decisions import Estimate
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.money import ZERO, Money
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.policy.estimate import Work, estimate
from gpubroker.policy.experience import Experience, Memory
from gpubroker.policy.plan import Market, Terms, plan
from gpubroker.policy.ranking import cheapest, cheapest_to_finish
from gpubroker.testing import offer

NOW: Final = 1_000_000.0
PAID: Final = ProviderFacts(paid=True)
NOTHING: Final = Memory((), NOW)

prices = st.decimals("0.01", 20, places=2).map(Money)
seconds = st.floats(0, 1e6)


def there(**parts: Any) -> Offer:
    return replace(offer(**parts), provider="acme")


def known(host: str, boot: float, *, times: int = 50, worked: float = 1.0) -> Experience:
    """A host that was tried often, and booted in so many seconds on average."""
    return Experience(
        provider="acme",
        host=host,
        image="",
        tries=times,
        successes=times * worked,
        boot_seconds=times * worked * boot,
        at=NOW,
    )


def estimated(
    what: Offer | None = None,
    work: Work | None = None,
    memory: Memory = NOTHING,
    facts: ProviderFacts = PAID,
    **wanted: Any,
) -> Estimate:
    return estimate(what or there(), Requirements(**wanted), work or Work(), facts, memory)


class TestParts:
    def test_each_part_is_worked_out_as_written(self) -> None:
        """Boot 120, set-up 60, 2 GB there and 1 GB back, the run at twice the speed, 90 %."""
        machine = there(
            price="0.36", download=400, upload=100, download_price="0.01", upload_price="0.02"
        )
        work = Work(1000.0, sends=2.0, returns=1.0, speed={"4090": 2.0})

        found = estimated(machine, work, setup="make")

        assert (found.boot, found.setup, found.transfer, found.run) == (120, 60, 40 + 80, 500)
        assert found.bandwidth == Money("0.04")
        assert found.chance == 0.9
        assert found.seconds == 800
        assert found.cost == Money("0.12") / 0.9  # 800 s at 0.36 an hour are 0.08

    def test_the_text_shows_the_arithmetic(self) -> None:
        """Every part that counts, then the sum: a person can work it out again."""
        shown = Estimate(120.0, 60.0, 8.0, 40.0, Money("0.04"), 0.9, Money("0.13"))
        plain = Estimate(0.0, 0.0, 0.0, 40.0, ZERO, 1.0, Money("0.01"))

        assert str(shown) == (
            "(boot 120 s + set-up 60 s + transfer 8 s + run 40 s)"
            " + bandwidth $0.04, over 90% chance: $0.13"
        )
        assert str(plain) == "(run 40 s), over 100% chance: $0.01"

    def test_a_machine_of_ones_own_is_there_and_works(self) -> None:
        """Nothing is paid for, nothing has to boot and nothing is taken to fail."""
        own = ProviderFacts(paid=False)
        found = estimated(there(price="0"), Work(40.0), facts=own)

        assert found == Estimate(0.0, 0.0, 0.0, 40.0, ZERO, 1.0, ZERO)

    def test_set_up_counts_only_where_there_is_one(self) -> None:
        """It takes what it took on this host before, or else a minute."""
        seen = Experience(
            provider="acme", host="h1", image="", setups=96, setup_seconds=96 * 300.0, at=NOW
        )

        assert estimated().setup == 0
        assert estimated(setup="make").setup == 60
        assert estimated(
            there(host="h1"), memory=Memory([seen], NOW), setup="make"
        ).setup == pytest.approx(300, abs=5)

    def test_a_speed_for_a_family_counts_for_its_members(self) -> None:
        """``A100`` is said once for all of its kinds; what is not named runs at speed 1."""
        work = Work(100.0, speed={"A100": 4.0})

        assert estimated(there(gpu="A100 80GB"), work).run == 25
        assert estimated(there(gpu="RTX 4090"), work).run == 100
        assert estimated(there(gpu=None), work).run == 100

    def test_whole_billing_quanta_are_paid(self) -> None:
        """A provider that bills by the hour bills a short job an hour."""
        hourly = ProviderFacts(paid=True, billing_quantum=3600.0)

        assert estimated(there(price="0.90"), Work(1.0), facts=hourly).cost == Money("0.90") / 0.9

    @pytest.mark.parametrize("speed", [None, 0.0, -5.0, math.nan])
    def test_a_bandwidth_that_is_none_is_taken_to_be_usual(self, speed: float | None) -> None:
        """100 Mbit/s: 1 GB takes 80 seconds."""
        assert estimated(there(download=speed), Work(1.0, sends=1.0)).transfer == 80


class TestWork:
    @pytest.mark.parametrize(
        ("field", "parts"),
        [
            ("seconds", {"seconds": -1.0}),
            ("seconds", {"seconds": math.inf}),
            ("sends", {"sends": math.nan}),
            ("returns", {"returns": "much"}),
            ("speed[A100]", {"speed": {"A100": 0.0}}),
            ("speed[A100]", {"speed": {"A100": math.inf}}),
            ("speed", {"speed": {"RTX 4909": 1.0}}),
            ("speed", {"speed": 2.0}),
        ],
    )
    def test_senseless_work_is_refused_when_it_is_made(
        self, field: str, parts: dict[str, Any]
    ) -> None:
        """The error names the part, or the GPU that nobody makes."""
        with pytest.raises(InvalidValue) as caught:
            Work(**parts)

        assert caught.value.field == field


class TestChoice:
    def test_the_warm_host_for_a_short_job_and_the_cheap_one_for_a_long_one(self) -> None:
        """10 % dearer but there in 5 seconds: right for 40 seconds, wrong for 6 hours."""
        warm = there(id="warm", price="0.44", host="warm")
        slow = there(id="slow", price="0.40", host="slow")
        market = Market(
            offers=[[slow, warm]],
            facts={"acme": PAID},
            memory=Memory([known("warm", 5.0), known("slow", 400.0)], NOW),
            now=NOW,
        )

        def first(work: Work) -> str:
            verdicts = plan(market, [Requirements()], Terms(), cheapest_to_finish(), work)
            assert all(v.estimate is not None for v in verdicts)
            return verdicts[0].offer.id

        assert first(Work(40.0)) == "warm"
        assert first(Work(6 * 3600.0)) == "slow"
        assert plan(market, [Requirements()], Terms(), cheapest())[0].offer.id == "slow"

    def test_a_host_that_often_fails_must_be_cheaper_by_as_much(self) -> None:
        """The price counts over the chance that it works."""
        memory = Memory([known("flaky", 100.0, worked=0.4), known("sound", 100.0)], NOW)
        flaky, sound = (
            estimated(there(host=host), Work(3600.0), memory) for host in ("flaky", "sound")
        )

        assert flaky.seconds == pytest.approx(sound.seconds, abs=10)
        assert float(flaky.cost.amount / sound.cost.amount) == pytest.approx(
            sound.chance / flaky.chance, rel=0.01
        )


class TestProperties:
    @given(prices, prices, seconds)
    def test_a_dearer_machine_never_costs_less(self, one: Money, other: Money, runs: float) -> None:
        """All else equal, the estimate grows with the price."""
        low, high = sorted((one, other))
        cheap, dear = (estimated(there(price=p), Work(runs)) for p in (low, high))

        assert cheap.cost <= dear.cost
        assert cheap.seconds == dear.seconds

    @given(st.floats(0, 3600), st.floats(0, 3600), seconds)
    def test_a_slower_boot_never_costs_less(self, one: float, other: float, runs: float) -> None:
        """All else equal, the estimate grows with the boot."""
        low, high = sorted((one, other))
        quick, slow = (
            estimated(there(host="h1"), Work(runs), Memory([known("h1", boot)], NOW))
            for boot in (low, high)
        )

        assert quick.boot <= slow.boot
        assert quick.cost <= slow.cost

    @given(seconds, seconds, st.floats(0, 100), st.floats(0, 100))
    def test_more_work_never_costs_less(
        self, one: float, other: float, sends: float, returns: float
    ) -> None:
        """Longer runs and more data only add."""
        low, high = sorted((one, other))
        little, much = estimated(work=Work(low)), estimated(work=Work(high, sends, returns))

        assert little.cost <= much.cost
        assert little.seconds <= much.seconds

    @given(st.integers(0, 50), st.integers(0, 50))
    def test_a_host_that_works_more_often_never_costs_more(self, one: int, other: int) -> None:
        """All else equal, the estimate falls with the chance."""
        low, high = sorted((one, other))
        poor, good = (
            estimated(
                there(host="h1"),
                memory=Memory(
                    [replace(known("h1", 0.0), successes=n, boot_seconds=n * 120.0)], NOW
                ),
            )
            for n in (low, high)
        )

        assert good.chance >= poor.chance
        assert good.cost.amount <= poor.cost.amount * (1 + Money("0.000000001").amount)

    @given(prices, seconds, st.none() | st.floats(), st.none() | st.floats())
    def test_an_estimate_is_never_negative_or_senseless(
        self, price: Money, runs: float, download: float | None, upload: float | None
    ) -> None:
        """Whatever bandwidth a provider states."""
        found = estimated(
            there(price=price, download=download, upload=upload), Work(runs, 1.0, 1.0)
        )

        assert 0 <= found.seconds < math.inf
        assert found.cost >= ZERO
        assert 0 < found.chance <= 1
