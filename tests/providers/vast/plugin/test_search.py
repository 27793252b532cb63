"""From requirements to a search, and from its rows to offers."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from tests.providers.answers import as_sent, page, said

from gpubroker import ErrorKind, Money, Offer, ProviderError, Requirements, TrustTier
from gpubroker_vast.search import COLUMNS, Market, labels_of, offers, query

from .vendor import Vendor, no, offer_row

NOW = 1_800_000_000.0
MARKET = Market(limit=64, bid=Decimal("1.05"), simulated=False)
PATH = "/api/v0/bundles/"


def asked(bid: bool = False, **wanted: Any) -> dict[str, Any]:
    found: dict[str, Any] = query(Requirements(**wanted), MARKET, bid=bid, above=None)
    return found


def made(*rows: Any, bid: bool = False, **wanted: Any) -> list[Offer]:
    sent = as_sent(list(rows))
    return offers(sent, Requirements(**wanted), MARKET, bid=bid, now=NOW, skip=lambda _: None)


class TestQuery:
    def test_the_usual_defaults(self) -> None:
        """Verified, rentable, not external, on demand, the cheapest first with the real disk."""
        found = asked(disk="40")

        assert found["verified"] == found["rentable"] == {"eq": True}
        assert found["external"] == found["rented"] == {"eq": False}
        assert (found["type"], found["order"]) == ("on-demand", [["dph_total", "asc"]])
        assert (found["limit"], found["allocated_storage"]) == (64, 40.0)
        assert found["disk_space"] == {"gte": 40.0}

    def test_a_disk_is_never_below_what_is_billed(self) -> None:
        """The least that a machine gets is 8 GB, and that is what it costs."""
        assert asked(disk="1")["allocated_storage"] == 8.0

    def test_any_gpu_means_one_with_8_gb(self) -> None:
        """But a model that is named may have less, and memory that is asked for counts."""
        least = asked(count=1)["gpu_ram"]["gte"]

        assert 7000 < least < 8188
        assert "gpu_ram" not in asked(gpu="GTX 1060 6GB")
        assert "gpu_ram" not in asked()

    def test_memory_is_asked_for_in_their_megabytes(self) -> None:
        """A card of 24 GB has 24564 of them; one of 22 GB is not asked for in vain."""
        low = asked(vram="24")["gpu_ram"]["gte"]

        assert 22_528 < low <= 24 * 1000 / 1.048576
        assert asked(vram="..48")["gpu_ram"] == {"lte": 48_000.0}

    def test_models_are_asked_for_by_their_names(self) -> None:
        """With blanks; a family by all its members."""
        assert asked(gpu="4090")["gpu_name"] == {"in": ["RTX 4090"]}
        assert asked(gpu=["H100", "A100 80GB SXM"])["gpu_name"] == {
            "in": ["A100 SXM4", "H100 NVL", "H100 PCIE", "H100 SXM"]
        }

    def test_a_name_that_nobody_knows_is_narrowed_down(self) -> None:
        """By what is known of the model: a wrong spelling would find nothing at all."""
        found = asked(gpu="RTX 5050")

        assert "gpu_name" not in found
        assert found["compute_cap"] == {"eq": 1200}
        assert found["gpu_ram"]["gte"] < 8188 < found["gpu_ram"]["lte"]

    @pytest.mark.parametrize(
        ("name", "not_one"),
        [("RTX 4090", "RTX 4090D"), ("RTX 4060", "RTX 4060 Ti"), ("L40", "L40S")],
    )
    def test_other_silicon_is_not_asked_for(self, name: str, not_one: str) -> None:
        """However alike the names: its rows would take the place of others."""
        assert name in labels_of(name)
        assert not_one not in labels_of(name)

    def test_amounts_in_their_units(self) -> None:
        """Compute capability in hundredths; the rest as it is."""
        found = asked(
            count="2..4",
            cuda=12.4,
            compute_capability="8.0..8.9",
            cpus=8,
            reliability=0.98,
            download=500,
            upload=100,
            max_price="0.80",
        )

        assert found["num_gpus"] == {"gte": 2.0, "lte": 4.0}
        assert found["cuda_max_good"] == {"gte": 12.4}
        assert found["compute_cap"] == {"gte": 800.0, "lte": 890.0}
        assert found["cpu_cores_effective"] == {"gte": 8.0}
        assert found["reliability"] == {"gte": 0.98}
        assert (found["inet_down"], found["inet_up"]) == ({"gte": 500.0}, {"gte": 100.0})
        assert found["dph_total"] == {"lte": 0.8}

    def test_whose_machines(self) -> None:
        """Leaving the filter out would mean the server's default, not "any"."""
        assert asked(trust="unverified")["verified"] == {"eq": "any"}
        assert asked(trust="datacenter")["datacenter"] == {"eq": True}
        assert "datacenter" not in asked()

    def test_countries_and_ports(self) -> None:
        """Countries by their letters; a port for each service, and one for SSH."""
        assert asked(region=["ca", "US"])["geolocation"] == {"in": ["CA", "US"]}
        assert "geolocation" not in asked(region="Quebec")
        assert asked(ports=[8000, 8001])["direct_port_count"] == {"gte": 3}
        assert asked(static_ip=True)["static_ip"] == {"eq": True}

    @pytest.mark.parametrize(
        ("oldest", "packed"),
        [("550", 550_000_000), ("535.86.05", 535_086_005), ("560.35", 560_035_000)],
    )
    def test_a_driver_is_asked_for_as_one_number(self, oldest: str, packed: int) -> None:
        """Three digits for each part; otherwise the cheapest rows would all be of older ones."""
        assert asked(driver=oldest)["driver_version"] == {"gte": packed}
        assert "driver_version" not in asked(count=1)

    def test_a_driver_whose_number_cannot_be_made_is_left_to_the_matching(self) -> None:
        """A filter may let too much through, and never too little."""
        assert "driver_version" not in asked(driver="550.1234.1")

    def test_memory_of_the_machine_is_a_necessary_filter_only(self) -> None:
        """The whole machine's is never less than the offer's share of it."""
        (offer,) = made(offer_row())

        assert offer.ram is not None
        assert asked(ram=offer.ram)["cpu_ram"]["gte"] <= 515768


