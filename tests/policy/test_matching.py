from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.model.codec import from_json, to_json
from gpubroker.model.decisions import Constraint, Rejection
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer, Price
from gpubroker.model.requirements import Requirements, TrustTier
from gpubroker.policy.matching import reject
from gpubroker.testing import offer

C: Final = Constraint
NOW: Final = 1_000_000.0
PAID: Final = ProviderFacts(paid=True, ports=True, spot=True)
FREE: Final = ProviderFacts(paid=False, trust=TrustTier.OWN)


def verdict(
    what: Offer, facts: ProviderFacts = PAID, **wanted: Any
) -> tuple[Constraint, str, str] | None:
    """The constraint, what was wanted and what is offered; ``None`` if it fits."""
    found = reject(replace(what, provider="acme"), Requirements(**wanted), facts, NOW)
    return None if found is None else (found.constraint, found.wanted, found.said)


#: what is asked -> an offer that has just enough, one that has not, and what is then said.
TABLE: Final[list[tuple[dict[str, Any], Offer, Offer, tuple[Constraint, str, str]]]] = [
    ({"gpu": "4090"}, offer("RTX 4090"), offer("H100"), (C.GPU, "RTX 4090", "H100")),
    ({"gpu": "4090"}, offer("RTX 4090"), offer(None), (C.GPU, "RTX 4090", "none")),
    (
        {"gpu": ["4090", "H100"]},
        offer("H100"),
        offer("RTX 3090"),
        (C.GPU, "RTX 4090 or H100", "RTX 3090"),
    ),
    ({"gpu": "A100"}, offer("A100 80GB"), offer("A10"), (C.GPU, "A100", "A10")),
    ({"count": 2}, offer(count=2), offer(count=4), (C.COUNT, "2 GPUs", "4 GPUs")),
    ({"count": 2}, offer(count=2), offer(count=1), (C.COUNT, "2 GPUs", "1 GPUs")),
    ({"gpu": "4090"}, offer(count=1), offer(count=2), (C.COUNT, "1 GPUs", "2 GPUs")),
    ({"vram": 24}, offer(vram=24), offer(vram=23.9), (C.VRAM, "24.. GB", "23.9 GB")),
    ({"vram": "8..16"}, offer(vram=16), offer(vram=24), (C.VRAM, "8..16 GB", "24 GB")),
    ({"vram": 8}, offer(vram=8), offer(vram=None), (C.VRAM, "8.. GB", "not stated")),
    (
        {"compute_capability": "8.0.."},
        offer(compute_capability=8.0),
        offer(compute_capability=7.5),
        (C.COMPUTE_CAPABILITY, "8..", "7.5"),
    ),
    ({"cuda": 12.4}, offer(cuda=12.4), offer(cuda=12.2), (C.CUDA, "12.4..", "12.2")),
    ({"cpus": 8}, offer(cpus=8), offer(cpus=7), (C.CPUS, "8.. CPUs", "7 CPUs")),
    ({"ram": "64GB"}, offer(ram=64), offer(ram=63), (C.RAM, "64.. GB", "63 GB")),
    ({"disk": 100}, offer(disk=100), offer(disk=99), (C.DISK, "100.. GB", "99 GB")),
    (
        {"reliability": 0.99},
        offer(reliability=0.99),
        offer(reliability=0.98),
        (C.RELIABILITY, "0.99..", "0.98"),
    ),
    (
        {"download": 500},
        offer(download=500),
        offer(download=499),
        (C.DOWNLOAD, "500.. Mbit/s", "499 Mbit/s"),
    ),
    (
        {"upload": 100},
        offer(upload=100),
        offer(upload=None),
        (C.UPLOAD, "100.. Mbit/s", "not stated"),
    ),
    ({"region": "de"}, offer(region="DE"), offer(region="US"), (C.REGION, "de", "US")),
    (
        {"region": ["DE", "FR"]},
        offer(region="fr"),
        offer(region=None),
        (C.REGION, "DE or FR", "not stated"),
    ),
    (
        {"trust": "datacenter"},
        offer(trust=TrustTier.DATACENTER),
        offer(trust=TrustTier.VERIFIED),
        (C.TRUST, "datacenter", "verified"),
    ),
    (
        {},
        offer(trust=TrustTier.VERIFIED),
        offer(trust=TrustTier.UNVERIFIED),
        (C.TRUST, "verified", "unverified"),
    ),
    ({}, offer(spot=False), offer(spot=True), (C.SPOT, "on demand", "spot")),
    ({"spot": True}, offer(spot=True), offer(spot=False), (C.SPOT, "spot", "on demand")),
    (
        {"max_price": "0.40"},
        offer(price="0.40"),
        offer(price="0.400001"),
        (C.MAX_PRICE, "$0.40/h at most", "$0.400001/h"),
    ),
    (
        {"max_price": "0.40"},
        offer(price="0.30", disk_price="0.10"),
        offer(price="0.40", disk_price="0.01"),
        (C.MAX_PRICE, "$0.40/h at most", "$0.41/h"),
    ),
    (
        {},
        offer(expires_at=NOW + 0.001),
        offer(expires_at=NOW),
        (C.EXPIRED, "an offer that still holds", "expired"),
    ),
    (
        {},
        offer(price="0.000001"),
        offer(price="0"),
        (C.PRICE_INVALID, "a price above zero", "$0.00/h"),
    ),
    (
        {},
        offer(price="1", disk_price="0"),
        offer(price="1", disk_price="-0.5"),
        (C.PRICE_INVALID, "a price above zero", "$0.50/h"),
    ),
    (
        {},
        offer(price="0", disk_price="1"),
        offer(price="-1", disk_price="2"),
        (C.PRICE_INVALID, "a price above zero", "$1.00/h"),
    ),
]


