from __future__ import annotations

from decimal import Decimal

import pytest

from gpubroker_vast.emulator import VastEmulator

from .account import Account


class TestServerDefaults:
    def test_only_what_is_verified_and_free_is_found(self, account: Account) -> None:
        """A query that says nothing means verified, rentable and not one's own."""
        found = account.search()

        assert found
        assert {row["verification"] for row in found} == {"verified"}
        assert all(row["rentable"] and not row["rented"] for row in found)

    def test_any_lifts_a_default(self, account: Account) -> None:
        """``{"eq": "any"}`` is how a default is lifted; leaving the word out does not."""
        found = account.search(verified={"eq": "any"}, limit=64)

        assert {row["verification"] for row in found} > {"verified"}

    def test_an_offer_that_was_rented_is_found_no_more(self, account: Account) -> None:
        """Its cards are taken, and the rest of its host counts as held by the caller."""
        offer = account.cheapest()
        account.create(offer["id"])

        assert offer["id"] not in {row["id"] for row in account.search()}


class TestConditions:
    def test_numbers_may_come_as_text(self, account: Account) -> None:
        """Clients send what people typed."""
        found = account.search(num_gpus={"eq": "2"}, reliability={"gt": "0.9"})

        assert found
        assert {row["num_gpus"] for row in found} == {2}

    def test_several_operators_on_a_field_all_hold(self, account: Account) -> None:
        """They are joined by "and"."""
        found = account.search(gpu_ram={"gte": 24000.0, "lt": 30000}, limit=64)

        assert found
        assert all(24000 <= row["gpu_ram"] < 30000 for row in found)

    def test_places_are_found_by_their_country(self, account: Account) -> None:
        """Rows name a place; the condition is on two letters."""
        found = account.search(geolocation={"in": ["SE", "NO"]}, limit=64)

        assert found
        assert all(row["geolocation"][-2:] in ("SE", "NO") for row in found)

    def test_the_id_finds_nothing_and_the_ask_finds_the_offer(self, account: Account) -> None:
        """Seen at the vendor: one of two equal numbers cannot be searched by."""
        number = account.cheapest()["id"]

        assert account.search(id={"eq": number}) == []
        assert [row["id"] for row in account.search(ask_contract_id={"eq": number})] == [number]

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ({"num_gpus": 1}, "Invalid query: must be dict of conditions"),
            ({"num_gpus": {"like": 1}}, "like is not a valid search op"),
            ({"nonsense": {"eq": 1}}, "nonsense is not a valid search key"),
        ],
    )
    def test_nonsense_is_refused(
        self, account: Account, query: dict[str, object], message: str
    ) -> None:
        """With the vendor's words."""
        answer = account.http.post("/api/v0/bundles/", json=query)

        assert answer.status_code == 400
        assert answer.json()["error"] == "invalid_request"
        assert message in answer.json()["msg"]


class TestAnswers:
    def test_no_answer_holds_more_than_64_offers(self, account: Account) -> None:
        """Whatever limit was asked for."""
        assert len(account.search(verified={"eq": "any"}, limit=1000)) == 64

    def test_the_rest_is_read_by_price(self, account: Account) -> None:
        """Asking for what is dearer than the last one brings every offer."""
        seen: set[int] = set()
        last = 0.0
        while page := account.search(
            verified={"eq": "any"}, dph_total={"gt": last}, order=[["dph_total", "asc"]]
        ):
            seen.update(row["id"] for row in page)
            last = page[-1]["dph_total"]

        assert len(seen) > 64

    def test_the_type_is_exactly_json(self, account: Account) -> None:
        """The vendor's own client prints nothing if a character set is named."""
        answer = account.http.post("/api/v0/bundles/", json={})

        assert answer.headers["content-type"] == "application/json"

    def test_no_key_is_needed(self, account: Account) -> None:
        """Anybody may look."""
        del account.http.headers["authorization"]

        assert account.search()

    def test_a_query_in_the_address_is_the_same(self, account: Account) -> None:
        """With columns that are chosen; one that does not exist is null."""
        answer = account.http.get(
            "/api/v0/bundles/",
            params={"q": '{"limit": 3}', "select_cols": '["id", "gpu_name", "nonsense"]'},
        )

        offers = answer.json()["offers"]
        assert len(offers) == 3
        assert [set(row) for row in offers] == [{"id", "gpu_name", "nonsense"}] * 3
        assert offers[0]["nonsense"] is None


class TestPrices:
    def test_disk_is_priced_for_a_month_of_720_hours(self, account: Account) -> None:
        """The total is that of the cards and of the disk that was named."""
        row = account.search(allocated_storage=100, limit=1)[0]

        disk = Decimal(str(row["storage_cost"])) * 100 / 720
        assert abs(Decimal(str(row["storage_total_cost"])) - disk) < Decimal("1e-9")
        total = Decimal(str(row["dph_base"])) + Decimal(str(row["storage_total_cost"]))
        assert Decimal(str(row["dph_total"])) == total

    def test_the_size_of_the_disk_decides_the_order(self, account: Account) -> None:
        """Dear storage makes a cheap machine dear."""
        order = [["dph_total", "asc"]]
        small = account.search(allocated_storage=8, order=order)
        large = account.search(allocated_storage=3000, order=order)

        assert [row["id"] for row in small] != [row["id"] for row in large]
        assert [r["dph_total"] for r in large] == sorted(r["dph_total"] for r in large)

    def test_bids_have_the_same_id_and_the_floor_as_price(self, account: Account) -> None:
        """A machine's row for bids differs in its price alone."""
        offer = account.cheapest()
        [bid] = account.search(type="bid", ask_contract_id={"eq": offer["id"]})

        assert bid["is_bid"]
        assert bid["dph_base"] == bid["min_bid"] == offer["min_bid"] < offer["dph_base"]

    def test_one_seed_makes_one_market(self) -> None:
        """What was seen once can be seen again."""

        def offers(seed: int) -> list[tuple[int, float]]:
            with VastEmulator(seed=seed) as cloud:
                return [(row["id"], row["dph_base"]) for row in cloud.offers()]

        assert offers(3) == offers(3)
        assert offers(3) != offers(4)


def test_rows_that_were_read_count_against_the_day(account: Account, cloud: VastEmulator) -> None:
    """When the day's rows are used up, the answer says when the next day begins."""
    cloud.switch(daily_rows=3)
    account.search(limit=3)

    answer = account.http.post("/api/v0/bundles/", json={"limit": 1})

    assert answer.status_code == 429
    assert answer.json()["error"] == "search_quota_exceeded"
    assert int(answer.headers["x-ratelimit-reset"]) % 86_400 == 0
