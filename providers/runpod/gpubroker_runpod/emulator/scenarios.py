"""How an emulated RunPod behaves: every switch, and named sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Every switch. Durations are seconds.

    Attributes:
        scarcity: the part of the stock that others have at the start; 1 leaves nothing.
        catalogue_lag: how old the stock may be that the catalogue shows.
        visibility: how long a new pod is missing from readings.
        scheduling: from the create to ``STARTING``. boot: from there to ``RUNNING``.
        sshd: from the container's own call of sshd until it answers.
        port_delay: from ``RUNNING`` until ports are shown.
        port_lag: how long the old ports are shown after a restart.
        public_community: chance that a pod of the community cloud has public ports.
        restart_pause: from the end of a container's main process until it runs again.
        keep_home: whether a restart keeps what the container wrote.
        keep_log: whether a restart keeps what it printed.
        vanishing: how long a deleted pod stays on the list, as it was.
        heartbeat: seconds between comments in a silent stream of logs; 0: there are none.
        line_limit: longer lines of logs are split, in bytes.
        minute, hour, day: requests in each window. exempt: there are no windows at all.
        edge: whether what stands in front refuses clients without a name of their own.
        graphql: ``works``, ``gone`` (410), or ``restricted`` (the key may not).
        pod_key: what the key inside of a pod may do to that pod: ``works``, ``graphql`` (nothing
            over REST), or ``none``.
        disk_needed: whether a create without ``disk`` is refused.
        newer: fields and pages of the document's later revision.
        credit: USD in the account at the start.
        spend_limit: USD per hour that all pods together may cost.
        settling: how far the billing history lags behind.
        charge_digits: decimals that each amount of it is rounded to.
        boot_failures: chance of a pull that fails. stuck: of a boot that never ends.
        unreachable: of a pod whose SSH server never answers.
        dying_hosts: of a pod that disappears within a minute.
        races: chance that a create finds its machine taken.
        flakiness: chance that a request fails in one of many ways.
    """

    scarcity: float = 0.0
    catalogue_lag: float = 0.0
    visibility: float = 0.0
    scheduling: float = 0.05
    boot: float = 0.25
    sshd: float = 0.0
    port_delay: float = 0.0
    port_lag: float = 0.0
    public_community: float = 0.0
    restart_pause: float = 0.1
    keep_home: bool = False
    keep_log: bool = True
    vanishing: float = 0.1
    heartbeat: float = 5.0
    line_limit: int = 16_384
    minute: int = 6_000
    hour: int = 300_000
    day: int = 5_000_000
    exempt: bool = False
    edge: bool = True
    graphql: str = "works"
    pod_key: str = "works"
    disk_needed: bool = True
    newer: bool = False
    credit: float = 100.0
    spend_limit: float = 80.0
    settling: float = 0.0
    charge_digits: int = 6
    boot_failures: float = 0.0
    stuck: float = 0.0
    unreachable: float = 0.0
    dying_hosts: float = 0.0
    races: float = 0.0
    flakiness: float = 0.0


#: Each with one sentence for people.
SCENARIOS: Final[Mapping[str, tuple[str, Behaviour]]] = {
    "calm": ("Everything works, and quickly.", Behaviour()),
    "realistic": (
        "Delays, limits and lags as they are at the vendor.",
        Behaviour(
            scarcity=0.4,
            catalogue_lag=30.0,
            visibility=2.0,
            scheduling=8.0,
            boot=30.0,
            sshd=5.0,
            port_delay=5.0,
            port_lag=15.0,
            public_community=0.5,
            restart_pause=3.0,
            vanishing=2.0,
            heartbeat=15.0,
            minute=60,
            hour=3_000,
            day=50_000,
            settling=300.0,
            races=0.05,
        ),
    ),
    "busy-market": (
        "Little is left, and others are often quicker.",
        Behaviour(scarcity=0.9, catalogue_lag=20.0, races=0.4),
    ),
    "flaky-api": (
        "Requests fail in every way that was seen, some after they took effect.",
        Behaviour(flakiness=0.1, visibility=0.5, minute=600, vanishing=1.0),
    ),
    "bad-hosts": (
        "Pulls fail or never end, SSH does not answer, pods disappear.",
        Behaviour(boot_failures=0.25, stuck=0.1, unreachable=0.1, dying_hosts=0.15),
    ),
}
