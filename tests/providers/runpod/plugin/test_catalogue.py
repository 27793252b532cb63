"""From requirements to the catalogue, and from its rows to offers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.providers.answers import meaning, page, said

from gpubroker import (
    ErrorKind,
    Money,
    Offer,
    ProviderError,
    Requirements,
    Scope,
    TrustTier,
    parse_gpu,
)
from gpubroker.policy.cooldown import condemned
from gpubroker_runpod.catalogue import country

from .vendor import Vendor, catalogue, gpu_row, problem, shows_no_key

pytestmark = pytest.mark.anyio

GPUS = "/v2/catalog/gpus"
#: Ids in the catalogue, their memory, and the names under which people ask for them.
IDS = (
    ("AMD Instinct MI300X OAM", 192, "MI300X"),
    ("NVIDIA A100 80GB PCIe", 80, "A100 80GB PCIe"),
    ("NVIDIA A100-SXM4-80GB", 80, "A100 80GB SXM"),
    ("NVIDIA B200", 180, "B200"),
    ("NVIDIA B300 SXM6 AC", 288, "B300"),
    ("NVIDIA GeForce RTX 4080 SUPER", 16, "RTX 4080 Super"),
    ("NVIDIA GeForce RTX 4090", 24, "RTX 4090"),
    ("NVIDIA H100 80GB HBM3", 80, "H100 SXM"),
    ("NVIDIA H100 NVL", 94, "H100 NVL"),
    ("NVIDIA H200", 141, "H200 SXM"),
    ("NVIDIA H200 NVL", 143, "H200 NVL"),
    ("NVIDIA L40S", 48, "L40S"),
    ("NVIDIA  RTX A4500", 20, "RTX A4500"),
    ("NVIDIA RTX 6000 Ada Generation", 48, "RTX 6000 Ada"),
    ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 96, "RTX PRO 6000 Max-Q"),
    ("Tesla V100-SXM2-32GB", 32, "V100 32GB SXM"),
)


async def quoted(
    vendor: Vendor,
    secure: Any,
    community: Any = None,
    wanted: Requirements | None = None,
    clouds: str = "",
    way: str = "",
) -> list[Offer]:
    """The offers made of these rows, those of each cloud from its own answer."""

    def answer(request: httpx.Request) -> httpx.Response:
        found: Any = secure if request.url.params["cloud"] == "SECURE" else (community or ())
        return found if isinstance(found, httpx.Response) else catalogue(*found)

    vendor.on("GET", GPUS, answer)
    async with vendor.provider(clouds=clouds, way=way) as provider:
        return await provider.quote(wanted or Requirements(gpu="RTX 4090"))


def queries(vendor: Vendor) -> list[dict[str, str]]:
    return sorted((dict(r.url.params) for r in vendor.asked), key=lambda q: q["cloud"])


class TestAsking:
    async def test_each_cloud_is_asked_for_what_is_in_stock(self, vendor: Vendor) -> None:
        """One cloud per request, for pods of as many GPUs as are wanted."""
        await quoted(vendor, [gpu_row()], wanted=Requirements(gpu="RTX 4090", count=2))

        common = {"include": "AVAILABILITY", "product": "POD", "count": "2"}
        assert queries(vendor) == [{**common, "cloud": c} for c in ("COMMUNITY", "SECURE")]

    @pytest.mark.parametrize(
        ("cuda", "sent"), [(12.4, "12.4"), (12, "12.0"), ("11.8..12.9", "11.8"), ("..12.9", None)]
    )
    async def test_a_least_cuda_version_is_asked_for(
        self, vendor: Vendor, cuda: Any, sent: str | None
    ) -> None:
        """What the vendor then lists is known to have it, and nothing else is known of it."""
        found = await quoted(vendor, [gpu_row()], wanted=Requirements(gpu="4090", cuda=cuda))

        assert queries(vendor)[0].get("minCudaVersion") == sent
        assert {offer.cuda for offer in found} == {None if sent is None else float(sent)}
        assert {offer.extra.get("cuda") for offer in found} == {sent}

    async def test_other_peoples_machines_can_be_ruled_out(self, vendor: Vendor) -> None:
        """By what is trusted, or by a setting; then that cloud is not even asked."""
        wanted = Requirements(gpu="RTX 4090", trust="datacenter")
        found = await quoted(vendor, [gpu_row()], [gpu_row()], wanted)
        assert {query["cloud"] for query in queries(vendor)} == {"SECURE"}
        assert {offer.trust for offer in found} == {TrustTier.DATACENTER}

        vendor.asked.clear()
        found = await quoted(vendor, [gpu_row()], [gpu_row()], clouds="community")
        assert {query["cloud"] for query in queries(vendor)} == {"COMMUNITY"}
        assert {offer.trust for offer in found} == {TrustTier.VERIFIED}

    @pytest.mark.parametrize(
        "wanted", [Requirements(gpu="4090", spot=True), Requirements(gpu="4090", trust="own")]
    )
    async def test_what_is_never_had_here_is_not_asked_for(
        self, vendor: Vendor, wanted: Requirements
    ) -> None:
        """Interruptible pods are gone from the API; nobody's own machine was ever in it."""
        assert await quoted(vendor, [gpu_row()], wanted=wanted) == []
        assert vendor.asked == []

    async def test_without_a_key_nothing_is_asked(self, vendor: Vendor) -> None:
        """The error names the variable to set."""
        async with vendor.provider(key=None) as provider:
            with pytest.raises(ProviderError, match="RUNPOD_API_KEY") as caught:
                await provider.quote(Requirements())

        assert meaning(caught.value) == ("auth", "account")
        assert vendor.asked == []

    async def test_the_broker_says_who_it_is(self, vendor: Vendor) -> None:
        """A guard in front of the API turns away clients that call themselves by a library's name."""
        await quoted(vendor, [gpu_row()])

        assert {r.headers["user-agent"].partition("/")[0] for r in vendor.asked} == {"gpubroker"}


