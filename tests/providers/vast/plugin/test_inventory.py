"""The listing: complete or an error, and each row as well as it can be understood."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.providers.answers import Answer, as_sent, page, said

from gpubroker import ErrorKind, Machine, MachineState, Money, ProviderError, Requirements, Route
from gpubroker_vast.instances import machine_from

from .vendor import MARK, Vendor, instance_row, listing, no, offer_row, shows_no_key

PATH = "/api/v1/instances/"


def machine(**parts: Any) -> Machine:
    return machine_from("31337042", as_sent(instance_row(**parts)))


async def read(vendor: Vendor, *answers: Answer) -> list[Machine]:
    vendor.on("GET", PATH, *answers)
    async with vendor.provider() as provider:
        return await provider.inventory()


async def failing(vendor: Vendor, *answers: Answer) -> ProviderError:
    with pytest.raises(ProviderError) as failed:
        await read(vendor, *answers)
    assert shows_no_key(failed.value)
    return failed.value


@pytest.mark.anyio
class TestComplete:
    async def test_no_machine_is_believed_when_it_is_said(self, vendor: Vendor) -> None:
        """An empty list that is complete."""
        assert await read(vendor, listing()) == []

    async def test_all_pages_are_read(self, vendor: Vendor) -> None:
        """Each from where the last one ended, in the order of the ids."""
        machines = await read(
            vendor,
            listing(instance_row(id=1), total=3, token="after-1"),
            listing(instance_row(id=2), total=3, token="after-2"),
            listing(instance_row(id=3), total=3),
        )

        tokens = [request.url.params.get("after_token") for request in vendor.asked]
        assert [machine.id for machine in machines] == ["1", "2", "3"]
        assert tokens == [None, "after-1", "after-2"]
        assert vendor.asked[0].url.params["order_by"] == '[{"col":"id","dir":"asc"}]'

    async def test_strangers_are_listed_too(self, vendor: Vendor) -> None:
        """Machines without a label, and workers of the vendor's own services."""
        machines = await read(
            vendor,
            listing(instance_row(id=1, label=None), instance_row(id=2, label=7, endpoint_id=3)),
        )

        assert [(machine.id, machine.mark) for machine in machines] == [("1", None), ("2", None)]

    async def test_a_machine_made_meanwhile_is_read_again(self, vendor: Vendor) -> None:
        """More were counted than listed: the second reading has them all."""
        machines = await read(
            vendor,
            listing(instance_row(id=1), total=2),
            listing(instance_row(id=1), instance_row(id=2)),
        )

        assert [machine.id for machine in machines] == ["1", "2"]

    async def test_a_machine_gone_meanwhile_is_no_matter(self, vendor: Vendor) -> None:
        """Fewer were counted in the end than listed."""
        machines = await read(
            vendor,
            listing(instance_row(id=1), total=2, token="t"),
            listing(instance_row(id=2), total=1),
        )

        assert len(machines) == 2


