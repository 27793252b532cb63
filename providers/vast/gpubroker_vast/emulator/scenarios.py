"""How an emulated Vast.ai behaves: every switch, and named sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Every switch. Durations are seconds.

    Attributes:
        offers: how many offers there are, about.
        drift: how far prices move, as a part of themselves.
        busy: the part of the hosts that others have at any moment.
        step: how long prices and others' machines stay as they are.
        visibility: how long a new contract is missing from readings.
        scheduling: from the create to ``loading``. boot: from there to ``running``.
        sshd: from ``running`` until the SSH server answers. key_sync: until it knows any key.
        stopping: from a stop to ``exited``. vanishing: from a destroy until the row is gone.
        log_polls: how often a log is asked for before it is there.
        log_status: what is answered until then: 403 or 404.
        limits: what the vendor's least times between requests are multiplied with.
        limit_style: how a request that came too early is refused: ``plain``, ``detail`` or
            ``bucket`` (with ``Retry-After``).
        daily_rows: offers that may be read per day.
        bad_key: the status for a key that is not known.
        old_account: whether the old list of instances still answers.
        ids_match: whether a search by ``id`` finds anything.
        credit: USD in the account at the start.
        settling: how far the charges lag behind.
        charge_digits: decimals that each charge is rounded to; the vendor's are 3, and with more
            of them a machine that lived for seconds has a cost.
        boot_failures: chance of a boot that fails. stuck: of one that never ends.
        unreachable: of a machine that runs without an SSH server.
        vanishing_hosts: of a host that goes offline within a minute after the boot.
        races: chance that somebody else takes an offer just before a create.
        flakiness: chance that a request fails in one of many ways.
    """

    offers: int = 200
    drift: float = 0.0
    busy: float = 0.0
    step: float = 30.0
    visibility: float = 0.0
    scheduling: float = 0.05
    boot: float = 0.25
    sshd: float = 0.0
    key_sync: float = 0.0
    stopping: float = 0.05
    vanishing: float = 0.1
    log_polls: int = 0
    log_status: int = 403
    limits: float = 0.0
    limit_style: str = "bucket"
    daily_rows: int | None = None
    bad_key: int = 404
    old_account: bool = False
    ids_match: bool = False
    credit: float = 100.0
    settling: float = 0.0
    charge_digits: int = 3
    boot_failures: float = 0.0
    stuck: float = 0.0
    unreachable: float = 0.0
    vanishing_hosts: float = 0.0
    races: float = 0.0
    flakiness: float = 0.0


#: Each with one sentence for people.
SCENARIOS: Final[Mapping[str, tuple[str, Behaviour]]] = {
    "calm": ("Everything works, and quickly.", Behaviour()),
    "realistic": (
        "Delays, limits and moving prices as they are at the vendor.",
        Behaviour(
            drift=0.08,
            busy=0.15,
            visibility=2.0,
            scheduling=2.0,
            boot=40.0,
            sshd=20.0,
            key_sync=5.0,
            stopping=5.0,
            vanishing=15.0,
            log_polls=3,
            limits=1.0,
            daily_rows=20_000,
            settling=120.0,
        ),
    ),
    "busy-market": (
        "Most machines are taken, prices jump, and others are often quicker.",
        Behaviour(drift=0.3, busy=0.7, step=5.0, races=0.4),
    ),
    "flaky-api": (
        "Requests fail in every way that was seen, some after they took effect.",
        Behaviour(flakiness=0.1, limits=0.05, visibility=0.5, log_polls=2),
    ),
    "bad-hosts": (
        "Boots fail or never end, SSH does not answer, hosts go offline.",
        Behaviour(boot_failures=0.25, stuck=0.1, unreachable=0.1, vanishing_hosts=0.15),
    ),
}
