"""RunPod made of answers: each test says what is answered to which request."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.providers.answers import Answers, said
from tests.providers.runpod.documents import FILE, query_problems, request_problems

from gpubroker import AccountSettings, Machine, Money, Offer, Order, PlannedJob, Price
from gpubroker_runpod.options import Options
from gpubroker_runpod.provider import RunPodProvider

KEY = "account-key-0123456789abcdef"
MARK = "gb1-aaaaaaaa-aaaaaaaaaaaaaaaa-aaaaaaaa"
URL = "http://127.0.0.1:9"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ lease"
NONCE = "nonce-0123456789"
POD = "q7x2m0c4v9tzkd"
MACHINE = Machine(id=POD)
NO_CAPACITY = (
    "There are no longer any instances available with the requested specifications."
    " Please refresh and try again."
)


@dataclass
class Vendor(Answers):
    """RunPod, as far as a test needs it.

    Attributes:
        documented: the documents at hand describe all that will be asked.
        problems: where a request was not as they have it, if they are at hand.
    """

    documented: bool = True
    problems: list[str] = field(default_factory=list[str])

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if self.documented and FILE.is_file() and path.startswith("/v2"):
            body = json.loads(request.content) if request.content else None
            self.problems += request_problems(request.method, path, body)
            self.problems += query_problems(request.method, path, dict(request.url.params))
        return super().__call__(request)

    @asynccontextmanager
    async def provider(
        self,
        *,
        key: str | None = KEY,
        url: str = URL,
        transport: httpx.AsyncBaseTransport | None = None,
        **options: str,
    ) -> AsyncGenerator[RunPodProvider]:
        """The provider on this vendor, in no hurry to be fair: pacing is off unless asked for."""
        if url == URL:
            options.setdefault("pacing", "off")
        read = Options.read(AccountSettings("runpod", options, key, url))
        provider = RunPodProvider(
            read,
            lambda kind, text: self.events.append((kind, text)),
            transport=transport or httpx.MockTransport(self),
        )
        async with provider:
            yield provider


def problem(status: int, detail: str = "", *errors: str, **headers: str) -> httpx.Response:
    """A refusal in the vendor's usual form."""
    body: dict[str, Any] = {"title": "Refused", "status": status, "detail": detail}
    if errors:
        body["errors"] = list(errors)
    return httpx.Response(
        status,
        content=json.dumps(body),
        headers={"content-type": "application/problem+json", **headers},
    )


def events(*lines: str, source: str = "container") -> httpx.Response:
    """A log of these lines, as a stream of events that ends."""
    text = "".join(
        f"id: 2026-11-20T09:01:12Z/{number:012d}\n"
        f"data: {json.dumps({'ts': '2026-11-20T09:01:12Z', 'source': source, 'line': line})}\n\n"
        for number, line in enumerate(lines)
    )
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


def gpu_row(**parts: Any) -> dict[str, Any]:
    """A GPU type as the vendor's documents show one."""
    row: dict[str, Any] = {
        "id": "NVIDIA GeForce RTX 4090",
        "name": "RTX 4090",
        "pool": "ADA_24",
        "manufacturer": "NVIDIA",
        "memory": 24,
        "secure": True,
        "community": True,
        "price": {"secure": 0.69, "community": 0.34, "serverless": 1.12},
        "maxCount": {"secure": 8, "community": 8},
        "availability": "LOW",
        "dataCenters": [{"id": "EU-RO-1", "name": "EU Romania 1", "availability": "LOW"}],
        "cudaVersions": [{"version": "12.8", "available": True}],
        "something_new": {"nobody": "knows"},
    }
    return {**row, **parts}


def catalogue(*rows: Mapping[str, Any]) -> httpx.Response:
    """The answer to a request for the catalogue."""
    return said(200, {"gpus": list(rows)})


def pod_row(**parts: Any) -> dict[str, Any]:
    """A pod that runs, as the vendor's documents show one."""
    row: dict[str, Any] = {
        "id": POD,
        "name": MARK,
        "image": "ghcr.io/acme/trainer:7",
        "args": "",
        "disk": 30,
        "ports": ["22/tcp"],
        "env": {"GPUBROKER_MARK": MARK, "TOKEN": "a-secret-of-the-pod"},
        "registry": None,
        "status": "RUNNING",
        "actions": ["stop", "restart", "terminate"],
        "mounts": {},
        "gpu": {"id": "NVIDIA L4", "count": 1},
        "cloud": "SECURE",
        "dataCenterId": "EU-RO-1",
        "cudaVersion": "12.8",
        "ssh": {
            "proxy": {
                "host": "ssh.runpod.io",
                "port": 22,
                "username": f"{POD}-6441103b",
                "command": f"ssh {POD}-6441103b@ssh.runpod.io",
            },
            "direct": {
                "host": "203.0.113.9",
                "port": 41022,
                "username": "root",
                "command": "ssh root@203.0.113.9 -p 41022",
            },
        },
        "template": None,
        "cost": 0.39,
        "locked": False,
        "globalNetworking": {"enabled": False},
        "runtime": {
            "uptime": 73,
            "gpus": [{"util": 0, "memoryUtil": 0}],
            "cpu": {"util": 3},
            "memory": {"util": 1},
            "ports": [{"private": 22, "public": 41022, "type": "tcp", "ip": "203.0.113.9"}],
        },
        "createdAt": "2026-11-20T09:00:00Z",
        "startedAt": "2026-11-20T09:01:10Z",
        "something_new": {"nobody": "knows"},
    }
    return {**row, **parts}


def booting_row(**parts: Any) -> dict[str, Any]:
    """A pod that was just made."""
    row = pod_row(
        status="PROVISIONING",
        actions=["stop", "terminate"],
        ssh={"proxy": None, "direct": None},
        runtime=None,
        dataCenterId=None,
        startedAt=None,
    )
    return {**row, **parts}


def listing(*rows: Mapping[str, Any], **parts: Any) -> httpx.Response:
    """The answer to a request for the pods."""
    return said(200, {"pods": list(rows), **parts})


def offer(**parts: Any) -> Offer:
    """An offer as `quote` gives it."""
    usual: dict[str, Any] = {
        "id": "SECURE/NVIDIA L4/1/RO",
        "price": Price(machine=Money("0.39"), disk=Money("0.004167")),
        "gpu": "L4",
        "count": 1,
        "region": "RO",
        "extra": {"gpu": "NVIDIA L4", "cloud": "SECURE", "count": "1", "dataCenters": "EU-RO-1"},
    }
    return Offer(**{**usual, **parts})


def community_offer() -> Offer:
    """An offer of the community cloud, anywhere."""
    return offer(
        id="COMMUNITY/NVIDIA L4/1",
        region=None,
        extra={"gpu": "NVIDIA L4", "cloud": "COMMUNITY", "count": "1"},
    )


JOBS = (PlannedJob(purpose="job", argv=("python3", "-c", "print('hi')")),)


def order(**parts: Any) -> Order:
    """An order for that offer."""
    usual: dict[str, Any] = {
        "mark": MARK,
        "lease_id": "lease-1",
        "image": None,
        "disk": 30.0,
        "ports": (),
        "env": {},
        "price_ceiling": Money("0.394167"),
        "deadline": 4_000_000_000.0,
        "public_key": PUBLIC_KEY,
        "nonce": NONCE,
    }
    return Order(**{**usual, **parts})


def shows_no_key(error: BaseException) -> bool:
    """Whether the account's key is in nothing that this error would print."""
    links: list[BaseException | None] = [error, error.__cause__, error.__context__]
    return all(KEY not in f"{link} {link!r}" for link in links)
