"""Pods: what was rented, and what the vendor shows of it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from gpubroker.testing.emulation import EmulatedMachine
from gpubroker_runpod.emulator.catalogue import CardType
from gpubroker_runpod.emulator.log import PodLog, moment
from gpubroker_runpod.emulator.market import DISK_RATE

PROVISIONING: Final = "PROVISIONING"
STARTING: Final = "STARTING"
RUNNING: Final = "RUNNING"
EXITED: Final = "EXITED"
ERROR: Final = "ERROR"
TERMINATED: Final = "TERMINATED"

#: What may be done to a pod, by its status.
ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    PROVISIONING: ("stop", "terminate"),
    STARTING: ("stop", "terminate"),
    RUNNING: ("stop", "restart", "terminate"),
    EXITED: ("start", "terminate"),
    ERROR: ("start", "terminate"),
    TERMINATED: (),
}

#: Where pods say that ports for browsers are: an address that leads nowhere from outside.
_INNER_ADDRESS: Final = "100.65.14.7"


@dataclass(slots=True, kw_only=True)
class Pod:
    """One pod.

    Attributes:
        rate: USD per hour for the cards. disk: GB. kept_disk: GB of storage on the host.
        key: lets in to this pod alone; known inside of it.
        visible_at: from when on readings show it. gone_at: from when on the list does not.
        destroyed_at: when a delete was accepted, or the pod disappeared.
        started_at: when its container last began.
        old_port: the public SSH port before the last restart, shown until `ports_at`.
        ports_at: from when on its present ports are shown; ``None``: never.
        public: whether it has ports that can be reached from outside.
        unlisted: never on the list, nor found by its id; a fault.
        cluster: the cluster that it is a part of; a fault, since none can be made here.
        stubborn, destroy_errors, conditions: faults.
    """

    id: str
    name: str
    image: str
    args: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    card: CardType
    count: int
    cloud: str
    place: str
    cuda: str | None
    disk: int
    kept_disk: Mapping[str, Any] | None
    env: dict[str, str]
    injected: dict[str, str]
    ports: tuple[str, ...]
    registry: str | None
    rate: Decimal
    created_at: float
    visible_at: float
    public: bool
    log: PodLog = field(default_factory=PodLog)
    key: str = field(default_factory=lambda: "rpa_" + secrets.token_hex(20).upper(), repr=False)
    status: str = PROVISIONING
    machine: EmulatedMachine | None = None
    started_at: float | None = None
    gone_at: float | None = None
    destroyed_at: float | None = None
    ports_at: float | None = None
    old_port: int | None = None
    unlisted: bool = False
    cluster: str | None = None
    stubborn: bool = False
    destroy_errors: int = 0
    conditions: list[tuple[str, Mapping[str, Any]]] = field(
        default_factory=list[tuple[str, Mapping[str, Any]]]
    )

    @property
    def disk_rate(self) -> Decimal:
        """USD per hour for its disks while it runs."""
        kept = int(self.kept_disk["size"]) if self.kept_disk else 0
        return DISK_RATE * (self.disk + kept)

    @property
    def cost(self) -> Decimal:
        """USD per hour at this moment, as it is shown."""
        if self.status == EXITED or self.destroyed_at is not None:
            return Decimal(0)
        return (self.rate + self.disk_rate).quantize(Decimal("0.000001"))

    @property
    def ssh_mapped(self) -> bool:
        """Whether its SSH server can be reached from outside."""
        return "22/tcp" in self.ports and self.public

    def has(self, name: str) -> bool:
        """Whether it has a fault of its boot."""
        return any(known == name for known, _ in self.conditions)

    def found_at(self, now: float) -> bool:
        """Whether it is found by its id at a moment."""
        return self.destroyed_at is None and not self.unlisted and now >= self.visible_at

    def listed_at(self, now: float) -> bool:
        """Whether the list has it at a moment. It may linger there after its end."""
        if self.unlisted or now < self.visible_at:
            return False
        return self.gone_at is None or now < self.gone_at

    def ssh_port(self, now: float) -> int | None:
        """The public port that is shown for SSH; it may be an old one, or not yet there."""
        if not self.ssh_mapped or self.status != RUNNING or self.machine is None:
            return None
        if self.ports_at is None:
            return None
        return self.machine.direct.port if now >= self.ports_at else self.old_port

    def environment(self) -> dict[str, str]:
        """What its main process finds in its environment."""
        own = {
            "RUNPOD_POD_ID": self.id,
            "RUNPOD_API_KEY": self.key,
            "RUNPOD_DC_ID": self.place,
            "RUNPOD_POD_HOSTNAME": f"{self.id}-64411eb2",
            "RUNPOD_GPU_COUNT": str(self.count),
            "RUNPOD_CPU_COUNT": str(8 * self.count),
        }
        if self.public:
            own["RUNPOD_PUBLIC_IP"] = "127.0.0.1"
            for port in self.ports:
                number, _, kind = port.partition("/")
                if kind == "tcp":
                    own[f"RUNPOD_TCP_PORT_{number}"] = str(self._outside(number))
        return {**self.env, **self.injected, **own}

    def _outside(self, number: str) -> int:
        """The public number of a TCP port. But for SSH, ports are this system's own."""
        if number == "22" and self.machine is not None:
            return self.machine.direct.port
        return int(number)

    def runtime_ports(self, now: float) -> list[dict[str, Any]]:
        """Its ports, with how they are reached from outside."""
        rows: list[dict[str, Any]] = []
        for index, port in enumerate(self.ports):
            number, _, kind = port.partition("/")
            row: dict[str, Any] = {"private": int(number), "public": None, "type": kind, "ip": None}
            if kind == "http":
                row |= {"public": 60_000 + index, "ip": _INNER_ADDRESS}
            elif number == "22":
                shown = self.ssh_port(now)
                row |= {"public": shown, "ip": "127.0.0.1" if shown else None}
            elif self.public:
                row |= {"public": int(number), "ip": "127.0.0.1"}
            rows.append(row)
        return rows


