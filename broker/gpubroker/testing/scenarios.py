"""Ready-made stories, by name, and the market in which they are told."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from gpubroker.errors import InvalidValue
from gpubroker.model.offers import Offer
from gpubroker.testing.offers import offer
from gpubroker.testing.scripted import ScriptedCloud

#: Tells a cloud what will happen.
Scenario = Callable[[ScriptedCloud], None]

_MINUTE: Final = 60.0


def _calm(cloud: ScriptedCloud) -> None:
    """Everything goes well and at once."""
    del cloud


def _no_capacity(cloud: ScriptedCloud) -> None:
    """There is nothing to rent, ever."""
    cloud.out_of_capacity()


def _sold_out(cloud: ScriptedCloud) -> None:
    """The first create finds that its offer has just been rented by somebody else."""
    cloud.next_create_fails()


def _lost_create(cloud: ScriptedCloud) -> None:
    """The first create makes a machine, and its answer is lost."""
    cloud.next_create_loses_reply()


def _price_rise(cloud: ScriptedCloud) -> None:
    """Between quote and create the price rises to 99 USD per hour."""
    cloud.price_rises_before_create("99")


def _slow_boot(cloud: ScriptedCloud) -> None:
    """The first machine takes four minutes to boot."""
    cloud.boot_takes(4 * _MINUTE, progress_every=10.0)


def _no_boot(cloud: ScriptedCloud) -> None:
    """The first machine never gets ready."""
    cloud.never_boots()


def _wrong_card(cloud: ScriptedCloud) -> None:
    """The first machine has an RTX 3060, whatever was offered."""
    cloud.delivers("RTX 3060", vram=12.0)


def _preempted(cloud: ScriptedCloud) -> None:
    """The first job would take an hour, and its machine is taken back after 90 s."""
    cloud.job_takes(60 * _MINUTE)
    cloud.preempt_after(90.0)


def _host_vanishes(cloud: ScriptedCloud) -> None:
    """The first job would take an hour, and its machine is gone after 30 s."""
    cloud.job_takes(60 * _MINUTE)
    cloud.machine_vanishes(30.0)


def _job_fails(cloud: ScriptedCloud) -> None:
    """The first job exits with 1."""
    cloud.job_exits(1)


def _endless_job(cloud: ScriptedCloud) -> None:
    """The first job never ends."""
    cloud.job_takes(math.inf)


def _stuck_release(cloud: ScriptedCloud) -> None:
    """The first destroy is accepted and does nothing."""
    cloud.release_does_nothing()


def _empty_listing(cloud: ScriptedCloud) -> None:
    """The first list of machines is empty, whatever there is."""
    cloud.inventory_is_empty()


def _revoked_key(cloud: ScriptedCloud) -> None:
    """The account's key is not valid, ever."""
    cloud.revoke_key()


def _rate_limited(cloud: ScriptedCloud) -> None:
    """The first create came too soon, and the answer says to wait for 20 s."""
    cloud.rate_limited(retry_after=20.0)


def _rate_limited_without_wait(cloud: ScriptedCloud) -> None:
    """The first create came too soon, and the answer does not say how long to wait."""
    cloud.rate_limited()


#: The first sentence of each one's docstring says what happens.
SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        story.__name__.strip("_").replace("_", " "): story
        for story in (
            _calm,
            _no_capacity,
            _sold_out,
            _lost_create,
            _price_rise,
            _slow_boot,
            _no_boot,
            _wrong_card,
            _preempted,
            _host_vanishes,
            _job_fails,
            _endless_job,
            _stuck_release,
            _empty_listing,
            _revoked_key,
            _rate_limited,
            _rate_limited_without_wait,
        )
    }
)


def scenario(story: str | Scenario | Sequence[Any]) -> Scenario:
    """A story by its name; one that is a function already is its own; several, told in order.

    Raises:
        InvalidValue: no story has that name.
    """
    if callable(story):
        return story
    if not isinstance(story, str):
        parts = [scenario(part) for part in story]

        def in_order(cloud: ScriptedCloud) -> None:
            for part in parts:
                part(cloud)

        return in_order
    if story not in SCENARIOS:
        raise InvalidValue.unknown("scenario", story, SCENARIOS, noun="scenario")
    return SCENARIOS[story]


def market(place: int = 0) -> list[Offer]:
    """Offers for a cloud: two RTX 4090, the cheaper one at 0.40 USD per hour, and an A100 at 1.20.

    Args:
        place: among several clouds, 0 the first; each is 0.02 USD per hour dearer than the one
            before.
    """
    extra = place * Decimal("0.02")
    return [
        offer("RTX 4090", str(Decimal("0.40") + extra), id="4090-a", host="host-a"),
        offer("RTX 4090", str(Decimal("0.55") + extra), id="4090-b", host="host-b"),
        offer(
            "A100 80GB SXM",
            str(Decimal("1.20") + extra),
            id="a100",
            host="host-c",
            vram=80.0,
            compute_capability=8.0,
        ),
    ]
