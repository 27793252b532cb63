"""A vendor made of answers: each test says what is answered to which request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from tests.providers.answers import Answers, said

from gpubroker import (
    AccountSettings,
    Machine,
    Money,
    Offer,
    Order,
    Price,
)
from gpubroker_vast.options import Options
from gpubroker_vast.provider import VastProvider

KEY = "account-key-0123456789abcdef"
MARK = "gb1-aaaaaaaa-aaaaaaaaaaaaaaaa-aaaaaaaa"
URL = "http://127.0.0.1:9"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ lease"
NONCE = "nonce-0123456789"


class Vendor(Answers):
    """Vast.ai, as far as a test needs it."""

    @asynccontextmanager
    async def provider(
        self,
        *,
        key: str | None = KEY,
        url: str = URL,
        transport: httpx.AsyncBaseTransport | None = None,
        **options: str,
    ) -> AsyncGenerator[VastProvider]:
        """The provider on this vendor, in no hurry to be fair: pacing is off unless asked for."""
        if url == URL:
            options.setdefault("pacing", "off")
        read = Options.read(AccountSettings("vast", options, key, url))
        provider = VastProvider(
            read,
            lambda kind, text: self.events.append((kind, text)),
            transport=transport or httpx.MockTransport(self),
        )
        async with provider:
            yield provider


def no(status: int, error: str, msg: str = "", **parts: Any) -> httpx.Response:
    """A refusal in the vendor's usual form."""
    return said(status, {"success": False, "error": error, "msg": msg, **parts})


def offer_row(**parts: Any) -> dict[str, Any]:
    """An offer as the vendor's documents show one."""
    row: dict[str, Any] = {
        "id": 27418355,
        "ask_contract_id": 27418355,
        "machine_id": 41877,
        "hosting_type": 0,
        "num_gpus": 1,
        "gpu_name": "RTX 4090",
        "gpu_ram": 24564,
        "compute_cap": 890,
        "cuda_max_good": 12.8,
        "driver_version": "570.133.20",
        "cpu_cores": 128,
        "cpu_cores_effective": 32.0,
        "cpu_ram": 515768,
        "disk_space": 812.4,
        "inet_up": 842.1,
        "inet_down": 905.7,
        "inet_up_cost": 0.0026,
        "inet_down_cost": 0.0031,
        "storage_cost": 0.15,
        "dph_base": 0.3466667,
        "dph_total": 0.355,
        "min_bid": 0.1733333,
        "reliability": 0.9964,
        "verification": "verified",
        "duration": 1209600.0,
        "rentable": True,
        "rented": False,
        "direct_port_count": 62,
        "static_ip": True,
        "geolocation": "Quebec, CA",
        "something_new": {"nobody": "knows"},
    }
    return {**row, **parts}


def instance_row(**parts: Any) -> dict[str, Any]:
    """An instance as the vendor's documents show one."""
    row: dict[str, Any] = {
        "id": 31337042,
        "machine_id": 41877,
        "actual_status": "running",
        "intended_status": "running",
        "cur_state": "running",
        "next_state": "running",
        "status_msg": "success, running pytorch/ssh",
        "label": MARK,
        "ssh_host": "ssh5.vast.ai",
        "ssh_port": 17042,
        "public_ipaddr": "203.0.113.41\n",
        "ports": {
            "22/tcp": [
                {"HostIp": "0.0.0.0", "HostPort": "41022"},
                {"HostIp": "::", "HostPort": "41022"},
            ],
            "8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "41023"}],
        },
        "start_date": 1795400123.4,
        "is_bid": False,
        "dph_base": 0.3466667,
        "dph_total": 0.355,
        "storage_total_cost": 0.0083333,
        "jupyter_token": "a-secret-of-the-machine",
    }
    return {**row, **parts}


def listing(*rows: Mapping[str, Any], total: int | None = None, token: Any = None) -> Any:
    """One page of the listing."""
    return said(
        200,
        {
            "success": True,
            "instances_found": len(rows),
            "total_instances": len(rows) if total is None else total,
            "next_token": token,
            "instances": list(rows),
        },
    )


def offer(**parts: Any) -> Offer:
    """An offer as `quote` gives it."""
    usual: dict[str, Any] = {
        "id": "27418355",
        "price": Price(machine=Money("0.346667"), disk=Money("0.008334")),
        "host": "41877",
        "extra": {"ask": "27418355"},
    }
    return Offer(**{**usual, **parts})


def order(**parts: Any) -> Order:
    """An order for that offer."""
    usual: dict[str, Any] = {
        "mark": MARK,
        "lease_id": "lease-1",
        "image": None,
        "disk": 40.0,
        "ports": (),
        "env": {},
        "price_ceiling": Money("0.355001"),
        "deadline": 4_000_000_000.0,
        "public_key": PUBLIC_KEY,
        "nonce": NONCE,
    }
    return Order(**{**usual, **parts})


MACHINE = Machine(id="31337042")


def shows_no_key(error: BaseException) -> bool:
    """Whether the account's key is in nothing that this error would print."""
    links: list[BaseException | None] = [error, error.__cause__, error.__context__]
    return all(KEY not in f"{link} {link!r}" for link in links)