def pod_row(pod: Pod, now: float, *, newer: bool = False) -> dict[str, Any]:
    """A pod as the API shows it."""
    gpu: dict[str, Any] = {"id": pod.card.id, "count": pod.count}
    row: dict[str, Any] = {
        "id": pod.id,
        "name": pod.name,
        "image": pod.image,
        "args": pod.args,
        "disk": pod.disk,
        "ports": list(pod.ports),
        "env": {**pod.env, **pod.injected},
        "registry": pod.registry,
        "status": pod.status,
        "actions": list(ACTIONS[pod.status]),
        "mounts": {"persistent": dict(pod.kept_disk)} if pod.kept_disk else {},
        "gpu": gpu,
        "cloud": pod.cloud,
        "dataCenterId": pod.place,
        "cudaVersion": pod.cuda,
        "ssh": {"proxy": _proxy(pod), "direct": _direct(pod, now)},
        "template": None,
        "cost": pod.cost,
        "locked": False,
        "globalNetworking": {"enabled": False},
        "runtime": _runtime(pod, now),
        "createdAt": moment(pod.created_at),
        "startedAt": None if pod.started_at is None else moment(pod.started_at),
    }
    if newer:
        row |= {"cmd": list(pod.command), "entrypoint": list(pod.entrypoint)}
        gpu |= {"vcpuCount": 8 * pod.count, "memory": 32 * pod.count}
    if pod.cluster is not None:
        row["cluster"] = {"id": pod.cluster, "rank": 0}
    return row


def _proxy(pod: Pod) -> dict[str, Any] | None:
    if pod.machine is None:
        return None
    user, port = f"{pod.id}-64411eb2", pod.machine.proxy.port
    return {
        "host": "127.0.0.1",
        "port": port,
        "username": user,
        "command": f"ssh {user}@127.0.0.1 -p {port}",
    }


def _direct(pod: Pod, now: float) -> dict[str, Any] | None:
    port = pod.ssh_port(now)
    if port is None:
        return None
    return {
        "host": "127.0.0.1",
        "port": port,
        "username": "root",
        "command": f"ssh root@127.0.0.1 -p {port}",
    }


def _runtime(pod: Pod, now: float) -> dict[str, Any] | None:
    if pod.status != RUNNING or pod.started_at is None or pod.has("no-runtime"):
        return None
    if pod.has("empty-runtime"):
        return {}
    cards = 0 if pod.has("zero-gpus") else pod.count
    return {
        # A container that has just begun has been up for its first second.
        "uptime": math.floor(now - pod.started_at) + 1,
        "gpus": [{"util": 0, "memoryUtil": 0} for _ in range(cards)],
        "cpu": {"util": 3},
        "memory": {"util": 1},
        "ports": pod.runtime_ports(now),
    }
