"""A vendor in memory, with its own books: what the conformance checks rent from.

It is an httpx transport, so that the plugin's own requests are what runs, and nothing leaves the
process.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel
import httpx

from gpubroker import AccountSettings, Emit, Money
from gpubroker.testing.conformance import Subject, Troubles, VendorBooks
from gpubroker_acme import AcmeProvider

_KEY: Final = "a-key-that-is-not-one"
_CREDIT: Final = "25.50"
_PER_GPU: Final = Decimal("0.35")
_PER_GB: Final = Decimal("0.0001")
_PAGE: Final = 2
#: Seconds for which a machine that is being deleted is still listed, and bills.
_DELETING: Final = 0.05


@contextmanager
def subject() -> Generator[Subject]:
    """The plugin on a vendor of its own; `gpubroker conformance acme` asks for one per check.

    What is declared here must be so: a hook that the plugin lost fails a check, and skips none.
    """
    vendor = Vendor()

    def factory(settings: AccountSettings, emit: Emit) -> AcmeProvider:
        return AcmeProvider(settings, emit, transport=vendor)

    # At a loopback address it is an emulator, which need not be spared.
    settings = AccountSettings("acme", {"poll_interval": "0.01"}, _KEY, "http://127.0.0.1:1")
    yield Subject(
        name="acme",
        factory=factory,
        settings=settings,
        wanted={"gpu": "RTX 4090", "disk": 20.5},
        books=VendorBooks(
            running=vendor.running,
            creates=lambda: vendor.creates,
            targets=lambda: tuple(vendor.targets),
            orders=lambda: tuple(vendor.orders),
            hourly=lambda number: Money(vendor.machines[number]["usd_per_hour"]),
            balance=lambda: Money(_CREDIT),
        ),
        troubles=_troubles(vendor),
        unknown_id="99999",
        ssh=True,
        logs=True,
        balance=True,
        doubles=True,
        bills_disk=True,
        announces=True,
        ends_itself=True,
    )


def _troubles(vendor: Vendor) -> Troubles:
    def now(trouble: str) -> Callable[[], None]:
        return partial(setattr, vendor, "trouble", trouble)

    return Troubles(
        calm=now(""),
        lost_creates={word: now(word) for word in ("cut create", "502", "half an answer")},
        billing_refusal=now("refusal"),
        broken_listings={word: now(word) for word in ("cut list", "500", "short list", "no page")},
        slow_boot=now("slow boot"),
        others=lambda: [vendor.make({"label": label}) for label in ("my notebook", None)],
        echoes={word: now(word) for word in ("echo 400", "echo 500")},
        newer=now("news"),
    )


@dataclass
class Vendor(httpx.AsyncBaseTransport):
    """Acme, with one kind of card by ones and twos. `trouble` is what goes wrong there now."""

    trouble: str = ""
    creates: int = 0
    orders: list[str] = field(default_factory=list[str])
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(101))
    targets: list[str] = field(default_factory=list[str])
    machines: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def running(self) -> set[str]:
        """Ids of the machines that bill."""
        now = anyio.current_time()
        return {number for number, machine in self.machines.items() if now < machine["ends_at"]}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, as a server would."""
        body = await request.aread()
        self.targets.append(request.url.raw_path.decode())
        await anyio.lowlevel.checkpoint()
        answer = self._answer(request, body)
        await anyio.lowlevel.checkpoint()
        if self.trouble.startswith("echo"):
            said = {"error": f"the key {_KEY} may not do this"}
            return httpx.Response(int(self.trouble[-3:]), json=said)
        return answer

    def _answer(self, request: httpx.Request, body: bytes) -> httpx.Response:
        if request.headers.get("Authorization") != f"Bearer {_KEY}":
            return httpx.Response(401, json={"error": "no such key"})
        match request.method, request.url.path.strip("/").split("/"):
            case "GET", ["v1", "offers"]:
                return self._json({"offers": [_offer(gpus) for gpus in (1, 2)]})
            case "GET", ["v1", "account"]:
                return self._json({"credit_usd": _CREDIT})
            case "POST", ["v1", "machines"]:
                return self._create(json.loads(body))
            case "GET", ["v1", "machines"]:
                return self._list(int(request.url.params["after"]))
            case "DELETE", ["v1", "machines", number]:
                return self._delete(number)
            case "GET", ["v1", "machines", number, "log"] if number in self.running():
                # A machine would run its start script; here the script itself is the log.
                return httpx.Response(200, text=self.machines[number]["log"])
            case _:
                return httpx.Response(404, json={"error": "nothing is there"})

    def _create(self, body: dict[str, Any]) -> httpx.Response:
        self.creates += 1
        self.orders.append(json.dumps(body))
        if self._price(body) > Decimal(body["most_usd_per_hour"]):
            return httpx.Response(409, json={"error": "it costs more by now"})
        trouble, self.trouble = self.trouble, ""
        number = self.make(body, boot=60 if trouble == "slow boot" else 0)
        match trouble:
            case "cut create":
                raise httpx.ReadError("the connection was cut")
            case "502":
                return httpx.Response(502, text="<html>")
            case "half an answer":
                return httpx.Response(201, text='{"id": 1')
            case "refusal":
                return httpx.Response(409, json={"error": "no capacity", "id": int(number)})
            case _:
                return httpx.Response(201, json={"id": int(number)})

    def _delete(self, number: str) -> httpx.Response:
        if number not in self.running():
            return httpx.Response(404)
        ends_at = min(self.machines[number]["ends_at"], anyio.current_time() + _DELETING)
        self.machines[number] |= {"ends_at": ends_at}
        return httpx.Response(202)

    def make(self, body: dict[str, Any], *, boot: float = 0) -> str:
        """A machine that bills."""
        number = str(next(self.numbers))
        self.machines[number] = {
            "id": int(number),
            "label": body.get("label"),
            "usd_per_hour": str(self._price(body)),
            "up_at": anyio.current_time() + boot,
            "ends_at": math.inf,
            "log": body.get("start_script", ""),
        }
        return number

    def _price(self, body: dict[str, Any]) -> Decimal:
        gpus = 2 if body.get("type") == "rtx4090-x2" else 1
        return _PER_GPU * gpus + _PER_GB * int(body.get("disk_gb", 10))

    def _list(self, after: int) -> httpx.Response:
        if self.trouble == "cut list":
            raise httpx.ReadError("the connection was cut")
        if self.trouble == "500" or (self.trouble == "no page" and after):
            return httpx.Response(500, text="<html>")
        running = sorted(self.running(), key=int)
        left = [self._row(self.machines[one]) for one in running if int(one) > after]
        answer: dict[str, Any] = {
            "machines": left[:_PAGE],
            "more": len(left) > _PAGE or self.trouble == "no page",
            "total": len(running),
        }
        if self.trouble == "short list":
            answer["machines"] = answer["machines"][1:]
        return self._json(answer)

    def _row(self, machine: dict[str, Any]) -> dict[str, Any]:
        up = anyio.current_time() >= machine["up_at"]
        way = {"ssh_host": "203.0.113.7", "ssh_port": 22} if up else {}
        state = "hibernating" if self.trouble == "news" else "up" if up else "starting"
        if machine["ends_at"] < math.inf:
            state = "deleting"
        shown = {name: machine[name] for name in ("id", "label", "usd_per_hour")}
        return {**shown, **way, "state": state}

    def _json(self, answer: dict[str, Any]) -> httpx.Response:
        if self.trouble == "news":
            answer |= {"something_new": [{"nobody": "knows"}]}
        return httpx.Response(200, json=answer)


def _offer(gpus: int) -> dict[str, Any]:
    return {
        "type": f"rtx4090-x{gpus}",
        "gpu": "GeForce RTX 4090",
        "gpus": gpus,
        "vram_gb": 24,
        "disk_gb": 500,
        "country": "DE",
        "ports": 16,
        "usd_per_gpu_hour": str(_PER_GPU),
        "usd_per_gb_hour": str(_PER_GB),
    }
