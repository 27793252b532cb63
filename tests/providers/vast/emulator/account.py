"""A person with an account, and one with an SSH key."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gpubroker_vast.emulator import VastEmulator


@dataclass(frozen=True)
class Account:
    """What a person with the account key does over HTTP."""

    cloud: VastEmulator
    http: httpx.Client

    def search(self, **query: Any) -> list[dict[str, Any]]:
        """Offers."""
        answer = self.http.post("/api/v0/bundles/", json=query)
        assert answer.status_code == 200, answer.text
        offers: list[dict[str, Any]] = answer.json()["offers"]
        return offers

    def cheapest(self, **query: Any) -> dict[str, Any]:
        """The cheapest offer with ports of its own."""
        wanted = {"direct_port_count": {"gt": 1}, **query}
        return self.search(order=[["dph_total", "asc"]], **wanted)[0]

    def create(self, offer: int | None = None, **body: Any) -> httpx.Response:
        """Rent an offer; the cheapest, where none is named."""
        wanted = {"client_id": "me", "image": "ubuntu:22.04", "disk": 20, "runtype": "ssh_direct"}
        number = self.cheapest()["id"] if offer is None else offer
        return self.http.put(
            f"/api/v0/asks/{number}/", json={**wanted, "cancel_unavail": True, **body}
        )

    def rent(self, **body: Any) -> int:
        """Rent the cheapest offer, and wait until it runs."""
        number: int = self.create(**body).json()["new_contract"]
        self.until(number, lambda row: row["actual_status"] == "running")
        return number

    def show(self, instance: int) -> dict[str, Any] | None:
        """One instance, as the API shows it."""
        answer = self.http.get(f"/api/v0/instances/{instance}/")
        assert answer.status_code == 200, answer.text
        row: dict[str, Any] | None = answer.json()["instances"]
        return row

    def listed(self, **query: str) -> list[dict[str, Any]]:
        """The first page of instances."""
        answer = self.http.get("/api/v1/instances/", params=query)
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["instances"]
        return rows

    def until(self, instance: int, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until something holds of an instance."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            row = self.show(instance)
            if row is not None and holds(row):
                found.append(row)
            return bool(found)

        eventually(look)
        return found[0]

    def destroy(self, instance: int) -> httpx.Response:
        """Destroy one instance."""
        return self.http.request("DELETE", f"/api/v0/instances/{instance}/", json={})


def eventually(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something that happens in another thread or process."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def account_of(cloud: VastEmulator) -> httpx.Client:
    """A client with the account key."""
    headers = {"Authorization": f"Bearer {cloud.key}"}
    return httpx.Client(base_url=cloud.url, headers=headers, trust_env=False, timeout=10)


@dataclass(frozen=True)
class SshKey:
    """A key pair, and the system's client that uses it."""

    private: Path
    public: str

    def run(self, port: int, command: str, *options: str, data: bytes = b"") -> tuple[int, str]:
        """Run a command over SSH: its exit status and its output; 255 and why not."""
        done = subprocess.run(
            [
                *("ssh", "-F", "none", "-i", str(self.private), "-p", str(port), "-T"),
                *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"),
                *("-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"),
                *("-o", "ConnectTimeout=5", *options, "root@127.0.0.1", command),
            ],
            input=data,
            capture_output=True,
            check=False,
            timeout=20,
        )
        return done.returncode, (done.stdout if done.returncode != 255 else done.stderr).decode()