class TestOffers:
    async def test_an_offer_is_one_type_in_one_cloud_and_country(self, vendor: Vendor) -> None:
        """With every part that the catalogue tells, and no more."""
        places = [
            {"id": "EU-RO-1", "name": "EU Romania 1", "availability": "LOW"},
            {"id": "EU-RO-2", "name": "EU Romania 2", "availability": "HIGH"},
            {"id": "US-TX-3", "name": "US Texas 3", "availability": "MEDIUM"},
            {"id": "US-KS-2", "name": "US Kansas 2", "availability": "NONE"},
        ]
        wanted = Requirements(gpu="RTX 4090", disk=19.5)
        found = await quoted(vendor, [gpu_row(dataCenters=places)], wanted=wanted)

        assert [offer.id for offer in found] == [
            "SECURE/NVIDIA GeForce RTX 4090/1/RO",
            "SECURE/NVIDIA GeForce RTX 4090/1/US",
        ]
        first = found[0]
        assert first.extra == {
            "gpu": "NVIDIA GeForce RTX 4090",
            "cloud": "SECURE",
            "count": "1",
            "dataCenters": "EU-RO-2,EU-RO-1",
        }
        assert found[1].extra["dataCenters"] == "US-TX-3"
        assert (first.gpu, first.count, first.vram, first.region) == ("RTX 4090", 1, 24, "RO")
        assert (first.compute_capability, first.disk, first.spot) == (8.9, 20, False)
        unknown = (first.cpus, first.ram, first.reliability, first.download, first.upload)
        assert (*unknown, first.driver, first.static_ip, first.host) == (None,) * 8
        assert first.simulated

    async def test_prices_are_exact_and_for_the_whole_pod(self, vendor: Vendor) -> None:
        """One GPU's price times their number; with the disk, by the month of 720 hours, in whole cents.

        A pod's rate may be rounded, and must not be dearer than what was agreed for that.
        """
        wanted = Requirements(gpu="RTX 4090", count=3, disk=50)
        (offer,) = await quoted(vendor, [gpu_row()], wanted=wanted)

        assert offer.price.machine == Money("2.07")
        assert offer.price.hourly == Money("2.08")  # 2.07, and 50 GB at 0.10 a month: 0.0069
        assert offer.count == 3

    async def test_each_cloud_has_its_own_price(self, vendor: Vendor) -> None:
        """And a public port is certain in the secure one alone."""
        found = await quoted(vendor, [gpu_row()], [gpu_row(dataCenters=[])])

        assert [(o.price.machine, o.open_ports, o.ssh) for o in found] == [
            (Money("0.34"), 0, False),
            (Money("0.69"), None, True),
        ]

    async def test_a_public_port_may_be_hoped_for(self, vendor: Vendor) -> None:
        """Who wants SSH everywhere is offered community pods for work that needs it, too."""
        found = await quoted(vendor, [gpu_row()], [gpu_row(dataCenters=[])], way="ssh")

        assert [offer.ssh for offer in found] == [True, True]

    async def test_without_a_named_place_it_is_offered_anywhere(self, vendor: Vendor) -> None:
        """One offer, pinned to nothing."""
        row = gpu_row()
        del row["dataCenters"]
        (offer,) = await quoted(vendor, [row])

        assert (offer.id, offer.region) == ("SECURE/NVIDIA GeForce RTX 4090/1", None)
        assert "dataCenters" not in offer.extra

    async def test_the_best_stocked_come_first(self, vendor: Vendor) -> None:
        """Stock is no reservation: among equals, more of it is less of a race."""
        stocks = ("LOW", "HIGH", "MEDIUM")
        rows = [gpu_row(id=f"GPU {stock}", availability=stock, dataCenters=[]) for stock in stocks]
        found = await quoted(vendor, rows[:2], rows[2:])

        assert [offer.extra["gpu"] for offer in found] == ["GPU HIGH", "GPU MEDIUM", "GPU LOW"]

    @pytest.mark.parametrize(
        "row",
        [
            gpu_row(availability="NONE"),
            gpu_row(secure=False),
            gpu_row(id="unknown"),
            gpu_row(price={"secure": 0, "community": 0.3}),
            gpu_row(price={"community": 0.3}),
            gpu_row(price={"secure": "much"}),
            gpu_row(price={"secure": -1}),
            gpu_row(price=None),
            gpu_row(memory=0),
            gpu_row(maxCount={"secure": 1, "community": 8}),
            gpu_row(dataCenters=[{"id": "EU-RO-1", "availability": "NONE"}]),
            gpu_row(id=7),
            "nonsense",
        ],
        ids=repr,
    )
    async def test_what_cannot_be_rented_is_left_out(self, vendor: Vendor, row: Any) -> None:
        """And costs no other row its place. A stale price beside "not sold" is not believed."""
        wanted = Requirements(gpu="4090", count=2)
        found = await quoted(vendor, [row, gpu_row(id="NVIDIA L4", memory=24)], wanted=wanted)

        assert [offer.gpu for offer in found] == ["L4"]

    async def test_what_is_odd_is_told_once(self, vendor: Vendor) -> None:
        """However often the market is asked."""
        for _ in range(2):
            await quoted(vendor, [gpu_row(price={"secure": 0})])

        assert len([text for kind, text in vendor.events if kind == "skipped"]) == 2
        vendor.events.clear()
        vendor.on("GET", GPUS, catalogue(gpu_row(price=None)))
        async with vendor.provider(clouds="secure") as provider:
            await provider.quote(Requirements())
            await provider.quote(Requirements())

        assert len(vendor.events) == 1

    @pytest.mark.parametrize(("id_", "memory", "name"), IDS)
    async def test_every_spelling_is_a_known_model(
        self, vendor: Vendor, id_: str, memory: int, name: str
    ) -> None:
        """Found under the name that people use, and ordered in the vendor's own spelling."""
        row = gpu_row(id=id_, memory=memory)
        (offer,) = await quoted(vendor, [row], wanted=Requirements(gpu=name))

        assert offer.gpu == parse_gpu(name) == name
        assert offer.extra["gpu"] == id_

    @pytest.mark.parametrize(
        ("id_", "region"),
        [
            ("EU-RO-1", "RO"),
            ("EUR-IS-2", "IS"),
            ("US-TX-3", "US"),
            ("US-DE-1", "US"),
            ("CA-MTL-1", "CA"),
            ("OC-AU-1", "AU"),
            ("AP-JP-1", "JP"),
            ("EU-XYZ-1", "EU-XYZ-1"),
            ("MOON-1", "MOON-1"),
            ("XX-YY-1", "XX-YY-1"),
        ],
    )
    def test_a_data_centre_is_in_a_country(self, id_: str, region: str) -> None:
        """By the shape of its id; one of another shape is a region of its own."""
        assert country(id_) == region

    async def test_a_bad_host_condemns_its_data_centres(self, vendor: Vendor) -> None:
        """The same one would be given again there; other countries are tried before it."""
        places = [{"id": id_, "name": id_, "availability": "LOW"} for id_ in ("EU-RO-1", "US-TX-3")]
        one, other = await quoted(vendor, [gpu_row(dataCenters=places)])
        broken = ProviderError("no driver", kind=ErrorKind.HOST_BROKEN, scope=Scope.HOST)

        assert condemned(broken, one) == (Scope.OFFER, one.id)
        assert one.id != other.id


