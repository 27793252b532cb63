"""What finishing a job on an offer is expected to take and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gpubroker.errors import InvalidValue
from gpubroker.model.decisions import Estimate
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.gpus import gpu_matches, parse_gpu
from gpubroker.model.money import Money
from gpubroker.model.names import is_a
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.policy.experience import PRIOR_BOOT, Memory

_PRIOR_BANDWIDTH: Final = 100.0
"""Mbit/s that are assumed where an offer does not say."""

_SLOWEST: Final = 0.001
"""Mbit/s below which a speed makes no difference."""

_PRIOR_SETUP: Final = 60.0
"""Seconds that set-up is taken to last where nobody has seen it."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a job is expected to need, for rankings that weigh more than the hourly price.

    Args:
        seconds: time to run at speed 1.
        sends: GB that travel to the machine. returns: GB that come back.
        speed: how fast a GPU model runs this job; 1 where a model is not named.

    Raises:
        InvalidValue: a number is negative or not finite, a speed is not above 0, or a GPU is
            unknown.
    """

    seconds: float = 3600.0
    sends: float = 0.0
    returns: float = 0.0
    speed: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        for name in ("seconds", "sends", "returns"):
            value = getattr(self, name)
            if not is_a(value, int, float) or not 0 <= value < math.inf:
                raise InvalidValue(name, value, "must be a finite number, not negative")
        if not is_a(self.speed, Mapping):
            raise InvalidValue("speed", self.speed, "must be a table of GPUs and numbers")
        for gpu, speed in self.speed.items():
            parse_gpu(gpu, "speed")
            if not is_a(speed, int, float) or not 0 < speed < math.inf:
                raise InvalidValue(f"speed[{gpu}]", speed, "must be above 0")

    def speed_on(self, gpu: str | None) -> float:
        """How fast this job runs on a GPU model."""
        matching = (s for name, s in self.speed.items() if gpu_matches(parse_gpu(name), gpu or ""))
        return next(matching, 1.0)


def estimate(
    offer: Offer, requirements: Requirements, work: Work, facts: ProviderFacts, memory: Memory
) -> Estimate:
    """The arithmetic behind `cheapest_to_finish` and `fastest`, part by part."""
    place = (offer.provider, offer.host, requirements.image)
    boot = memory.boot(*place, PRIOR_BOOT if facts.paid else 0.0)
    setup = 0.0 if requirements.setup is None else memory.setup(*place, _PRIOR_SETUP)
    transfer = _seconds(work.sends, offer.download) + _seconds(work.returns, offer.upload)
    run = work.seconds / work.speed_on(offer.gpu)
    held = offer.price.for_seconds(boot + setup + transfer + run, quantum=facts.billing_quantum)
    bandwidth = offer.price.download * work.sends + offer.price.upload * work.returns
    chance = memory.chance(*place) if facts.paid else 1.0
    return Estimate(
        boot=boot,
        setup=setup,
        transfer=transfer,
        run=run,
        bandwidth=bandwidth,
        chance=chance,
        hourly=offer.price.hourly,
        cost=Money((held + bandwidth).amount) / chance,
    )


def _seconds(gigabytes: float, megabits: float | None) -> float:
    # What is no speed at all, not-a-number included, counts as not said.
    said = megabits if megabits is not None and megabits > 0 else _PRIOR_BANDWIDTH
    return gigabytes * 8000.0 / max(said, _SLOWEST)
