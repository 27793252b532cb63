from __future__ import annotations

from typing import Any

import pytest

from gpubroker.model.gpus import parse_gpu
from gpubroker_runpod.emulator import RunPodEmulator
from gpubroker_runpod.emulator.market import Spot

from .account import L4, Account


class TestTypes:
    def test_are_many_and_are_sold_in_two_clouds(self, account: Account) -> None:
        """With a price for one card in each cloud; what is not sold there costs nothing."""
        rows = {row["id"]: row for row in account.gpus()}

        assert len(rows) > 25
        assert rows["NVIDIA GeForce RTX 4090"]["price"] == {
            "secure": 0.69,
            "community": 0.34,
            "serverless": 1.12,
        }
        l4 = rows[L4]
        assert (l4["secure"], l4["community"], l4["price"]["community"]) == (True, False, 0.0)
        assert (rows["unknown"]["secure"], rows["unknown"]["community"]) == (False, False)

    def test_can_be_read_one_by_one(self, account: Account) -> None:
        """Their ids have spaces, which a path holds encoded."""
        answer = account.http.get("/v2/catalog/gpus/NVIDIA%20A40")

        assert answer.json()["id"] == "NVIDIA A40"
        assert account.http.get("/v2/catalog/gpus/nonsense").status_code == 404

    def test_tell_nothing_of_what_is_free_unless_asked(self, account: Account) -> None:
        """Prices alone."""
        row = account.http.get("/v2/catalog/gpus").json()["gpus"][0]

        assert not {"availability", "dataCenters", "cudaVersions"} & set(row)


class TestAvailability:
    def test_names_the_data_centers(self, account: Account) -> None:
        """Only those that have the type, with a level each; the best of them is the type's."""
        row = account.gpu()

        levels = {place["availability"] for place in row["dataCenters"]}
        assert row["availability"] == "HIGH"
        assert levels == {"HIGH"}
        assert {"version", "available"} == set(row["cudaVersions"][0])

    @pytest.mark.parametrize(
        ("cards", "level"), [(0, "NONE"), (1, "LOW"), (6, "MEDIUM"), (12, "HIGH")]
    )
    def test_is_a_level(
        self, account: Account, cloud: RunPodEmulator, cards: int, level: str
    ) -> None:
        """Of four."""
        cloud.set_stock(cards, gpu=L4)

        assert account.gpu()["availability"] == level

    def test_is_of_machines_with_so_many_cards(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """Three cards are no use to one who needs four; what no host has is nowhere."""
        cloud.set_stock(3, gpu=L4)

        assert account.gpu(count=4)["availability"] == "NONE"
        none = account.gpu(count=9)
        assert none["availability"] == "NONE"
        assert "dataCenters" not in none

    def test_is_of_one_cloud_and_one_product(self, account: Account) -> None:
        """Of the secure one, if nothing is said; workers have a stock of their own."""
        assert account.gpu(cloud="COMMUNITY")["availability"] == "NONE"
        assert account.gpu(product="SERVERLESS")["availability"] == "NONE"

    def test_is_narrowed_by_country_and_by_version(self, account: Account) -> None:
        """Any of some countries; just these versions, or one and later ones."""
        places = {place["id"] for place in account.gpu()["dataCenters"]}

        in_europe = account.gpu(countryCodes="RO,CZ")["dataCenters"]
        exact = account.gpu(cudaVersions="13.0")["cudaVersions"]
        later = account.gpu(minCudaVersion="12.5")["cudaVersions"]

        assert {place["id"] for place in in_europe} == {"EU-RO-1", "EU-CZ-1"} < places
        assert [row["version"] for row in exact] == ["13.0"]
        assert {row["version"] for row in later} == {"12.8", "13.0"}

    def test_knows_no_version_of_other_makers(self, account: Account) -> None:
        """The key is missing."""
        row = account.gpu("AMD Instinct MI300X OAM")

        assert row["manufacturer"] == "AMD"
        assert row["availability"] != "NONE"
        assert "cudaVersions" not in row

    def test_falls_with_orders_and_rises_with_their_end(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """Both read one stock."""
        cloud.set_stock(0, gpu=L4)
        cloud.set_stock(1, gpu=L4, place="EU-RO-1")
        pod = account.order()

        assert account.gpu()["availability"] == "NONE"
        account.delete(pod)
        assert account.gpu()["availability"] == "LOW"

    def test_may_lag_behind(self, account: Account, cloud: RunPodEmulator) -> None:
        """The catalogue still shows what no order finds."""
        cloud.switch(catalogue_lag=3600.0)
        account.gpus()
        cloud.set_stock(0)

        assert account.gpu()["availability"] == "HIGH"
        assert account.create().status_code == 400


class TestRules:
    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ({"include": "AVAILABILITY"}, 400),
            ({"product": "POD"}, 400),
            ({"count": "2"}, 400),
            ({"cloud": "COMMUNITY"}, 400),
            ({"include": "EVERYTHING"}, 422),
            ({"product": "TOASTER"}, 422),
            ({"count": "0"}, 422),
            ({"cloud": "ALL"}, 422),
            ({"countryCodes": "ro"}, 422),
            ({"minCudaVersion": "new"}, 422),
            ({"cudaVersions": "12.8", "minCudaVersion": "12.4"}, 400),
        ],
    )
    def test_that_are_broken_are_refused(
        self, account: Account, query: dict[str, str], status: int
    ) -> None:
        """400 for what does not go together, 422 for what is no value."""
        answer = account.http.get("/v2/catalog/gpus", params=query)

        assert answer.status_code == status
        assert account.http.get(f"/v2/catalog/gpus/{L4}", params=query).status_code == status