class TestEachRequirement:
    @pytest.mark.parametrize(("wanted", "fits", "fails", "said"), TABLE)
    def test_an_offer_is_checked_again_whatever_the_provider_filtered(
        self, wanted: dict[str, Any], fits: Offer, fails: Offer, said: tuple[Constraint, str, str]
    ) -> None:
        """Just enough fits; the next value is rejected, and the reason has both sides."""
        assert verdict(fits, **wanted) is None
        assert verdict(fails, **wanted) == said

    @pytest.mark.parametrize(
        ("wanted", "said"),
        [
            ({"providers": ["other"]}, (C.PROVIDER, "other", "acme")),
            ({"exclude": "acme"}, (C.PROVIDER, "not acme", "acme")),
        ],
    )
    def test_only_providers_that_were_asked_for_are_used(
        self, wanted: dict[str, Any], said: tuple[Constraint, str, str]
    ) -> None:
        """One that is not named, or is excluded, is rejected even if it offers something."""
        assert verdict(offer(), **wanted) == said
        assert verdict(offer(), providers=["acme", "other"], exclude="third") is None

    def test_a_provider_must_be_able_to_run_images_and_open_ports(self) -> None:
        """What it cannot do is a fact about the provider, not about the offer."""
        bare = ProviderFacts(paid=True, runs_images=False, ports=False)

        assert verdict(offer(), bare, image="img") == (C.IMAGE, "img", "runs no images")
        assert verdict(offer(), bare, ports=[22, 80]) == (C.PORTS, "22, 80", "opens no ports")
        assert verdict(offer(), PAID, image="img", ports=[22]) is None

    def test_an_offer_must_have_as_many_ports_as_are_asked_for(self) -> None:
        """Where it does not say how many it has, the provider's word stands."""
        few = offer(open_ports=1)

        assert verdict(few, PAID, ports=[80]) is None
        assert verdict(few, PAID, ports=[80, 81]) == (C.PORTS, "2 open ports", "1")
        over_ssh = replace(PAID, ssh=True)
        assert verdict(few, over_ssh, ports=[80]) == (C.PORTS, "2 open ports", "1")

    @pytest.mark.parametrize(
        ("driver", "fits"), [("560.35.03", True), ("560", True), ("559.99", False), ("R5", False)]
    )
    def test_a_driver_is_compared_part_by_part(self, driver: str, fits: bool) -> None:
        """Versions are no decimal numbers, and text that is none is no version."""
        assert (verdict(offer(driver=driver), driver="560") is None) is fits
        assert verdict(offer(driver=None), driver="9.1") == (C.DRIVER, "9.1 or newer", "not stated")

    def test_an_address_must_be_said_to_last(self) -> None:
        """Silence is no promise."""
        assert verdict(offer(static_ip=True), static_ip=True) is None
        said = (C.STATIC_IP, "a lasting address", "a changing one")
        assert verdict(offer(static_ip=False), static_ip=True) == said
        assert verdict(offer(), static_ip=True) == (said[0], said[1], "not stated")
        assert verdict(offer()) is None

    def test_a_free_provider_may_charge_nothing(self) -> None:
        """A price of zero is refused only where machines are paid for."""
        assert verdict(offer(price="0"), FREE) is None
        assert verdict(offer(price="-1"), FREE) == (
            C.PRICE_INVALID,
            "a price above zero",
            "-$1.00/h",
        )

    @pytest.mark.parametrize("part", ["upload_price", "download_price"])
    def test_no_price_may_be_negative(self, part: str) -> None:
        """Nobody is paid for moving data: such an offer is a mistake or a lure."""
        parts: dict[str, Any] = {part: "-0.01"}
        negative = offer(**parts)

        assert verdict(negative) == (C.PRICE_INVALID, "a price above zero", "-$0.01 per GB")

    def test_an_absurd_price_is_a_mistake(self) -> None:
        """Where cents were taken for dollars nothing is rented, whatever the budget."""
        assert verdict(offer(price="99999.99")) is None
        assert verdict(offer(price="100000")) == (
            C.PRICE_INVALID,
            "less than $100000.00/h",
            "$100000.00/h",
        )

    def test_trust_is_the_providers_where_the_offer_says_nothing(self) -> None:
        """A host's own tier counts before its provider's."""
        strangers = ProviderFacts(paid=True, trust=TrustTier.UNVERIFIED)

        assert verdict(offer(trust=None), strangers) == (C.TRUST, "verified", "unverified")
        assert verdict(offer(trust=TrustTier.OWN), strangers) is None
        assert verdict(offer(trust=None), strangers, trust="unverified") is None