@pytest.mark.anyio
class TestUnknown:
    @pytest.mark.parametrize(
        "answer",
        [
            no(410, "deprecated_endpoint", "Use /api/v1/instances/ instead."),
            httpx.Response(410),
            httpx.Response(200),
            httpx.Response(200, text=""),
            httpx.Response(200, text="{"),
            said(body=[]),
            said(body=""),
            said(body=None),
            said(body={}),
            said(body={"success": True}),
            said(body={"success": True, "instances": None, "next_token": None}),
            said(body={"success": True, "instances": {}, "next_token": None}),
            said(body={"success": True, "instances": [], "instances_found": 1, "next_token": None}),
            said(body={"success": True, "instances": []}),
            said(body={"success": False, "instances": [], "next_token": None}),
            page(status=200),
            page(status=403),
            page("", 502),
            httpx.Response(301, json={"success": True, "instances": [], "next_token": None}),
            httpx.ReadTimeout("late"),
            httpx.ConnectError("refused"),
        ],
    )
    async def test_what_is_no_listing_is_no_empty_listing(
        self, vendor: Vendor, answer: Answer
    ) -> None:
        """Who takes it for one rents machine after machine, and gives up those it has."""
        assert (await failing(vendor, answer)).kind is ErrorKind.TRANSIENT

    @pytest.mark.parametrize(
        "answer",
        [
            no(401, "auth_error", "Invalid user key"),
            no(403, "auth_error", "This action requires login."),
            no(404, "auth_error", "Invalid user key"),
            said(404, {"success": False, "msg": "Session expired, log in again"}),
            page(status=401),
        ],
    )
    async def test_a_refused_key_is_not_an_empty_account(
        self, vendor: Vendor, answer: Answer
    ) -> None:
        """In none of its forms."""
        failed = await failing(vendor, answer)

        assert (failed.kind, str(failed.scope)) == (ErrorKind.AUTH, "account")

    @pytest.mark.parametrize("row", [None, "x", [], {}, {"id": None}, {"id": "x"}, {"id": True}])
    async def test_a_row_without_an_id_may_be_anything(self, vendor: Vendor, row: Any) -> None:
        """It may be the machine that somebody looks for."""
        await failing(vendor, listing(instance_row(), row))

    async def test_a_lost_page_is_a_lost_listing(self, vendor: Vendor) -> None:
        """What came before it is not all."""
        await failing(vendor, listing(instance_row(id=1), total=2, token="t"), page(status=502))

    async def test_fewer_than_counted_twice_is_an_error(self, vendor: Vendor) -> None:
        """Some row is lost, and stays lost."""
        failed = await failing(vendor, listing(instance_row(id=1), total=2))

        assert "2 machines were counted and 1 listed" in str(failed)
        assert vendor.count("GET", PATH) == 2

    @pytest.mark.parametrize("token", [7, "", ["t"]])
    async def test_a_token_that_is_none(self, vendor: Vendor, token: Any) -> None:
        """There is a next page, and no way to it."""
        await failing(vendor, listing(instance_row(), total=2, token=token))

    async def test_pages_that_never_end(self, vendor: Vendor) -> None:
        """A token that comes again leads in a circle."""
        await failing(vendor, listing(instance_row(), token="again"))

        assert vendor.count("GET", PATH) == 2

    async def test_429_says_when_to_ask_again(self, vendor: Vendor) -> None:
        """By its header."""
        failed = await failing(vendor, said(429, {}, **{"Retry-After": "4"}))

        assert (failed.kind, failed.retry_after) == (ErrorKind.RATE_LIMIT, 4.0)


class TestState:
    @pytest.mark.parametrize(
        ("status", "state"),
        [
            (None, MachineState.BOOTING),
            ("created", MachineState.BOOTING),
            ("loading", MachineState.BOOTING),
            ("running", MachineState.RUNNING),
            ("rebooting", MachineState.BOOTING),
            ("recycling", MachineState.BOOTING),
            ("stopped", MachineState.STOPPED),
            ("frozen", MachineState.STOPPED),
            ("exited", MachineState.BROKEN),
            ("unknown", MachineState.BROKEN),
            ("offline", MachineState.BROKEN),
            ("a word of tomorrow", MachineState.BOOTING),
            (17, MachineState.BOOTING),
        ],
    )
    def test_their_words(self, status: Any, state: MachineState) -> None:
        """One that nobody knows is not ready yet."""
        assert machine(actual_status=status).state is state

    @pytest.mark.parametrize(
        "said_of_it",
        [
            "Error response from daemon: failed to create task",
            "OCI runtime create failed: nvidia-container-cli",
            "manifest unknown: manifest unknown",
            "pull access denied for me/mine",
            "failed to resolve reference docker.io/x",
            "write /var/lib: no space left on device",
        ],
    )
    @pytest.mark.parametrize("status", [None, "created", "loading", "exited"])
    def test_a_boot_failure_is_in_the_message(self, status: str | None, said_of_it: str) -> None:
        """Also where everything else says stopped, or that it goes on."""
        found = machine(
            actual_status=status,
            status_msg=said_of_it,
            intended_status="stopped",
            cur_state="stopped",
            next_state="stopped",
        )

        assert found.state is MachineState.BROKEN
        assert said_of_it.split(maxsplit=1)[0] in found.progress

    def test_an_image_called_error_is_no_failure(self) -> None:
        """The word alone stands in the names of images and layers too."""
        found = machine(actual_status="loading", status_msg="pulling me/error-handler: 7 of 9")

        assert found.state is MachineState.BOOTING

    def test_what_runs_may_print_what_it_likes(self) -> None:
        """A message from before, or the job's own, breaks no machine that runs."""
        assert machine(status_msg="traceback: exception").state is MachineState.RUNNING

    @pytest.mark.parametrize("lags", [None, "loading", "running", "exited"])
    def test_outbid_is_seen_though_the_status_lags(self, lags: str | None) -> None:
        """Intended, current and next state say so before the container does."""
        found = machine(
            actual_status=lags,
            is_bid=True,
            intended_status="stopped",
            cur_state="stopped",
            next_state="stopped",
        )

        assert found.state is MachineState.STOPPED
        assert found.progress.startswith("outbid")

    def test_one_that_waits_for_its_gpu_boots(self) -> None:
        """It is meant to run, and may any moment."""
        found = machine(actual_status=None, cur_state="stopped", next_state="running")

        assert found.state is MachineState.BOOTING

    def test_one_that_is_being_destroyed_is_listed_and_not_used(self) -> None:
        """It is gone when its row is."""
        found = machine(next_state="unloaded")

        assert (found.state, found.progress.split(":")[0]) == (
            MachineState.STOPPED,
            "being destroyed",
        )

    def test_progress_is_the_end_of_the_message(self) -> None:
        """On one line: of a long pull the end is news."""
        found = machine(actual_status="loading", status_msg="x" * 5000 + "\nlayer 3 of 9\n")

        assert found.progress.endswith("layer 3 of 9")
        assert len(found.progress) < 250

    @pytest.mark.anyio
    @pytest.mark.parametrize("status", ["exited", "unknown", "offline"])
    async def test_a_bad_state_counts_when_it_is_read_twice(
        self, vendor: Vendor, status: str
    ) -> None:
        """Each was seen on machines that worked."""
        bad = listing(instance_row(actual_status=status))
        vendor.on("GET", PATH, bad, listing(instance_row()), bad, bad)
        async with vendor.provider() as provider:
            states = [(await provider.inventory())[0].state for _ in range(4)]

        assert states == [
            MachineState.BOOTING,
            MachineState.RUNNING,
            MachineState.BOOTING,
            MachineState.BROKEN,
        ]