class TestDataCenters:
    def ids(self, account: Account, **query: Any) -> set[str]:
        """Those that a query finds."""
        answer = account.http.get("/v2/catalog/datacenters", params=query)
        return {row["id"] for row in answer.json()["dataCenters"]}

    def test_are_found_by_where_they_are_and_what_they_have(self, account: Account) -> None:
        """Any of some regions; all of some certificates and of some kinds of volumes."""
        everywhere = self.ids(account)

        assert self.ids(account, regions="OCEANIA,ASIA") == {"OC-AU-1", "AP-JP-1"}
        assert self.ids(account, compliance="GDPR,RENEWABLE") == {"EUR-IS-1", "EUR-NO-1"}
        assert self.ids(account, networkVolumeTypes="HIGH_PERFORMANCE") == {"AP-JP-1"}
        assert self.ids(account, globalNetwork="false") == {"OC-AU-1"}
        assert len(everywhere) >= 15

    def test_name_their_cards_when_asked(self, account: Account, cloud: RunPodEmulator) -> None:
        """Each with a level, of either cloud."""
        url = "/v2/catalog/datacenters/EU-RO-1"
        cloud.set_stock(0, gpu=L4)

        plain = account.http.get(url).json()
        full = account.http.get(url, params={"include": "GPU_AVAILABILITY"}).json()

        assert "gpuAvailability" not in plain
        levels = {row["id"]: row["availability"] for row in full["gpuAvailability"]}
        assert levels[L4] == "NONE"
        assert account.http.get("/v2/catalog/datacenters/nowhere").status_code == 404


def test_each_type_is_a_model_that_the_broker_knows(account: Account) -> None:
    """So that it can be asked for by name."""
    for row in account.gpus():
        if row["id"] != "unknown" and "MIG" not in row["id"]:
            assert parse_gpu(row["id"])


def test_one_seed_makes_one_market() -> None:
    """And another one another."""
    stocks: list[dict[Spot, int]] = []
    for seed in (1, 1, 2):
        with RunPodEmulator(seed=seed, scarcity=0.5) as cloud:
            stocks.append(dict(cloud.inside.world.market.stock))

    assert stocks[0] == stocks[1] != stocks[2]
