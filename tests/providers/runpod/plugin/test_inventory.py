"""The listing: complete or an error, and each row as a machine."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.providers.answers import as_sent, meaning, page, said

from gpubroker import Machine, MachineState, Money, ProviderError, Route
from gpubroker_runpod.pods import machine_from

from .vendor import MARK, POD, Vendor, booting_row, listing, pod_row, problem, shows_no_key

pytestmark = pytest.mark.anyio

PODS = "/v2/pods"


async def listed(vendor: Vendor, *answers: Any) -> list[Machine]:
    vendor.on("GET", PODS, *answers)
    async with vendor.provider() as provider:
        return await provider.inventory()


def made(**parts: Any) -> Machine:
    return machine_from(POD, as_sent(pod_row(**parts)))


class TestCompleteness:
    async def test_one_request_lists_all(self, vendor: Vendor) -> None:
        """Whoever made them; nothing is asked for that an API might not know."""
        mine, other = pod_row(), pod_row(id="other", name="a person's", env={})
        machines = await listed(vendor, listing(mine, other))

        assert [(m.id, m.mark) for m in machines] == [(POD, MARK), ("other", "a person's")]
        assert [dict(r.url.params) for r in vendor.asked] == [{}]

    async def test_no_pods_are_believed(self, vendor: Vendor) -> None:
        """An empty list is an answer."""
        assert await listed(vendor, listing()) == []

    async def test_pages_are_put_together(self, vendor: Vendor) -> None:
        """Where an API has them; a pod that is on two pages is one pod."""
        vendor.documented = False  # pages came after the documents
        more = {"hasNextPage": True, "nextCursor": "c1"}
        last = {"hasNextPage": False, "nextCursor": None}
        machines = await listed(
            vendor,
            listing(pod_row(), pagination=more),
            listing(pod_row(cost=0.4), pod_row(id="b"), pagination=last),
        )

        assert [machine.id for machine in machines] == [POD, "b"]
        assert [dict(r.url.params) for r in vendor.asked] == [{}, {"cursor": "c1"}]

    @pytest.mark.parametrize(
        "answer",
        [
            said(200, {}),
            said(200, {"pods": {}}),
            said(200, []),
            httpx.Response(200),
            httpx.Response(200, text="<html>"),
            listing("nonsense"),  # type: ignore[arg-type]
            listing({"name": "no id"}),
            listing(pod_row(id="../billing")),
            listing(pod_row(), pod_row(name="another")),
            listing(pagination={"hasNextPage": True, "nextCursor": None}),
            listing(pagination={"hasNextPage": True, "nextCursor": "again"}),
            listing(pagination={}),
            listing(pagination=7),
            problem(410, "gone"),
            problem(404, "The requested path was not found."),
            problem(500, "oops"),
            page("<html>bad gateway</html>", 502),
            page("error code: 1010", 403),
        ],
    )
    async def test_what_may_have_lost_a_row_is_an_error(
        self, vendor: Vendor, answer: httpx.Response
    ) -> None:
        """An error says nothing; an empty list would say that all are gone."""
        vendor.documented = False
        with pytest.raises(ProviderError) as caught:
            await listed(vendor, answer)

        assert meaning(caught.value) == ("transient", "provider")
        assert shows_no_key(caught.value)

    async def test_a_refused_key_is_called_that(self, vendor: Vendor) -> None:
        """It does not mend itself."""
        with pytest.raises(ProviderError) as caught:
            await listed(vendor, problem(401, "invalid"))

        assert meaning(caught.value) == ("auth", "account")


class TestStates:
    @pytest.mark.parametrize(
        ("status", "state"),
        [
            ("PROVISIONING", MachineState.BOOTING),
            ("STARTING", MachineState.BOOTING),
            ("RUNNING", MachineState.RUNNING),
            ("EXITED", MachineState.STOPPED),
            ("ERROR", MachineState.BROKEN),
            ("TERMINATED", MachineState.GONE),
            ("HIBERNATING", MachineState.BOOTING),
            (None, MachineState.BOOTING),
        ],
    )
    def test_each_status_is_a_state(self, status: Any, state: MachineState) -> None:
        """One that nobody knows is no reason to give a machine up, nor to use it."""
        assert made(status=status).state is state

    @pytest.mark.parametrize("runtime", [None, {}])
    def test_running_without_a_runtime_is_not_up(self, runtime: Any) -> None:
        """A container that has died looks like that, too."""
        machine = made(runtime=runtime)

        assert machine.state is MachineState.BOOTING
        assert "nothing is seen of its container" in machine.progress

    def test_a_wrong_uptime_is_not_held_against_it(self) -> None:
        """It was seen to be zero on pods that worked; that there is a runtime is what counts."""
        assert made(runtime={"uptime": 0, "ports": []}).state is MachineState.RUNNING

    def test_a_pod_without_gpus_is_broken(self) -> None:
        """Started again on a full host, one may come back so, and is of no use."""
        machine = made(gpu={"id": "NVIDIA L4", "count": 0})

        assert (machine.state, machine.progress) == (MachineState.BROKEN, "it has no GPUs")

    def test_a_pod_that_is_stopped_is_not_called_broken(self) -> None:
        """It has given its GPUs back."""
        assert made(status="EXITED", gpu={"count": 0}).state is MachineState.STOPPED

    def test_progress_is_only_what_changes_as_it_boots(self) -> None:
        """A container that is started over and over must not look like one that gets on."""
        one = machine_from(POD, as_sent(booting_row(status="STARTING", startedAt=None)))
        two = machine_from(
            POD, as_sent(booting_row(status="STARTING", startedAt="2026-11-20T09:01:10Z"))
        )

        assert one.progress == two.progress == "starting"


class TestRows:
    def test_a_row_is_a_machine(self) -> None:
        """With the rate that it really costs, exactly."""
        machine = made()

        assert machine.id == POD
        assert machine.mark == MARK
        assert machine.hourly == Money("0.39")
        assert machine.created_at == 1795165200
        assert machine.ssh
        assert dict(machine.details) == {"dc": "EU-RO-1", "started": "2026-11-20T09:01:10Z"}

    def test_its_variables_are_not_shown(self) -> None:
        """They are listed in full, with whatever secrets are among them."""
        assert "a-secret-of-the-pod" not in repr(made())

    def test_the_mark_survives_a_new_name(self) -> None:
        """People rename pods; the variable is the second place that has it."""
        assert made(name="renamed by hand").mark == MARK
        assert made(name=f"{MARK}-migration").mark == f"{MARK}-migration"
        assert made(name="a person's", env={}).mark == "a person's"
        assert made(name="a person's", env={"GPUBROKER_MARK": "forged"}).mark == "a person's"
        assert made(name=7, env=None).mark is None

    def test_a_pod_without_an_ssh_port_is_not_reached_over_ssh(self) -> None:
        """It runs its jobs by itself; what does not say is taken for the usual."""
        assert not made(ports=[]).ssh
        assert not made(ports=["8000/tcp"]).ssh
        assert made(ports=None).ssh

    def test_routes_are_straight_ones(self) -> None:
        """The vendor's gateway knows the account's own keys only, and gives no more than a shell."""
        assert made().routes == (Route("203.0.113.9", 41022),)

    def test_a_mapped_port_is_a_route_before_it_is_called_one(self) -> None:
        """Either of the two places may lag behind; both are tried where they differ."""
        assert made(ssh={"proxy": None, "direct": None}).routes == (Route("203.0.113.9", 41022),)
        other = {"host": "203.0.113.9", "port": 5, "username": "root"}
        assert made(ssh={"direct": other}).routes == (
            Route("203.0.113.9", 5),
            Route("203.0.113.9", 41022),
        )

    @pytest.mark.parametrize(
        "port",
        [
            {"private": 22, "public": None, "type": "tcp", "ip": None},
            {"private": 22, "public": 41022, "type": "http", "ip": "100.64.0.9"},
            {"private": 8000, "public": 41022, "type": "tcp", "ip": "203.0.113.9"},
            {"private": 22, "public": 70000, "type": "tcp", "ip": "203.0.113.9"},
            {"private": 22, "public": 41022, "type": "tcp", "ip": "-oProxyCommand=x"},
            "nonsense",
        ],
    )
    def test_what_leads_nowhere_is_no_route(self, port: Any) -> None:
        """A public port may come minutes later, or never."""
        assert made(ssh=None, runtime={"uptime": 1, "ports": [port]}).routes == ()

    @pytest.mark.parametrize("cost", [0, 0.0, None, "free", -1, float("nan")])
    def test_a_rate_that_makes_no_sense_is_none(self, cost: Any) -> None:
        """Zero is said of pods that bill; the rate that was agreed on counts then."""
        assert made(cost=cost).hourly is None

    def test_a_row_of_nonsense_is_still_a_machine(self) -> None:
        """It bills whether or not its row can be understood."""
        machine = machine_from(POD, as_sent(dict.fromkeys(pod_row(), 7)))

        assert (machine.id, machine.state) == (POD, MachineState.BOOTING)