class TestMachine:
    def test_a_row_as_a_machine(self) -> None:
        """With its mark, its host, its age, and the way straight to it first."""
        found = machine()

        assert (found.mark, found.host, found.created_at) == (MARK, "41877", 1795400123.4)
        assert found.routes == (
            Route("203.0.113.41", 41022),
            Route("ssh5.vast.ai", 17042, proxied=True),
        )
        assert "a-secret-of-the-machine" not in repr(found)

    @pytest.mark.parametrize(
        "parts",
        [
            {"ports": None},
            {"ports": {}},
            {"ports": [22]},
            {"ports": {"22/tcp": []}},
            {"ports": {"22/tcp": None}},
            {"ports": {"22/tcp": [{"HostPort": "0"}]}},
            {"ports": {"22/tcp": [{"HostPort": "99999"}]}},
            {"ports": {"22/tcp": ["41022"]}},
            {"public_ipaddr": None},
            {"public_ipaddr": "-oProxyCommand=reboot"},
            {"public_ipaddr": "a b"},
        ],
    )
    def test_no_way_straight_leaves_the_gateway(self, parts: dict[str, Any]) -> None:
        """And nothing that a program could take for an option."""
        assert machine(**parts).routes == (Route("ssh5.vast.ai", 17042, proxied=True),)

    def test_no_way_at_all(self) -> None:
        """Before it runs."""
        assert machine(ports=None, ssh_host=None, ssh_port=None).routes == ()

    @pytest.mark.parametrize(
        ("parts", "hourly"),
        [
            ({}, Money("0.355")),
            ({"dph_base": None}, Money("0.355")),
            ({"storage_total_cost": None, "dph_total": 0.4}, Money("0.4")),
            ({"dph_base": None, "dph_total": None}, None),
            ({"dph_base": -1}, None),
        ],
    )
    def test_what_it_costs(self, parts: dict[str, Any], hourly: Money | None) -> None:
        """The machine and its disk, in the parts that the offer was priced by."""
        assert machine(**parts).hourly == hourly

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        ("base", "storage", "disk"),
        [(0.3466667, 0.15, 40), (0.1, 0.1, 7), (0.0733333, 0.2, 33.3), (1.0000005, 0.123, 1000)],
    )
    async def test_the_same_price_with_fewer_digits_is_no_rise(
        self, vendor: Vendor, base: float, storage: float, disk: float
    ) -> None:
        """Offers are rounded up, so that it does not matter how the vendor rounds."""
        vendor.on(
            "GET",
            "/api/v0/bundles/",
            said(body={"offers": [offer_row(dph_base=base, storage_cost=storage)]}),
        )
        async with vendor.provider() as provider:
            (offered,) = await provider.quote(Requirements(disk=disk))
        for digits in (6, 7, 10):
            total = round(storage * max(disk, 8) / 720, digits)
            delivered = machine(dph_base=base, storage_total_cost=total).hourly

            assert delivered is not None
            assert delivered <= offered.price.hourly

    def test_on_demand_instead_of_a_bid_shows_in_the_price(self) -> None:
        """A bid that was dropped on the way costs more than agreed, which the broker refuses."""
        assert machine(is_bid=False).hourly > Money("0.19")  # type: ignore[operator]
