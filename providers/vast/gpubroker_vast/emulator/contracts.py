"""Contracts: what was rented, and what the vendor shows of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gpubroker.testing.emulation import EmulatedMachine
from gpubroker_vast.emulator.market import Ask
from gpubroker_vast.emulator.offer_rows import hardware, prices


@dataclass(slots=True, kw_only=True)
class Contract:
    """One contract, known as instance.

    Attributes:
        base: USD per hour for the cards: the list price, or the bid.
        disk: GB.
        key: lets in to this instance alone; known inside of it.
        actual, intended, cur, next, message: the five words on its state.
        visible_at: from when on readings show it. gone_at: from when on they do not.
        destroyed_at: when a destroy was accepted.
        running_since: when it last came up.
        unlisted: never shown by the list, for a fault.
        stubborn: a destroy is accepted, and does nothing; a fault.
        destroy_errors: destroys that fail before one succeeds; a fault.
        queued: a start waits for cards.
        log_polls: how often its log is still asked for in vain.
    """

    id: int
    ask: Ask
    label: str | None
    image: str
    runtype: str
    env: Mapping[str, str]
    onstart: str
    disk: Decimal
    base: Decimal
    floor: Decimal
    is_bid: bool
    created_at: float
    visible_at: float
    keys: list[str] = field(default_factory=list[str])
    key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    token: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    actual: str | None = None
    intended: str = "running"
    cur: str = "running"
    next: str = "running"
    message: str | None = None
    gone_at: float | None = None
    destroyed_at: float | None = None
    running_since: float | None = None
    machine: EmulatedMachine | None = None
    unlisted: bool = False
    stubborn: bool = False
    destroy_errors: int = 0
    queued: bool = False
    offline: bool = False
    log_polls: int = 0
    log_status: int = 403
    log_empty: bool = False
    conditions: list[tuple[str, Mapping[str, Any]]] = field(
        default_factory=list[tuple[str, Mapping[str, Any]]]
    )

    @property
    def name(self) -> str:
        """Its id as the books have it."""
        return str(self.id)

    @property
    def direct(self) -> bool:
        """Whether SSH straight to the host was ordered, and the host has ports for it."""
        return "direc" in self.runtype and self.ask.host.ports > 1

    @property
    def proxied(self) -> bool:
        """Whether there is a way to its SSH server at all."""
        return "ssh" in self.runtype or "jupyter" in self.runtype

    @property
    def ports(self) -> tuple[str, ...]:
        """Container ports asked for, such as ``"8000/tcp"``."""
        found: list[str] = []
        for name in self.env:
            if name.startswith("-p "):
                inner, _, kind = name[3:].strip().rpartition(":")[2].partition("/")
                found.append(f"{inner}/{kind or 'tcp'}")
        return tuple(found)

    def shown_at(self, now: float) -> bool:
        """Whether readings show it at a moment."""
        if self.unlisted or now < self.visible_at:
            return False
        return self.gone_at is None or now < self.gone_at

    def port_map(self) -> dict[str, list[dict[str, str]]] | None:
        """Ports as docker writes them; nothing while it does not run."""
        if self.actual != "running" or self.machine is None:
            return None
        ports = {name: name.partition("/")[0] for name in self.ports}
        if self.direct:
            ports["22/tcp"] = str(self.machine.direct.port)
        return {
            name: [{"HostIp": "0.0.0.0", "HostPort": port}, {"HostIp": "::", "HostPort": port}]  # noqa: S104
            for name, port in ports.items()
        }

    def container_environment(self, address: str) -> dict[str, str]:
        """What the first process of the container finds in its environment."""
        own = {
            "CONTAINER_ID": self.name,
            "CONTAINER_API_KEY": self.key,
            "VAST_CONTAINERLABEL": f"C.{self.id}",
            "PUBLIC_IPADDR": address,
            "GPU_COUNT": str(self.ask.count),
            "DATA_DIRECTORY": "/workspace/",
            "JUPYTER_TOKEN": self.token,
        }
        if self.machine is not None:
            own["VAST_TCP_PORT_22"] = str(self.machine.direct.port)
        for port in self.ports:
            number, _, kind = port.partition("/")
            own[f"VAST_{kind.upper()}_PORT_{number}"] = number
        return own | {
            name: str(value) for name, value in self.env.items() if not name.startswith("-")
        }


def contract_row(contract: Contract, now: float) -> dict[str, Any]:
    """A row of the list of instances."""
    running = contract.actual == "running" and not contract.offline
    machine = contract.machine
    row = hardware(contract.ask) | prices(
        contract.base, contract.ask.host.storage_cost, contract.disk
    )
    if not running:
        idle = {**row["instance"], "gpuCostPerHour": 0, "totalHour": row["storage_total_cost"]}
        row["instance"] = idle
    ends = (int(contract.created_at) // 86_400 + contract.ask.host.days) * 86_400
    up = now - contract.running_since if running and contract.running_since else None
    return row | {
        "id": contract.id,
        "actual_status": contract.actual,
        "intended_status": contract.intended,
        "cur_state": contract.cur,
        "next_state": contract.next,
        "status_msg": contract.message,
        "label": contract.label,
        "image_uuid": contract.image,
        "image_args": [],
        "image_runtype": contract.runtype,
        "extra_env": [[name, str(value)] for name, value in contract.env.items()],
        "onstart": contract.onstart,
        "template_id": None,
        "template_hash_id": None,
        "template_name": None,
        "ssh_host": "127.0.0.1" if contract.proxied else None,
        "ssh_idx": "1",
        "ssh_port": machine.proxy.port if machine is not None else None,
        "machine_dir_ssh_port": machine.direct.port if machine is not None else -1,
        "public_ipaddr": "127.0.0.1\n",
        "local_ipaddrs": "10.0.0.5 172.17.0.2 \n",
        "ports": contract.port_map(),
        "direct_port_start": -1,
        "direct_port_end": -1,
        "direct_port_count": len(contract.ports) + 1 if contract.direct else 0,
        "jupyter_token": contract.token,
        "start_date": contract.created_at,
        "end_date": float(ends),
        "duration": float(ends - now),
        "uptime_mins": None if up is None else round(up / 60, 2),
        "client_run_time": 1.0,
        "host_run_time": 1.0,
        "cpu_util": 0.02 if running else 0.0,
        "gpu_util": 0.0 if running else None,
        "gpu_temp": 38.0 if running else None,
        "mem_usage": 0.5 if running else None,
        "mem_limit": contract.ask.host.ram / 1000 if running else None,
        "vmem_usage": 0.5 if running else None,
        "disk_space": contract.disk,
        "disk_usage": 3.1 if running else -1.0,
        "disk_util": 0.05 if running else -1.0,
        "is_bid": contract.is_bid,
        "min_bid": contract.floor,
        "credit_balance": None,
        "credit_discount": None,
        "volume_info": [],
        "country_code": contract.ask.host.place[-2:],
        "rentable": False,
        "time_remaining": "",
        "time_remaining_isbid": "",
    }


#: Columns that the list can be filtered and ordered by: those kept with the contract itself.
STORED: frozenset[str] = frozenset(
    {
        *("id", "label", "actual_status", "intended_status", "cur_state", "next_state"),
        *("machine_id", "host_id", "gpu_name", "verification", "image_uuid", "start_date"),
        *("end_date", "is_bid", "template_id", "template_hash_id", "status_msg"),
    }
)
