from __future__ import annotations

from contextlib import suppress

import httpx
import pytest

from gpubroker import InvalidValue
from gpubroker_vast.emulator import SCENARIOS, VastEmulator
from gpubroker_vast.emulator.market import Market

from .account import Account, account_of


def market(**options: float) -> Market:
    """A market that began at moment 0."""
    return Market.make(1, 200, 0.0, **options)


class TestPrices:
    def test_stay_as_they_are_in_a_calm_market(self) -> None:
        """Tests can count on them."""
        calm = market()

        for ask in calm.asks.values():
            assert calm.price(ask, 0.0) == calm.price(ask, 1e6) > 0

    def test_move_with_time_and_within_bounds(self) -> None:
        """The same for one seed, at any moment, in any order."""
        moving, again = market(drift=0.2), market(drift=0.2)
        moments = [0.0, 45.0, 600.0, 7200.0]

        for ask in moving.asks.values():
            usual = float(ask.host.price * ask.count)
            prices = [moving.price(ask, moment) for moment in moments]
            assert len(set(prices)) > 1
            assert all(abs(float(price) / usual - 1) <= 0.21 for price in prices)
            other = again.asks[ask.id]
            assert [again.price(other, moment) for moment in reversed(moments)] == prices[::-1]


class TestOthers:
    def test_have_about_as_many_hosts_as_was_said(self) -> None:
        """Others at one moment than at the next."""
        busy = market(busy=0.6)

        def taken(moment: float) -> set[int]:
            return {a.host.machine_id for a in busy.asks.values() if not busy.free(a, moment)}

        hosts = {ask.host.machine_id for ask in busy.asks.values()}
        assert 0.4 < len(taken(0.0)) / len(hosts) < 0.8
        assert taken(0.0) != taken(100.0)

    def test_may_be_quicker(self, account: Account, cloud: VastEmulator) -> None:
        """What was found a moment ago is gone."""
        cloud.switch(races=1.0)

        assert account.create().status_code == 410


class TestSlices:
    def test_cards_are_rented_once(self) -> None:
        """Taking a host's half takes what overlaps with it, and leaves the other half."""
        shared = market()
        whole = next(a for a in shared.asks.values() if a.host.cards == 8 and a.count == 8)
        of_host = [a for a in shared.asks.values() if a.host is whole.host]
        halves = [a for a in of_host if a.count == 4]

        shared.occupy(halves[0], 1)

        free = [a for a in of_host if shared.free(a, 0.0)]
        assert halves[1] in free
        assert all(not a.slots & halves[0].slots for a in free)
        shared.vacate(1)
        assert all(shared.free(a, 0.0) for a in of_host)


class TestScenarios:
    @pytest.mark.parametrize("scenario", SCENARIOS)
    def test_serve(self, scenario: str) -> None:
        """Each has a sentence for people, and a market."""
        with VastEmulator(seed=1, scenario=scenario, flakiness=0.0) as cloud:
            with account_of(cloud) as http:
                answer = http.post("/api/v0/bundles/", json={"limit": 3})

        assert answer.status_code == 200
        assert VastEmulator.scenarios[scenario].endswith(".")

    def test_fail_in_the_same_way_again(self) -> None:
        """What happens by chance happens by the seed."""

        def statuses() -> list[int | None]:
            with VastEmulator(seed=5, scenario="flaky-api", limits=0.0) as cloud:
                with account_of(cloud) as http:
                    for _ in range(40):
                        with suppress(httpx.TransportError):
                            http.get("/api/v0/users/current")
                return [one.status for one in cloud.requests]

        first = statuses()

        assert first == statuses()
        assert len(set(first)) > 1

    def test_and_switches_that_do_not_exist_are_refused(self) -> None:
        """With the nearest one that does."""
        with pytest.raises(InvalidValue, match="did you mean 'calm'"):
            VastEmulator(scenario="clam")
        with pytest.raises(InvalidValue, match="did you mean 'visibility'"):
            VastEmulator(visiblity=1.0)
