"""Several clouds on one clock, strict blocks, and brokers of both colours that rent from them."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any

import pytest

from gpubroker import (
    AcquireError,
    Broker,
    BrokerClosed,
    InvalidValue,
    JobError,
    Money,
    NoOfferFits,
    Policy,
    Requirements,
)
from gpubroker.model.events import Event
from gpubroker.testing import (
    SCENARIOS,
    Clouds,
    ScriptedCloud,
    offer,
    ruled_out,
    run_virtual,
    tried,
)
from gpubroker.testing.scenarios import Scenario
from gpubroker.testing.virtual_time import BackendName

WANTED = Requirements(gpu="RTX 4090")

#: What becomes of a job in each story, told in the words of the decision record.
BECOMES = {
    "calm": "scripted: won",
    "no capacity": "NoOfferFits",
    "sold out": "scripted: capacity, scripted: won",
    "lost create": "scripted: won",
    "price rise": "scripted: capacity, scripted: won",
    "slow boot": "scripted: won",
    "no boot": "scripted: host broken, scripted: won",
    "wrong card": "scripted: host broken, scripted: won",
    "preempted": "MachineLost",
    "host vanishes": "MachineLost",
    "job fails": "scripted: won",
    "endless job": "scripted: won",
    "stuck release": "scripted: won",
    "empty listing": "scripted: won",
    "revoked key": "NoOfferFits",
    "rate limited": "scripted: rate limit, scripted: won",
    "rate limited without wait": "scripted: rate limit, scripted: won",
}


def test_every_scenario_is_known() -> None:
    """And says in a sentence what happens."""
    assert list(SCENARIOS) == list(BECOMES)
    assert all((story.__doc__ or "").endswith(".") for story in SCENARIOS.values())


@pytest.mark.parametrize("name", BECOMES)
def test_each_scenario_comes_true_and_leaves_nothing(name: str) -> None:
    """A job meets it, and comes to the end that it leads to; the story is used up."""
    with Clouds(stories={"scripted": name}) as clouds, clouds.broker() as broker:
        try:
            became = ", ".join(tried(broker.run(["x"], WANTED, lifetime=1200).record))
        except (AcquireError, JobError) as error:
            became = type(error).__name__

    assert became == BECOMES[name]


def test_the_record_and_the_books_agree() -> None:
    """Who was tried and who was ruled out, who ran what, and what all of it cost."""
    with Clouds("near", "far", stories={"near": "sold out"}) as clouds:
        clouds["near"].add_offer(offer("H100 SXM", "0.10", id="other"))
        clouds["far"].job_takes(360)
        clouds["near"].job_takes(720)
        with clouds.broker() as broker:
            first = broker.run(["a", "b"], WANTED)
            second = broker.run(["c"], WANTED)

    assert tried(first.record) == ["near: capacity", "far: won"]
    assert tried(second.record)[-1].endswith(": won")
    assert ruled_out(first.record) == {"other": "gpu", "a100": "gpu"}
    assert clouds.ran == [("far", "a b"), ("near", "c")]
    assert clouds.billed == clouds["near"].billed + clouds["far"].billed > Money("0.11")


class TestStrict:
    def test_all_that_is_wrong_anywhere_is_named(self) -> None:
        """A story not used up in one cloud, an unexpected call in the other."""
        clouds = Clouds("near", "far")
        clouds["near"].never_boots(times=2)
        clouds["near"].out_of_capacity()
        clouds["far"].expects_no("quote", "provision")
        with clouds.broker() as broker:
            broker.run(["x"], WANTED)
        clouds.close()

        with pytest.raises(AssertionError) as caught, clouds:
            pass
        assert str(caught.value) == (
            "near was told and never got to do: never_boots(), 2 times; far was misused: "
            "an unexpected call of quote; an unexpected call of provision"
        )

    def test_an_error_in_the_block_is_not_hidden(self) -> None:
        """What the test itself found comes out, not what follows from it."""
        cloud = ScriptedCloud()
        cloud.never_boots()

        with pytest.raises(ZeroDivisionError), cloud:
            raise ZeroDivisionError

    def test_a_loose_cloud_may_leave_its_story_unused(self) -> None:
        """But its machines must be gone all the same."""
        with ScriptedCloud(strict=False) as cloud:
            cloud.never_boots()


class TestInPlaceOfReal:
    def test_an_app_rents_here_while_the_block_lasts(self) -> None:
        """As often as wanted, and with a ledger of its own each time: what `given` needs."""
        app = Broker(budget="1")
        for _ in range(2):
            with Clouds("scripted") as clouds, clouds.in_place_of_real():
                clouds["scripted"].job_takes(600)
                assert app.run(["x"], WANTED).ok
                assert len(app.leases(open_only=False)) == 1

    def test_a_lease_that_nobody_left_fails(self) -> None:
        """And an error in the block is what comes out of it."""
        kept: list[Any] = []

        def leave_open(error: bool) -> None:
            with Clouds("scripted") as clouds, clouds.in_place_of_real():
                kept.append(Broker(budget="1").lease(WANTED))
                kept[-1].__enter__()
                if error:
                    raise ZeroDivisionError

        with pytest.raises(AssertionError, match="nobody left the lease"):
            leave_open(error=False)
        with pytest.raises(ZeroDivisionError):
            leave_open(error=True)


def test_a_price_rises_under_a_job() -> None:
    """The broker hears of it and says so; a machine that is not there yet has no price to change."""
    heard: list[Event] = []
    with Clouds("scripted") as clouds:
        cloud = clouds["scripted"]
        with pytest.raises(InvalidValue, match="unknown machine"):
            cloud.machine_costs("0.90", "scripted-1")
        cloud.job_takes(600)
        cloud.price_rises_under_job("0.90", after=60)
        with clouds.broker(on_event=heard.append) as broker:
            result = broker.run(["x"], WANTED)

    assert any("the price rose" in event.text for event in heard)
    assert result.cost > Money("0.15")


def rate_limits_quotes(cloud: ScriptedCloud) -> None:
    """Nobody may ask it, ever."""
    cloud.rate_limited("quote", until=math.inf)


@pytest.mark.parametrize(
    ("stories", "budget", "gpu", "said"),
    [
        ({"near": "calm"}, None, "H100", "no provider takes part; near is off: no budget, and"),
        (
            {"near": "calm", "far": "revoked key"},
            "5",
            "H100",
            "the cheapest, RTX 4090: .*; far: the account key is not valid",
        ),
        (
            {
                "near": "no capacity",
                "far": rate_limits_quotes,
            },
            "5",
            "RTX 4090",
            "near offered nothing that meets .*; far: too many requests",
        ),
    ],
)
def test_whoever_gave_no_answer_is_named(
    stories: Mapping[str, str | Scenario], budget: str | None, gpu: str, said: str
) -> None:
    """Where nothing fits, the message says who could not be asked, and why."""
    with (
        Clouds(stories=stories, strict=False) as clouds,
        clouds.broker(budget=budget) as broker,
        pytest.raises(NoOfferFits, match=said),
    ):
        broker.run(["x"], Requirements(gpu=gpu))


class TestSynchronousTime:
    def test_it_stands_still_between_two_calls(self) -> None:
        """However long a test takes, a lease in hand does not age."""
        with Clouds("scripted") as clouds, clouds.broker() as broker:
            with broker.lease(WANTED, lifetime=60) as lease:
                held = clouds.now()
                for _ in range(50):
                    time.sleep(0)
                assert clouds.now() == held
                assert lease.run(["x"]).ok
            assert clouds.now() - held < 60

    def test_brokers_of_one_test_share_it(self) -> None:
        """What one waits for has passed for the other, and closing one leaves the other open."""
        with Clouds("scripted") as clouds, clouds.broker() as one:
            clouds["scripted"].job_takes(600)
            with clouds.broker() as other:
                other.run(["x"], WANTED)
                later = clouds.now()
            assert one.run(["x"], WANTED).ok
            assert clouds.now() >= later > 1_800_000_600

    def test_a_call_of_another_thread_is_cut_off_and_named(self) -> None:
        """However long it would take, the clouds end."""
        clouds = Clouds("scripted", stories={"scripted": "no capacity"})
        broker = clouds.broker().open()

        def run() -> None:
            with pytest.raises((CancelledError, AcquireError)):
                broker.run(["x"], WANTED, policy=Policy(wait=1e9))

        thread = threading.Thread(target=run)
        thread.start()
        while not clouds.calls_under_way:
            pass

        with pytest.raises(AssertionError, match=r"still waiting for Broker\.run, which was cut"):
            clouds.__exit__(None, None, None)
        thread.join()
        with pytest.raises(BrokerClosed):
            clouds.broker().open()


PROGRAM = """
from gpubroker import Requirements
from gpubroker.testing import Clouds, run_virtual

async def story():
    with Clouds("near", "far", stories={"near": "lost create"}) as clouds:
        clouds["near"].preempt_after(30)
        clouds["near"].job_takes(90)
        events = []
        async with clouds.async_broker(on_event=events.append) as broker:
            try:
                await broker.run(["x"], Requirements(gpu="RTX 4090"))
            except Exception as error:
                events.append(error)
            await broker.run(["y"], Requirements(gpu="RTX 4090"))
            for lease in await broker.leases(open_only=False):
                events += await broker.events(lease.id)
        return "\\n".join(map(repr, [*events, *clouds["near"].creates, *clouds["near"].destroys]))
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_same_story_writes_the_same_log(backend: BackendName) -> None:
    """To the byte, from run to run and from process to process."""
    names: dict[str, Any] = {}
    exec(PROGRAM, names)
    here = run_virtual(backend, names["story"])
    again = run_virtual(backend, names["story"])
    done = subprocess.run(
        [sys.executable, "-c", f"{PROGRAM}\nprint(run_virtual({backend!r}, story))"],
        env={"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert here == again == done.stdout.removesuffix("\n")
    assert len(re.findall("CreateRequest", here)) >= 1
