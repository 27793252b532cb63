"""A person with an account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from tests.providers.machines import SshKey, eventually

from gpubroker_vast.emulator import VastEmulator

__all__ = ["Account", "SshKey", "account_of", "eventually"]


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


def account_of(cloud: VastEmulator) -> httpx.Client:
    """A client with the account key."""
    headers = {"Authorization": f"Bearer {cloud.key}"}
    return httpx.Client(base_url=cloud.url, headers=headers, trust_env=False, timeout=10)
