"""Logs, charges and the balance."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.providers.answers import meaning, page, said

from gpubroker import Money, ProviderError
from gpubroker_runpod.billing import hours

from .vendor import KEY, MACHINE, POD, Vendor, events, problem, shows_no_key

pytestmark = pytest.mark.anyio

LOGS = f"/v2/pods/{POD}/logs"
BILLS = "/v2/billing/pods"


class TestLogs:
    async def test_they_are_what_the_container_printed(self, vendor: Vendor) -> None:
        """Read through the authenticated API: nobody else can have written them."""
        vendor.on("GET", LOGS, events("one", "two"))
        async with vendor.provider() as provider:
            assert (await provider.logs(MACHINE)).splitlines() == ["one", "two"]

        (asked,) = vendor.asked
        assert asked.url.params["source"] == "container"
        assert asked.headers["authorization"] == f"Bearer {KEY}"

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (problem(404, "pod not found"), ("transient", "provider")),
            (problem(401, "expired"), ("auth", "account")),
            (page("<html>", 502), ("transient", "provider")),
            (httpx.ConnectError("refused"), ("transient", "provider")),
        ],
    )
    async def test_a_refusal_is_an_error(
        self, vendor: Vendor, answer: Any, expected: tuple[str, str]
    ) -> None:
        """They are asked for again."""
        vendor.on("GET", LOGS, answer)
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError) as caught:
                await provider.logs(MACHINE)

        assert meaning(caught.value) == expected
        assert shows_no_key(caught.value)


def record(pod_id: Any, amount: Any) -> dict[str, Any]:
    return {
        "startTime": "2026-11-20T09:00:00Z",
        "endTime": "2026-11-20T10:00:00Z",
        "podId": pod_id,
        "totalAmount": amount,
        "gpuAmount": 0.03,
        "cpuAmount": 0,
        "diskAmount": 0.0004,
    }


class TestCharges:
    async def test_the_records_of_a_pod_are_summed_exactly(self, vendor: Vendor) -> None:
        """One for each hour that it lived in."""
        records = [record(POD, 0.1), record("other", 1), record(POD, 0.2), record(POD, 0.0312)]
        vendor.on("GET", BILLS, said(200, {"records": records}))
        async with vendor.provider() as provider:
            found = await provider.charges(1795166000.0, 1795171000.0)

        assert {c.machine_id: c.amount for c in found} == {
            POD: Money("0.3312"),
            "other": Money("1"),
        }
        assert dict(vendor.asked[0].url.params) == {
            "startTime": "2026-11-20T09:00:00Z",
            "endTime": "2026-11-20T11:00:00Z",
            "bucketSize": "hour",
        }

    async def test_a_pod_with_an_unreadable_record_is_left_out(self, vendor: Vendor) -> None:
        """Too little would be put on record as the whole cost."""
        records = [record(POD, 0.1), record(POD, "much"), record("b", 1), record(7, 1), "x"]
        vendor.on("GET", BILLS, said(200, {"records": records}))
        async with vendor.provider() as provider:
            found = await provider.charges(0, 1)

        assert [charge.machine_id for charge in found] == ["b"]

    @pytest.mark.parametrize("answer", [said(200, {}), problem(500, "oops"), said(200, [])])
    async def test_what_is_no_list_is_an_error(self, vendor: Vendor, answer: Any) -> None:
        """Asked again later; no record is no proof that nothing was billed."""
        vendor.on("GET", BILLS, answer)
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError) as caught:
                await provider.charges(0, 1)

        assert meaning(caught.value) == ("transient", "provider")

    def test_whole_hours_cover_the_span(self) -> None:
        """Also one that has no length, or ends within the hour in which it begins."""
        assert hours(0, 0) == ("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z")
        assert hours(3599.5, 3600) == ("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z")
        assert hours(3600, 7200.5) == ("1970-01-01T01:00:00Z", "1970-01-01T03:00:00Z")


class TestBalance:
    async def test_it_is_the_credit_that_is_left(self, vendor: Vendor) -> None:
        """One field is asked for: an unknown one fails the whole query."""
        answer = said(200, {"data": {"myself": {"clientBalance": 12.34}}})
        vendor.on("POST", "/graphql", answer)
        async with vendor.provider() as provider:
            assert await provider.balance() == Money("12.34")

        assert [json.loads(r.content) for r in vendor.asked] == [
            {"query": "query { myself { clientBalance } }"}
        ]

    @pytest.mark.parametrize(
        "answer",
        [
            problem(410, "Gone"),
            problem(401, "restricted"),
            problem(404, "The requested path was not found."),
            page("<html>", 502),
            said(200, {"errors": [{"message": "no"}], "data": {"myself": None}}),
            said(200, {"errors": [{"message": "no"}], "data": {"myself": {"clientBalance": 1}}}),
            said(200, {"data": {}}),
            said(200, {"data": {"myself": {"clientBalance": "much"}}}),
            said(200, []),
            httpx.Response(200),
        ],
    )
    async def test_what_cannot_be_had_is_unknown(self, vendor: Vendor, answer: Any) -> None:
        """The API that tells it is about to be retired; nothing else depends on it."""
        vendor.on("POST", "/graphql", answer)
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError, match="unknown") as caught:
                await provider.balance()

        assert meaning(caught.value) == ("transient", "account")
        assert shows_no_key(caught.value)
