from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest

from gpubroker import Money
from gpubroker_vast.emulator import VastEmulator

from .account import Account, eventually


def charges(account: Account, **query: str) -> dict[str, Any]:
    """The charges of today, and of the day before and after."""
    now = time.time()
    day = {"gte": int(now) - 86_400, "lte": int(now) + 86_400}
    answer = account.http.get(
        "/api/v0/charges/", params={"select_filters": json.dumps({"day": day}), **query}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.text, parse_float=Decimal)
    return found


class TestCharges:
    def test_are_what_the_vendor_shows_and_add_up(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """For each instance, alive or not: an entry for the cards, and one for the disk."""
        cloud.switch(charge_digits=9)
        number = account.rent(label="mine")
        account.destroy(number)

        [row] = charges(account)["results"]

        assert row["source"] == f"instance-{number}"
        assert row["metadata"] == {"label": "mine"}
        assert {item["type"] for item in row["items"]} == {"gpu", "disk"}
        assert row["amount"] == sum(item["amount"] for item in row["items"])
        assert Money(row["amount"]) == cloud.billed(number)
        assert abs((cloud.billed(number) - cloud.charges()[str(number)]).amount) < Decimal("2e-9")

    def test_are_rounded_to_tenths_of_cents(self, account: Account, cloud: VastEmulator) -> None:
        """So they differ from the exact cost, and `billed` says what they come to."""
        number = account.rent()
        account.destroy(number)

        assert cloud.billed(number) == Money(0)
        assert cloud.charges()[str(number)] > Money(0)

    def test_lag_behind(self, account: Account, cloud: VastEmulator) -> None:
        """What is not shown yet may be charged all the same."""
        cloud.switch(charge_digits=9, settling=3600)
        account.rent()

        assert charges(account)["results"] == []

    def test_come_in_pages(self, account: Account, cloud: VastEmulator) -> None:
        """With a token for the next one."""
        numbers = {account.create().json()["new_contract"] for _ in range(3)}
        time.sleep(0.001)  # so that each has cost something: a microsecond would do

        first = charges(account, limit="2", latest_first="false")
        second = charges(account, limit="2", latest_first="false", after_token=first["next_token"])

        assert first["total"] == 3
        assert (first["count"], second["count"], second["next_token"]) == (2, 1, None)
        sources = {row["source"] for page in (first, second) for row in page["results"]}
        assert sources == {f"instance-{number}" for number in numbers}

    def test_need_a_range_of_days(self, account: Account) -> None:
        """From when to when."""
        answer = account.http.get("/api/v0/charges/")

        assert answer.status_code == 400
        assert "'day' gte and lte" in answer.json()["msg"]


class TestBilling:
    def test_begins_with_the_disk_and_with_the_cards_once_they_run(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """Loading is free, but for the disk."""
        cloud.switch(boot=30)
        number = account.create().json()["new_contract"]
        account.until(number, lambda row: row["actual_status"] == "loading")

        rate = account.http.get("/api/v0/users/spend-rate/").json()

        assert rate["gpu_cost_per_hour"] == 0
        assert rate["container_storage_cost_per_hour"] > 0
        assert rate["has_active_resources"] is True

    def test_is_at_the_price_of_the_order(self, account: Account, cloud: VastEmulator) -> None:
        """Whatever the market does afterwards."""
        offer = account.cheapest()
        number = account.create(offer["id"]).json()["new_contract"]
        account.until(number, lambda row: row["actual_status"] == "running")
        cloud.change_offer(offer["id"], price="9")

        row = account.show(number)

        assert row is not None
        assert row["dph_base"] == offer["dph_base"]
        rate = account.http.get("/api/v0/users/spend-rate/").json()
        assert rate["gpu_cost_per_hour"] == offer["dph_base"]

    def test_takes_from_the_credit(self, account: Account, cloud: VastEmulator) -> None:
        """Which the account shows, among things that nobody else should see."""
        number = account.rent()
        account.destroy(number)

        user = account.http.get("/api/v0/users/current").json()

        assert user["credit"] == pytest.approx(float((Money(100) - cloud.total()).amount))
        assert user["api_key"] == cloud.key

    def test_stops_instances_when_the_credit_is_used_up(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """Their disks go on to cost; a start is refused."""
        number = account.rent()

        cloud.switch(credit=0)

        account.until(number, lambda row: row["actual_status"] == "exited")
        assert cloud.billing_now() == (str(number),)
        answer = account.http.put(f"/api/v0/instances/{number}/", json={"state": "running"})
        assert answer.json()["error"] == "missing_billing"

    def test_of_a_bid_that_changed_is_at_both_prices(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """Each for its time."""
        cloud.switch(charge_digits=9)
        offer = account.cheapest()
        number = account.create(offer["id"], price=0.5).json()["new_contract"]
        account.until(number, lambda row: row["actual_status"] == "running")

        url = f"/api/v0/instances/bid_price/{number}/"
        account.http.put(url, json={"client_id": "me", "price": 0.75})
        eventually(lambda: len(charges(account)["results"][0]["items"]) == 3)

        items = charges(account)["results"][0]["items"]
        rates = {item["description"].rpartition("$")[2] for item in items}
        assert {"0.500/hour", "0.750/hour"} <= rates


class TestLogs:
    def test_are_there_after_some_polls(self, account: Account, cloud: VastEmulator) -> None:
        """Refused until then, by a store that is not the API."""
        number = account.rent(onstart="echo one; echo two; echo three")
        log = cloud.folder(number) / "log"
        eventually(lambda: log.exists() and "three" in log.read_text())
        cloud.afflict(number, "logs", polls=2, status=404)
        url = f"/api/v0/instances/request_logs/{number}/"
        result = account.http.put(url, json={"tail": "2"}).json()["result_url"]
        del account.http.headers["authorization"]

        answers = [account.http.get(result) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [404, 404, 200]
        assert answers[-1].text == "two\nthree\n"

    def test_are_not_given_to_one_who_shows_the_key(
        self, account: Account, cloud: VastEmulator
    ) -> None:
        """It would have been given to somebody else, so it is written down."""
        number = account.rent()
        url = f"/api/v0/instances/request_logs/{number}/"
        result = account.http.put(url, json={}).json()["result_url"]

        answer = account.http.get(result)

        assert answer.status_code == 400
        assert len(cloud.leaks) == 1
        assert cloud.key not in cloud.leaks[0]

    def test_of_nobody_are_refused(self, account: Account) -> None:
        """In words of their own."""
        answer = account.http.put("/api/v0/instances/request_logs/1/", json={})

        assert answer.status_code == 404
        assert answer.json()["error"] == "invalid_id"

    def test_may_stay_empty(self, account: Account, cloud: VastEmulator) -> None:
        """Whatever was printed."""
        number = account.rent(onstart="echo one")
        log = cloud.folder(number) / "log"
        eventually(lambda: log.exists() and "one" in log.read_text())
        cloud.afflict(number, "logs", empty=True)
        url = f"/api/v0/instances/request_logs/{number}/"
        result = account.http.put(url, json={}).json()["result_url"]
        del account.http.headers["authorization"]

        assert account.http.get(result).text == ""


class TestKeys:
    def test_of_the_account_are_made_shown_and_deleted(self, account: Account) -> None:
        """The same one twice is refused with a status of 200."""
        made = account.http.post("/api/v0/ssh/", json={"ssh_key": "ssh-ed25519 AAAA one"}).json()
        again = account.http.post("/api/v0/ssh/", json={"ssh_key": "ssh-ed25519 AAAA two"})

        assert [key["id"] for key in account.http.get("/api/v0/ssh/").json()] == [made["key"]["id"]]
        assert (again.status_code, again.json()["success"]) == (200, False)
        url = f"/api/v0/ssh/{made['key']['id']}/"
        assert account.http.request("DELETE", url, json={}).json() == {"success": True}
        assert account.http.request("DELETE", url, json={}).status_code == 400

    def test_of_an_instance_are_a_text_that_holds_json(self, account: Account) -> None:
        """One that is there already is refused with a status of 200."""
        number = account.create().json()["new_contract"]
        url = f"/api/v0/instances/{number}/ssh/"
        account.http.post(url, json={"ssh_key": "ssh-ed25519 AAAA one"})

        again = account.http.post(url, json={"ssh_key": "ssh-ed25519 AAAA one"})

        assert again.json() == {
            "success": False,
            "msg": "SSH key already associated with instance.",
        }
        [key] = json.loads(account.http.get(url).json()["ssh_keys"])
        assert key["public_key"] == "ssh-ed25519 AAAA one"