class TestFailing:
    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (problem(401, "missing bearer token"), ("auth", "account")),
            (problem(403, "access denied"), ("auth", "account")),
            (page("error code: 1010", 403), ("transient", "provider")),
            (problem(422, "Request validation failed."), ("bad request", "provider")),
            (problem(429, "rate limit exceeded"), ("rate limit", "account")),
            (problem(410, "gone"), ("transient", "provider")),
            (problem(404, "The requested path was not found."), ("transient", "provider")),
            (problem(500, "oops"), ("transient", "provider")),
            (page("<html>", 502), ("transient", "provider")),
            (said(200, []), ("transient", "provider")),
            (said(200, {"gpus": None}), ("transient", "provider")),
            (httpx.Response(200), ("transient", "provider")),
        ],
        ids=lambda value: str(value.status_code) if isinstance(value, httpx.Response) else "",
    )
    async def test_a_refusal_is_an_error_of_its_kind(
        self, vendor: Vendor, answer: httpx.Response, expected: tuple[str, str]
    ) -> None:
        """And never an empty market."""
        with pytest.raises(ProviderError) as caught:
            await quoted(vendor, answer, answer)

        assert meaning(caught.value) == expected
        assert shows_no_key(caught.value)

    async def test_one_cloud_does_not_hide_the_other(self, vendor: Vendor) -> None:
        """What the other one has is offered, and the failure told."""
        found = await quoted(vendor, [gpu_row()], problem(500, "oops"))

        assert len(found) == 1
        assert any("oops" in text for _, text in vendor.events)
