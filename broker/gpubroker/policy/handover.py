"""What can be handed over with an order, so that a machine that nobody reaches can do it."""

from __future__ import annotations

from collections.abc import Iterator

from gpubroker.model.facts import ProviderFacts
from gpubroker.model.jobs import Job
from gpubroker.model.machines import PlannedJob
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.policy import probe


def can_be_handed_over(job: Job) -> bool:
    """Whether a job is all words: files need a way there, outputs a way back, secrets both."""
    return not (job.files or job.outputs or job.secrets)


def planned_jobs(
    offer: Offer, requirements: Requirements, facts: ProviderFacts, job: Job | None
) -> tuple[PlannedJob, ...]:
    """All that will ever be run on a machine, in order; nothing, where that is not known.

    Args:
        job: the only one that the machine is rented for; ``None`` where more may come.
    """
    if job is None or not can_be_handed_over(job):
        return ()
    return tuple(_jobs(offer, requirements, facts, job))


def _jobs(
    offer: Offer, requirements: Requirements, facts: ProviderFacts, job: Job
) -> Iterator[PlannedJob]:
    if probe.wanted(offer, facts):
        yield PlannedJob(purpose="probe", argv=probe.gate(offer), timeout=probe.TIMEOUT)
    if (setup := requirements.setup) is not None:
        yield PlannedJob(
            purpose="setup",
            argv=setup.argv,
            env=requirements.env,
            timeout=setup.timeout,
            shared=True,
        )
    env = {**requirements.env, **job.env}
    yield PlannedJob(purpose="job", argv=job.argv, env=env, timeout=job.timeout)
