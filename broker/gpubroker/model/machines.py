"""What the vendor runs and bills, and the order that asks for it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpubroker.model.jobs import Purpose
from gpubroker.model.money import Money


class MachineState(enum.StrEnum):
    """What a provider says of a machine, in the broker's words."""

    #: Accepted, and not usable yet: waited for. Also every word that nobody has mapped.
    BOOTING = "booting"
    #: The provider says that it is up. The broker still probes it.
    RUNNING = "running"
    #: It will not come up, or is out of reach for good: boot failure, host offline. Given up.
    BROKEN = "broken"
    #: Halted, outbid, preempted, or draining after a release. It may still bill, and is released.
    STOPPED = "stopped"
    #: A tombstone: listed, but destroyed and billed no more. Counts as not listed.
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a machine's SSH server is reached.

    Attributes:
        host: a name or an address. port: the TCP port there.
        proxied: through a gateway of the vendor's, which is slower than straight.
        user: the account to log in to.
    """

    host: str
    port: int
    proxied: bool = False
    user: str = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine of the account, as the provider describes it now.

    Attributes:
        id: the vendor's id.
        provider: the provider's name. The broker fills it in.
        state: what the provider says of it.
        mark: the ownership mark found on it, if any.
        hourly: USD per hour that it really costs, where the provider says so.
        created_at: Unix time, where the provider says so.
        progress: the provider's text on how far booting is; any change counts as progress.
        host: the vendor's id of the physical machine.
        routes: where its SSH server is reached, the best first; none while that is not known.
        ssh: whether it is reached over SSH at all, where its provider declares that. One that is not
            runs the jobs that its order named, and no others; its log shows the order's nonce once
            it has begun.
        details: the provider's own data, handed back to its hooks unread. Never secrets.
    """

    id: str
    provider: str = ""
    state: MachineState = MachineState.RUNNING
    mark: str | None = None
    hourly: Money | None = None
    created_at: float | None = None
    progress: str = ""
    host: str | None = None
    routes: tuple[Route, ...] = ()
    ssh: bool = True
    details: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """A job that is known before its machine is. It has no files, no outputs and no secrets.

    Attributes:
        purpose: what it is for; no two jobs of one order have the same.
        argv: the words of the command, to be passed on exactly.
        env: its complete environment, besides what the machine has.
        timeout: seconds it may run; ``None`` leaves the order's deadline as the only limit.
        shared: it runs in the machine's home folder, and not in one of its own.
    """

    purpose: Purpose
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout: float | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What ``provision`` must ask the vendor for.

    Attributes:
        mark: the ownership mark; must travel inside the create request itself.
        lease_id: the broker's id of the lease, for people to read.
        image: the container image, or ``None`` for the provider's default.
        disk: GB.
        ports: TCP ports to make reachable.
        env: environment for the machine. Holds no secrets.
        price_ceiling: USD per hour above which the order must not be accepted.
        deadline: Unix time at which the machine must be gone, for a dead-man switch on it.
        public_key: the OpenSSH public key, one line, that must be let in; where machines are
            reached over SSH.
        nonce: what the machine is to print beside its SSH host keys, so that its log proves which
            keys are its own; see `gpubroker.transport.announcement`. Not a secret for ever: it is
            worth nothing once the machine is gone.
        jobs: all that will ever be run on this machine, in this order, where that is known and can
            be handed over with the order; empty otherwise. One is only run if those before it exited with 0: wrong
            cards end the probe with another code. The plugin may leave it alone; or it may have the
            machine run them by itself, say so with `Machine.ssh`, and read what became of each when its ``run``
            is asked for it, with no channel.
    """

    mark: str
    lease_id: str
    image: str | None
    disk: float
    ports: tuple[int, ...]
    env: Mapping[str, str]
    price_ceiling: Money
    deadline: float
    public_key: str = ""
    nonce: str = ""
    jobs: tuple[PlannedJob, ...] = ()
