"""Logs, charges and the balance."""

from __future__ import annotations

import json

import httpx
import pytest
from tests.providers.answers import page, said

from gpubroker import ErrorKind, Machine, Money, ProviderError

from .vendor import KEY, MACHINE, Vendor, no, shows_no_key

pytestmark = pytest.mark.anyio

LOGS = "/api/v0/instances/request_logs/31337042/"
CHARGES = "/api/v0/charges/"
ACCOUNT = "/api/v0/users/current"
RESULT = "https://storage.test/logs/1.log"


def charge(source: str, amount: object) -> dict[str, object]:
    return {"type": "instance", "source": source, "amount": amount, "items": []}


class TestLogs:
    async def test_they_are_fetched_without_the_key(
        self, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once they are there: at first the storage says that there is nothing."""
        monkeypatch.setattr("gpubroker_vast.provider._LOG_PAUSE", 0.01)
        vendor.on("PUT", LOGS, said(body={"success": True, "result_url": f"{RESULT}?sig=1"}))
        vendor.on(
            "GET",
            "/logs/1.log",
            httpx.Response(404, text="<Error/>"),
            httpx.Response(200, text="booted\n"),
        )
        async with vendor.provider() as provider:
            assert await provider.logs(MACHINE) == "booted\n"

        fetched = [request for request in vendor.asked if request.url.path == "/logs/1.log"]
        assert vendor.sent("PUT", LOGS) == [{"tail": "200"}]
        assert len(fetched) == 2
        assert all(KEY not in str(request.headers.raw) for request in fetched)

    async def test_none_yet_is_no_error(
        self, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are asked for again anyway."""
        monkeypatch.setattr("gpubroker_vast.provider._LOG_PATIENCE", 0.05)
        monkeypatch.setattr("gpubroker_vast.provider._LOG_PAUSE", 0.01)
        vendor.on("PUT", LOGS, said(body={"success": True, "result_url": RESULT}))
        vendor.on("GET", "/logs/1.log", httpx.Response(403))
        async with vendor.provider() as provider:
            assert await provider.logs(MACHINE) == ""

    async def test_what_is_no_text_is_read_as_well_as_it_can_be(self, vendor: Vendor) -> None:
        """A machine prints what it likes."""
        vendor.on("PUT", LOGS, said(body={"success": True, "result_url": RESULT}))
        vendor.on("GET", "/logs/1.log", httpx.Response(200, content=b"\xff\xfeok"))
        async with vendor.provider() as provider:
            assert (await provider.logs(MACHINE)).endswith("ok")

    @pytest.mark.parametrize(
        "answer",
        [
            no(404, "invalid_id"),
            no(400, "invalid_args"),
            page(status=502),
            said(body={"success": True, "result_url": "http://storage.test/in-the-clear"}),
            said(body={"success": True, "result_url": "file:///etc/passwd"}),
        ],
    )
    async def test_failures_are_errors(self, vendor: Vendor, answer: httpx.Response) -> None:
        """So is a link that leads where no log can be."""
        vendor.on("PUT", LOGS, answer)
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError) as failed:
                await provider.logs(MACHINE)

        assert shows_no_key(failed.value)

    async def test_only_an_id_goes_into_the_path(self, vendor: Vendor) -> None:
        """What is no id of the vendor's is refused unsent."""
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError):
                await provider.logs(Machine(id="../1"))

        assert vendor.asked == []


class TestCharges:
    async def test_each_machine_once_and_exactly(self, vendor: Vendor) -> None:
        """Over all pages and rows; what is no machine is left out."""
        first = {
            "success": True,
            "next_token": "t",
            "results": [charge("instance-1", 0.1), charge("volume-9", 5)],
        }
        second = {
            "success": True,
            "next_token": None,
            "results": [charge("instance-1", 0.228), charge("instance-2", 0)],
        }
        vendor.on("GET", CHARGES, said(body=first), said(body=second))
        async with vendor.provider() as provider:
            found = await provider.charges(1_795_400_100.5, 1_795_402_231.0)

        assert {each.machine_id: each.amount for each in found} == {
            "1": Money("0.328"),
            "2": Money(0),
        }
        days = json.loads(vendor.asked[0].url.params["select_filters"])["day"]
        assert days == {"gte": 1_795_392_000, "lte": 1_795_478_399}
        assert vendor.asked[1].url.params["after_token"] == "t"

    async def test_a_part_that_cannot_be_read_leaves_its_machine_out(self, vendor: Vendor) -> None:
        """Half a bill is no bill."""
        rows = [charge("instance-1", 0.1), charge("instance-1", None), charge("instance-2", 1)]
        vendor.on("GET", CHARGES, said(body={"results": rows, "next_token": None}))
        async with vendor.provider() as provider:
            assert [each.machine_id for each in await provider.charges(0, 1)] == ["2"]

    @pytest.mark.parametrize(
        "answer",
        [
            said(body={"success": False, "msg": "Host users do not have instance charges"}),
            said(body={"results": None}),
            said(body={"results": [], "next_token": "again"}),
            no(400, "invalid_token"),
            page(status=502),
        ],
    )
    async def test_failures_are_errors(self, vendor: Vendor, answer: httpx.Response) -> None:
        """No bill is not the same as nothing to pay."""
        vendor.on("GET", CHARGES, answer)
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError):
                await provider.charges(0, 1)


class TestBalance:
    async def test_it_is_the_credit(self, vendor: Vendor) -> None:
        """Not the field that is called balance, which is an old one."""
        body = {"id": 1, "credit": 41.87, "balance": 0.0, "api_key": KEY}
        vendor.on("GET", ACCOUNT, said(body=body))
        async with vendor.provider() as provider:
            assert await provider.balance() == Money("41.87")

    async def test_an_answer_without_it_shows_nothing_of_itself(self, vendor: Vendor) -> None:
        """The account's answer holds secrets."""
        vendor.on("GET", ACCOUNT, said(body={"api_key": KEY, "sid": "session-secret"}))
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError) as failed:
                await provider.balance()

        assert failed.value.kind is ErrorKind.TRANSIENT
        assert shows_no_key(failed.value)
        assert "session-secret" not in str(failed.value)
