"""Pods that will not come up are found although their rows do not say so."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from tests.providers.answers import as_sent, said

from gpubroker import Machine, MachineState
from gpubroker.testing import virtual_backend
from gpubroker_runpod.boots import DARK, PAUSE, Boots
from gpubroker_runpod.pods import machine_from

from .vendor import (
    MARK,
    POD,
    Vendor,
    booting_row,
    events,
    listing,
    offer,
    order,
    pod_row,
    problem,
)

LOGS = f"/v2/pods/{POD}/logs"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Each event loop, in virtual time."""
    return virtual_backend(request.param)


def judged(boots: Boots, now: float = 0.0, **parts: Any) -> Machine:
    row = as_sent(booting_row(**parts))
    return boots.judge(machine_from(POD, row), row, now)


def watched(gpus: int = 1) -> Boots:
    boots = Boots()
    boots.ordered(MARK, gpus)
    judged(boots)
    return boots


class TestJudging:
    @pytest.mark.parametrize(
        "phrase",
        [
            "toomanyrequests",
            "manifest unknown",
            "failed to pull image",
            "error creating container",
            "pull access denied",
            "layer does not exist",
        ],
    )
    def test_an_image_that_cannot_be_pulled_is_no_boot(self, phrase: str) -> None:
        """A throttled or missing image never comes, and the pod bills while it is waited for."""
        boots = watched()
        boots.saw(POD, f"pulling\nERROR: {phrase.upper()}: acme/train:7\nretrying")

        machine = judged(boots)
        assert machine.state is MachineState.BROKEN
        assert phrase in machine.progress.lower()

    def test_what_is_said_of_a_boot_is_progress(self) -> None:
        """A pull has no other sign of getting on than the last line of the system's log."""
        boots = watched()
        boots.saw(POD, "worker is ready\n8a1e: Downloading 40%\n\n")

        machine = judged(boots)
        assert machine.state is MachineState.BOOTING
        assert machine.progress == "provisioning: 8a1e: Downloading 40%"

    def test_what_it_says_is_shown_on_one_short_line(self) -> None:
        """A log is written by strangers."""
        boots = watched()
        boots.saw(POD, "\x1b[31m" + "x" * 5000)

        assert len(judged(boots).progress) < 250
        assert "\x1b" not in judged(boots).progress

    def test_a_container_that_starts_again_and_again_is_broken(self) -> None:
        """Its command ends at once, and is run again for ever, on the bill."""
        boots = watched()
        states = [
            judged(boots, status="RUNNING", startedAt=f"2026-11-20T09:0{minute}:00Z").state
            for minute in (1, 1, 2, 3, 4)
        ]

        assert states == [MachineState.BOOTING] * 4 + [MachineState.BROKEN]

    @pytest.mark.parametrize(
        "later",
        [
            {"startedAt": "2026-11-20T09:07:00Z"},
            {
                "ssh": {"direct": {"host": "203.0.113.9", "port": 41999, "username": "root"}},
                "runtime": {"uptime": 3},
            },
        ],
        ids=["a later start", "another port"],
    )
    def test_a_container_that_starts_again_under_its_work_is_broken(
        self, later: dict[str, Any]
    ) -> None:
        """What ran there is gone; without work it may start again as it likes."""
        first = pod_row(startedAt="2026-11-20T09:01:00Z")
        idle, used = watched(), watched()
        machine = judged(used, **first)
        used.used(machine)

        assert judged(used, **first).state is MachineState.RUNNING
        assert judged(used, **{**first, **later}).state is MachineState.BROKEN
        assert judged(idle, **first).state is MachineState.RUNNING
        assert judged(idle, **{**first, **later}).state is MachineState.RUNNING

    @pytest.mark.parametrize("runtime", [None, {}])
    def test_a_container_that_is_seen_no_more_is_dead(self, runtime: object) -> None:
        """Its pod says RUNNING, and bills; one listing without figures proves nothing."""
        boots = watched()
        dark = pod_row(runtime=runtime)
        states = [
            judged(boots, now, **row).state
            for now, row in (
                (0.0, pod_row()),
                (10_000.0, dark),
                (10_000.0 + DARK - 1, dark),
                (10_000.0 + DARK, pod_row()),
                (20_000.0, dark),
                (20_000.0 + DARK, dark),
            )
        ]

        running, booting = MachineState.RUNNING, MachineState.BOOTING
        assert states == [running, booting, booting, running, booting, MachineState.BROKEN]
        assert "nothing has been seen of its container" in judged(boots, 30_000.0, **dark).progress

    def test_a_container_that_was_never_seen_boots_on(self) -> None:
        """How long that may take is for the broker to say."""
        boots = watched()
        dark = pod_row(runtime=None)

        assert {judged(boots, now, **dark).state for now in (0.0, 10 * DARK)} == {
            MachineState.BOOTING
        }

    def test_fewer_gpus_than_were_ordered_are_a_broken_pod(self) -> None:
        """They cost as much, and the job would find them missing."""
        running: dict[str, Any] = {"status": "RUNNING", "runtime": {"uptime": 1}}
        two = {"id": "NVIDIA L4", "count": 2}
        machine = judged(watched(gpus=2), **running)

        assert machine.state is MachineState.BROKEN
        assert "2 were ordered" in machine.progress
        assert judged(watched(gpus=2), **running, gpu=two).state is MachineState.RUNNING
        assert judged(watched(gpus=2)).state is MachineState.BOOTING

    def test_other_peoples_pods_are_left_as_they_are(self) -> None:
        """Nothing is known of them but their rows."""
        boots = Boots()
        judged(boots)
        boots.saw(POD, "manifest unknown")

        assert judged(boots).state is MachineState.BOOTING
        assert not boots.due(judged(boots, 1000), 1000)

    def test_a_pod_that_ended_is_not_called_broken(self) -> None:
        """Its row says so already."""
        boots = watched()
        boots.saw(POD, "manifest unknown")

        assert judged(boots, status="TERMINATED").state is MachineState.GONE

    def test_a_look_is_due_every_20_seconds_of_a_boot(self) -> None:
        """And none of a pod that runs."""
        boots = watched()
        booting, running = judged(boots), machine_from(POD, as_sent(pod_row()))

        moments = (0, PAUSE - 1, PAUSE, PAUSE + 1, 2 * PAUSE)
        assert [boots.due(booting, now) for now in moments] == [False, False, True, False, True]
        assert not boots.due(running, 10 * PAUSE)

    def test_what_is_gone_is_forgotten(self) -> None:
        """Ids are never used again."""
        boots = watched()
        boots.saw(POD, "manifest unknown")
        boots.keep([])

        assert judged(boots).state is MachineState.BOOTING