class TestOffers:
    def test_a_row_as_an_offer(self) -> None:
        """Units and names are ours; what is new in the row does not matter."""
        (offer,) = made(offer_row())

        assert (offer.id, offer.host, offer.gpu, offer.count) == (
            "27418355",
            "41877",
            "RTX 4090",
            1,
        )
        assert (offer.vram, offer.compute_capability, offer.cuda) == (25.8, 8.9, 12.8)
        assert (offer.cpus, offer.ram, offer.disk) == (32.0, 135.2, 812.4)
        assert (offer.region, offer.trust, offer.reliability) == (
            "CA",
            TrustTier.VERIFIED,
            0.9964,
        )
        assert (offer.download, offer.upload, offer.driver) == (905.7, 842.1, "570.133.20")
        assert (offer.open_ports, offer.static_ip, offer.spot) == (62, True, False)
        assert offer.expires_at == NOW + 1_209_600

    def test_the_price_is_split_and_exact(self) -> None:
        """The disk at a 720th of its monthly price; rounded up to the micro-dollar."""
        (offer,) = made(offer_row(), disk="40")

        assert offer.price.machine == Money("0.346667")
        assert offer.price.disk == Money("0.008334")
        assert (offer.price.upload, offer.price.download) == (Money("0.0026"), Money("0.0031"))

    def test_a_bid_is_a_margin_above_the_least(self) -> None:
        """It is the price, since all of it is taken to be charged; the id is the offer's own."""
        (offer,) = made(offer_row(), bid=True)

        assert (offer.id, offer.spot, offer.extra["ask"]) == ("27418355:bid", True, "27418355")
        assert offer.price.machine == Money("0.1820")

    @pytest.mark.parametrize(
        ("row", "tier"),
        [
            ({"verification": "verified", "hosting_type": 1}, TrustTier.DATACENTER),
            ({"verification": "verified", "hosting_type": 0}, TrustTier.VERIFIED),
            ({"verification": "unverified", "hosting_type": 1}, TrustTier.UNVERIFIED),
            ({"verification": "deverified"}, TrustTier.UNVERIFIED),
            ({"verification": None}, TrustTier.UNVERIFIED),
            ({"verification": "brand new word"}, TrustTier.UNVERIFIED),
        ],
    )
    def test_trust_is_never_guessed_upwards(self, row: dict[str, Any], tier: TrustTier) -> None:
        """What is not said to be verified is not."""
        (offer,) = made(offer_row(**row))

        assert offer.trust is tier

    @pytest.mark.parametrize(
        "broken",
        [
            None,
            "offer",
            {"id": None},
            {"id": True},
            {"id": "7; rm"},
            {"dph_base": None},
            {"dph_base": -0.1},
            {"dph_base": 0},
            {"dph_base": float("nan")},
            {"dph_base": float("inf")},
            {"dph_base": 10**30},
            {"dph_base": [1]},
            {"storage_cost": None},
            {"storage_cost": -1},
            {"inet_up_cost": None},
            {"rentable": False},
            {"rented": True},
            {"external": True},
        ],
    )
    def test_a_senseless_row_costs_itself_only(self, broken: Any) -> None:
        """It is skipped, and said to be; the others are offered."""
        row = offer_row(**broken) if isinstance(broken, dict) else broken
        notes: list[str] = []

        found = offers(
            as_sent([row, offer_row(id=2)]),
            Requirements(),
            MARKET,
            bid=False,
            now=NOW,
            skip=notes.append,
        )

        assert [offer.id for offer in found] == ["2"]
        assert len(notes) == 1

    @pytest.mark.parametrize("name", sorted(set(COLUMNS) - {"id", "rentable"}))
    def test_a_row_may_lack_what_no_price_hangs_on(self, name: str) -> None:
        """An unknown part is unknown; a price that is unknown is no offer."""
        priced = {"dph_base", "storage_cost", "inet_up_cost", "inet_down_cost"}

        found = made(offer_row(**{name: None}))

        assert len(found) == (0 if name in priced else 1)

    def test_what_is_not_said_is_none(self) -> None:
        """So that no requirement on it is met."""
        names = ("gpu_ram", "reliability", "duration", "geolocation", "direct_port_count")
        (offer,) = made(offer_row(**dict.fromkeys(names)))

        assert (offer.vram, offer.reliability, offer.expires_at) == (None, None, None)
        assert (offer.region, offer.open_ports) == (None, None)

    def test_labels_become_canonical(self) -> None:
        """With the memory telling the members of a family apart."""
        (offer,) = made(offer_row(gpu_name="A100 SXM4", gpu_ram=81920))

        assert offer.gpu == "A100 80GB SXM"


