from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from gpubroker import Money
from gpubroker_runpod.emulator import RunPodEmulator

from .account import Account, eventually

BALANCE = "query { myself { clientBalance currentSpendPerHr } }"


def history(account: Account, **query: Any) -> dict[str, Any]:
    """The billing history."""
    answer = account.http.get("/v2/billing/pods", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.text, parse_float=Decimal)
    return found


class TestHistory:
    def test_shows_what_each_pod_cost_and_adds_up(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """For cards and for disk, alive or not."""
        cloud.switch(charge_digits=9)
        pods = [account.rent() for _ in range(2)]
        for pod in pods:
            account.delete(pod)

        found = history(account)

        records = {record["podId"]: record for record in found["records"]}
        assert set(records) == set(pods)
        for pod, record in records.items():
            assert record["totalAmount"] == record["gpuAmount"] + record["diskAmount"]
            assert Money(record["totalAmount"]) == cloud.billed(pod)
            assert abs((cloud.billed(pod) - cloud.charges()[pod]).amount) < Decimal("2e-9")
        metadata = found["metadata"]
        assert (metadata["recordCount"], metadata["uniquePodCount"]) == (2, 2)
        assert metadata["totals"]["totalAmount"] == sum(r["totalAmount"] for r in found["records"])

    def test_can_be_of_one_pod(self, account: Account) -> None:
        """And is empty for one that nobody knows."""
        pod, _ = account.rent(), account.rent()
        eventually(lambda: len(history(account)["records"]) == 2)

        assert [r["podId"] for r in history(account, podId=pod)["records"]] == [pod]
        assert history(account, podId="nobody")["records"] == []

    def test_lags_behind(self, account: Account, cloud: RunPodEmulator) -> None:
        """What is not shown yet was charged all the same."""
        cloud.switch(settling=7200)
        account.rent()

        assert history(account)["records"] == []

    @pytest.mark.parametrize("size", ["hour", "day", "week", "month", "year"])
    def test_comes_in_buckets(self, account: Account, size: str) -> None:
        """Which begin and end at whole ones; a window is widened to these."""
        pod = account.rent()
        eventually(lambda: history(account)["records"])
        now = datetime.now(UTC)
        window = {"startTime": (now - timedelta(hours=1)).isoformat(), "endTime": now.isoformat()}

        found = history(account, bucketSize=size, podId=pod, **window)

        record = found["records"][-1]
        start, end = (datetime.fromisoformat(record[name]) for name in ("startTime", "endTime"))
        assert start <= now < end
        assert (start.minute, start.second) == (0, 0)
        query = found["metadata"]["query"]
        assert datetime.fromisoformat(query["startTime"]) <= now - timedelta(hours=1)
        assert query["bucketSize"] == size

    def test_can_be_of_the_last_buckets(self, account: Account) -> None:
        """So many, up to now."""
        query = history(account, bucketSize="hour", lastN=3)["metadata"]["query"]

        start, end = (datetime.fromisoformat(query[name]) for name in ("startTime", "endTime"))
        assert end - start == timedelta(hours=3)

    def test_spans_buckets_that_each_have_their_part(
        self, account: Account, cloud: RunPodEmulator
    ) -> None:
        """What was billed for two hours and a half is in three records, or in four."""
        pod = account.order()
        spans = cloud.inside.world.books.of(pod)
        for span in spans:
            span.start -= 9_000_000_000

        records = history(account, bucketSize="hour")["records"]

        assert len(records) in (3, 4)
        total = sum(record["totalAmount"] for record in records)
        assert abs(total - cloud.charges()[pod].amount) < Decimal("1e-4")

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ({"bucketSize": "minute"}, 422),
            ({"startTime": "yesterday"}, 422),
            ({"lastN": "x"}, 422),
            ({"lastN": "2", "endTime": "2026-01-01T00:00:00Z"}, 400),
            ({"startTime": "2026-01-02T00:00:00Z", "endTime": "2026-01-01T00:00:00Z"}, 400),
        ],
    )
    def test_refuses_what_makes_no_sense(
        self, account: Account, query: dict[str, str], status: int
    ) -> None:
        """In two ways."""
        assert account.http.get("/v2/billing/pods", params=query).status_code == status


class TestBalance:
    def ask(self, account: Account, query: str = BALANCE) -> Any:
        """The answer to a query."""
        return account.http.post("/graphql", json={"query": query}).json()

    def test_is_what_was_not_spent(self, account: Account, cloud: RunPodEmulator) -> None:
        """And what is spent per hour."""
        pod = account.rent()
        rate = self.ask(account)["data"]["myself"]["currentSpendPerHr"]
        account.delete(pod)

        found = self.ask(account)["data"]["myself"]

        assert rate == pytest.approx(0.39 + 0.1 * 20 / 730)
        assert found["clientBalance"] == pytest.approx(float((Money(100) - cloud.total()).amount))
        assert found["currentSpendPerHr"] == 0

    def test_is_given_for_fields_that_exist(self, account: Account) -> None:
        """One that does not fails the whole query."""
        assert set(self.ask(account, "{ myself { id } }")["data"]["myself"]) == {"id"}
        failed = self.ask(account, "query { myself { clientBalance wealth } }")
        assert "wealth" in failed["errors"][0]["message"]
        assert "errors" in self.ask(account, "query { gpuTypes { id } }")

    def test_may_be_out_of_reach(self, account: Account, cloud: RunPodEmulator) -> None:
        """The API is gone, or the key may not."""
        cloud.switch(graphql="gone")
        assert account.http.post("/graphql", json={"query": BALANCE}).status_code == 410
        cloud.switch(graphql="restricted")

        answer = account.http.post("/graphql", json={"query": BALANCE})

        assert answer.status_code == 200
        assert answer.json()["data"] == {"myself": None}
        assert answer.json()["errors"]

    def test_that_is_used_up_ends_every_pod(self, account: Account, cloud: RunPodEmulator) -> None:
        """By itself."""
        account.rent()

        cloud.switch(credit=0)

        eventually(lambda: cloud.billing_now() == () and not account.listed())


def test_a_pod_is_ended_over_graphql(account: Account, cloud: RunPodEmulator) -> None:
    """By its id as a literal or as a variable; the second time it is not found."""
    pod, other = account.order(), account.order()
    literal = f'mutation{{podTerminate(input:{{podId:"{pod}"}})}}'
    variable = "mutation End($id: String!) { podTerminate(input: { podId: $id }) }"

    first = account.http.post("/graphql", json={"query": literal}).json()
    account.http.post("/graphql", json={"query": variable, "variables": {"id": other}})
    again = account.http.post("/graphql", json={"query": literal}).json()

    assert first == {"data": {"podTerminate": None}}
    assert again["errors"][0]["message"] == "pod not found to terminate"
    assert cloud.billing_now() == ()
