"""What can be handed over with an order."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpubroker import Job, Money, Offer, PlannedJob, Price, ProviderFacts, Requirements
from gpubroker.policy import probe
from gpubroker.policy.handover import can_be_handed_over, planned_jobs

PAID = ProviderFacts(paid=True, ssh=True)
CARD = Offer(id="1", price=Price(machine=Money("0.40")), gpu="RTX 4090", count=1)
NO_CARD = Offer(id="2", price=Price(machine=Money("0.10")), cpus=4)


@pytest.mark.parametrize(
    "job",
    [
        Job("cat in", files={"in": b"1"}),
        Job("cat in", files={"in": Path("here")}),
        Job("echo > out", outputs="out"),
        Job("use it", secrets={"TOKEN": "t"}),
    ],
)
def test_what_needs_a_way_to_the_machine_stays_here(job: Job) -> None:
    """Files, outputs and secrets are never part of an order."""
    assert not can_be_handed_over(job)
    assert planned_jobs(CARD, Requirements(), PAID, job) == ()


def test_nothing_is_handed_over_where_more_may_come() -> None:
    """A lease for several jobs needs a machine that can be asked for them."""
    assert planned_jobs(CARD, Requirements(setup="true"), PAID, None) == ()


def test_the_machine_does_in_order_what_the_broker_would_ask_for() -> None:
    """First which cards there are, then set-up, then the job, each with its own environment."""
    wanted = Requirements(setup="pip install x", env={"A": "1", "B": "1"})
    job = Job(["train", "a b"], env={"B": "2"}, timeout=60)

    jobs = planned_jobs(CARD, wanted, PAID, job)

    assert jobs == (
        PlannedJob(purpose="probe", argv=probe.gate(CARD), timeout=probe.TIMEOUT),
        PlannedJob(
            purpose="setup",
            argv=("sh", "-c", "pip install x"),
            env={"A": "1", "B": "1"},
            timeout=900,
            shared=True,
        ),
        PlannedJob(purpose="job", argv=("train", "a b"), env={"A": "1", "B": "2"}, timeout=60),
    )


def test_a_machine_without_cards_is_not_asked_for_them() -> None:
    """There is nothing to compare its answer with."""
    [only] = planned_jobs(NO_CARD, Requirements(), PAID, Job("true"))

    assert only.purpose == "job"