@pytest.mark.anyio
class TestQuote:
    async def test_one_narrow_request(self, vendor: Vendor) -> None:
        """A limit and the columns that are read: rows are rationed by the day."""
        vendor.on("GET", PATH, said(body={"offers": [offer_row()]}))
        async with vendor.provider(limit="10") as provider:
            found = await provider.quote(Requirements(gpu="RTX 4090"))

        (request,) = vendor.asked
        assert json.loads(request.url.params["q"])["limit"] == 10
        assert set(json.loads(request.url.params["select_cols"])) == set(COLUMNS)
        assert [(offer.id, offer.simulated) for offer in found] == [("27418355", True)]

    async def test_the_real_vendor_simulates_nothing(self, vendor: Vendor) -> None:
        """Only an address on this machine is an emulator's."""
        vendor.on("GET", PATH, said(body={"offers": [offer_row()]}))
        async with vendor.provider(url="https://console.vast.ai") as provider:
            (offer,) = await provider.quote(Requirements())

        assert not offer.simulated

    async def test_a_server_that_knows_no_columns_is_asked_in_full(self, vendor: Vendor) -> None:
        """Once; from then on at once."""
        vendor.on("GET", PATH, no(400, "invalid_request", "what is select_cols"))
        vendor.on("POST", PATH, said(body={"offers": [offer_row()]}))
        async with vendor.provider() as provider:
            for _ in range(2):
                assert len(await provider.quote(Requirements())) == 1

        assert (vendor.count("GET", PATH), vendor.count("POST", PATH)) == (1, 2)

    async def test_a_refused_key_is_not_asked_about_twice(self, vendor: Vendor) -> None:
        """A 404 that says so is about the key, not about the form of the search."""
        vendor.on("GET", PATH, no(404, "auth_error", "Invalid user key"))
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError) as refused:
                await provider.quote(Requirements())

        assert refused.value.kind is ErrorKind.AUTH
        assert len(vendor.asked) == 1

    async def test_either_kind_of_market(self, vendor: Vendor) -> None:
        """Where both will do, both are searched, and no two offers have one id."""
        vendor.on("GET", PATH, said(body={"offers": [offer_row()]}))
        async with vendor.provider() as provider:
            found = await provider.quote(Requirements(spot=None))

        assert [(offer.id, offer.spot) for offer in found] == [
            ("27418355", False),
            ("27418355:bid", True),
        ]

    async def test_pages_are_turned_only_when_asked_for(self, vendor: Vendor) -> None:
        """A search goes on at the last price, and at that price leaves nobody out."""
        rows = [offer_row(id=n, dph_total=round(0.1 * ((n + 1) // 2), 1)) for n in range(1, 8)]

        def answer(request: httpx.Request) -> httpx.Response:
            least = json.loads(request.url.params["q"]).get("dph_total", {}).get("gte", 0)
            return said(body={"offers": [row for row in rows if row["dph_total"] >= least][:3]})

        vendor.on("GET", PATH, answer)
        async with vendor.provider(limit="3") as provider:
            assert len(await provider.quote(Requirements())) == 3
        async with vendor.provider(limit="3", pages="9") as provider:
            found = await provider.quote(Requirements())

        assert sorted(int(offer.id) for offer in found) == [1, 2, 3, 4, 5, 6, 7]

    async def test_nobodys_own_machine_is_for_rent(self, vendor: Vendor) -> None:
        """Who trusts nobody else gets no offer, without a request."""
        async with vendor.provider() as provider:
            assert await provider.quote(Requirements(trust="own")) == []

        assert vendor.asked == []

    async def test_no_offers_is_an_answer(self, vendor: Vendor) -> None:
        """An empty market is not a failure."""
        vendor.on("GET", PATH, said(body={"offers": []}))
        async with vendor.provider() as provider:
            assert await provider.quote(Requirements()) == []

    @pytest.mark.parametrize(
        "answer", [said(body={"offers": None}), said(body=[]), page(status=200)]
    )
    async def test_no_list_is_none(self, vendor: Vendor, answer: httpx.Response) -> None:
        """Whatever else comes is an error, not an empty market."""
        vendor.on("GET", PATH, answer)
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError) as failed:
                await provider.quote(Requirements())

        assert failed.value.kind is ErrorKind.TRANSIENT

    async def test_the_daily_quota_is_told_apart(self, vendor: Vendor) -> None:
        """It is over until midnight, however often it is asked."""
        body = {"error": "search_quota_exceeded", "msg": "Daily quota", "retry_after": 4000}
        vendor.on("GET", PATH, said(429, body))
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError) as failed:
                await provider.quote(Requirements())

        assert (failed.value.kind, failed.value.retry_after) == (ErrorKind.QUOTA, 4000)
        assert len(vendor.asked) == 1

    async def test_skipped_rows_are_noted_once(self, vendor: Vendor) -> None:
        """However many they are."""
        vendor.on("GET", PATH, said(body={"offers": [{}, {}, offer_row()]}))
        async with vendor.provider() as provider:
            for _ in range(2):
                assert len(await provider.quote(Requirements())) == 1

        assert len(vendor.events) == 1