class TestNumbersThatAreNone:
    @pytest.mark.parametrize("part", ["vram", "ram", "cpus", "disk", "download", "reliability"])
    def test_not_a_number_meets_nothing(self, part: str) -> None:
        """A provider's NaN is neither enough nor little enough."""
        parts: dict[str, Any] = {part: math.nan}
        strange = offer(**parts)

        for wanted in ("0.5..", "..0.9"):
            parts = {part: wanted}
            assert verdict(strange, **parts) is not None

    def test_an_expiry_that_is_no_number_has_passed(self) -> None:
        """An offer whose price holds until nobody knows when does not hold."""
        assert verdict(offer(expires_at=math.nan)) == (
            C.EXPIRED,
            "an offer that still holds",
            "expired",
        )

    @pytest.mark.parametrize("rejected", [offer(count=2), offer(None), offer(vram=4)])
    def test_a_reason_with_a_whole_number_survives_json(self, rejected: Offer) -> None:
        """A count is a whole number, and a vendor may say an amount as one: no complaint is made."""
        found = reject(rejected, Requirements(count=1, vram=8), PAID, NOW)

        assert found is not None
        assert from_json(Rejection, to_json(Rejection, found)) == found

    @pytest.mark.parametrize("number", [math.nan, math.inf])
    def test_a_reason_with_such_a_number_survives_json(self, number: float) -> None:
        """The reason is kept as words, since JSON has no such numbers."""
        found = reject(offer(vram=number), Requirements(vram="8..16"), PAID, NOW)

        assert found is not None
        assert from_json(Rejection, to_json(Rejection, found)) == found
        assert found.said == f"{number} GB"


class TestUnconstrained:
    @given(
        st.builds(
            offer,
            gpu=st.sampled_from(["RTX 4090", "H100", "a card nobody knows", None]),
            price=st.decimals("0.000001", 1000, places=6).map(Money),
            vram=st.none() | st.floats(0, 1000),
            region=st.none() | st.text(),
            reliability=st.none() | st.floats(0, 1),
        )
    )
    def test_without_requirements_every_sound_offer_fits(self, any_offer: Offer) -> None:
        """What was not asked for is no reason to reject."""
        assert verdict(any_offer) is None

    def test_the_first_failing_requirement_is_named(self) -> None:
        """One reason for each offer, the most telling one first."""
        poor = offer("RTX 3090", vram=1, price="99")

        assert verdict(poor, gpu="H100", vram=80, max_price=1) == (C.GPU, "H100", "RTX 3090")

    def test_prices_are_for_the_whole_machine(self) -> None:
        """Two cards at 0.80 an hour are not 0.40 each."""
        pair = replace(offer(count=2), price=Price(machine=Money("0.80")))

        assert verdict(pair, count=2, max_price="0.79") is not None