@pytest.mark.anyio
class TestLooking:
    async def test_the_systems_log_is_read_while_a_pod_boots(self, vendor: Vendor) -> None:
        """Beside the listings, which do not wait for it; a later one shows what was found."""
        vendor.on("POST", "/v2/pods", said(201, booting_row()))
        vendor.on("GET", "/v2/pods", listing(booting_row()))
        vendor.on("GET", LOGS, events("failed to pull image: not found", source="system"))
        states: list[MachineState] = []
        async with vendor.provider() as provider:
            await provider.provision(offer(), order())
            for _ in range(4):
                (machine,) = await provider.inventory()
                states.append(machine.state)
                await anyio.sleep(10)

        assert states == [MachineState.BOOTING] * 3 + [MachineState.BROKEN]
        (look,) = [r for r in vendor.asked if r.url.path == LOGS]
        assert look.url.params["source"] == "system"

    @pytest.mark.parametrize("answer", [problem(500, "oops"), httpx.ReadError("cut")])
    async def test_a_log_that_cannot_be_read_is_no_news(self, vendor: Vendor, answer: Any) -> None:
        """The listing is what counts."""
        vendor.on("POST", "/v2/pods", said(201, booting_row()))
        vendor.on("GET", "/v2/pods", listing(booting_row()))
        vendor.on("GET", LOGS, answer)
        async with vendor.provider() as provider:
            await provider.provision(offer(), order())
            for _ in range(4):
                (machine,) = await provider.inventory()
                assert machine.state is MachineState.BOOTING
                await anyio.sleep(10)

        assert vendor.count("GET", LOGS) == 1

    async def test_a_pod_whose_create_was_lost_is_watched_too(self, vendor: Vendor) -> None:
        """It is known by its mark."""
        vendor.on("POST", "/v2/pods", httpx.ReadTimeout("slow"))
        vendor.on("GET", "/v2/pods", listing(pod_row()))
        async with vendor.provider() as provider:
            with pytest.raises(Exception, match="lost"):
                await provider.provision(offer(count=2), order())
            (machine,) = await provider.inventory()

        assert machine.state is MachineState.BROKEN
