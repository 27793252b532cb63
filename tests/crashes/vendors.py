"""Both emulated vendors in a process of their own, with strangers' machines in the account."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import httpx

from gpubroker.model.marks import Mark
from gpubroker.model.money import Money
from gpubroker.testing.emulation import EmulatedVendor
from gpubroker_runpod.emulator import RunPodEmulator
from gpubroker_vast.emulator import VastEmulator

CARD: Final = "NVIDIA GeForce RTX 4090"
_CREATES: Final = {"vast": "label", "runpod": "name"}
#: Names of machines that are not ours: one is a mark as another installation in the same account makes it.
STRANGERS: Final = ("somebody's", str(Mark.make(b"k" * 32, "a" * 8, b"another in")))

Prepare = Callable[["VastEmulator", "RunPodEmulator"], None]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a vendor is, and the settings that suit it."""

    url: str
    key: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A machine that was made since the beginning of a trial."""

    vendor: str
    id: str
    mark: str
    destroyed: bool
    charge: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the vendors know at a moment.

    Attributes:
        creates: the mark of each create request since the beginning, in order.
        in_flight: requests that have come, and are not answered.
        made: machines of this trial. missing: strangers' machines that run no longer.
        bugs: failures of the emulators themselves, and secrets that came where they must not.
    """

    creates: tuple[str, ...]
    in_flight: int
    made: tuple[Made, ...]
    missing: tuple[str, ...]
    bugs: tuple[str, ...]

    @property
    def running(self) -> tuple[str, ...]:
        """What costs money and is nobody else's."""
        return tuple(f"{m.vendor} {m.id}" for m in self.made if not m.destroyed)


class Vendors:
    """The handle of that process. Made in a process without threads."""

    def __init__(self) -> None:
        fork = multiprocessing.get_context("fork")
        self._connection, far = fork.Pipe()
        self._process = fork.Process(target=_serve, args=(far, self._connection))
        self._process.start()
        far.close()
        self.addresses: Mapping[str, Address] = self._answer()

    def begin(self, prepare: Prepare) -> None:
        """Forget everything but the strangers' machines, and get ready for a trial."""
        self._ask("begin", prepare)

    def change(self, prepare: Prepare) -> None:
        """Change how the vendors behave, and forget nothing."""
        self._ask("change", prepare)

    def books(self) -> Books:
        """What is known since `begin`."""
        books: Books = self._ask("books")
        return books

    def close(self) -> None:
        """End every machine, and the process."""
        with suppress(BrokenPipeError, EOFError):
            self._connection.send(None)
        self._process.join(20.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()

    def _ask(self, *question: Any) -> Any:
        self._connection.send(question)
        return self._answer()

    def _answer(self) -> Any:
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def afflict(address: Address, noun: str, fault: str) -> None:
    """Let a fault happen to every machine that runs at a vendor, save for strangers'."""
    headers = {"Authorization": f"Bearer {address.key}", "User-Agent": "tests"}
    with httpx.Client(base_url=address.url, headers=headers, trust_env=False) as client:
        state = client.get("/_emulator/state").raise_for_status().json()
        for row in state[f"{noun}s"]:
            mark = str(row.get("label") or row.get("name"))
            if row["destroyed_at"] is None and mark not in STRANGERS:
                done = client.post(f"/_emulator/{noun}s/{row['id']}", json={"fault": fault})
                done.raise_for_status()


def _serve(connection: Connection, near: Connection) -> None:
    # Nobody would ask any more if it were held open here as well.
    near.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A client that dies in the middle of a request is what this is about.
    logging.disable(logging.ERROR)
    with (
        VastEmulator(
            seed=1,
            ssh_server="built-in",
            offers=20,
            scheduling=0.005,
            boot=0.02,
            stopping=0.005,
            vanishing=0.02,
            charge_digits=6,
        ) as vast,
        RunPodEmulator(
            seed=1,
            ssh_server="built-in",
            scheduling=0.005,
            boot=0.02,
            restart_pause=0.02,
            vanishing=0.02,
        ) as runpod,
    ):
        server = _Server(vast, runpod)
        connection.send(
            {
                vendor.name: Address(vendor.url, vendor.key, dict(vendor.options))
                for vendor in (vast, runpod)
            }
        )
        while True:
            try:
                question = connection.recv()
            except EOFError:
                return
            if question is None:
                return
            name, *arguments = question
            try:
                answer = getattr(server, name)(*arguments)
            except Exception as error:  # noqa: BLE001 - raised where it was asked
                answer = RuntimeError(f"{name}: {error!r}")
            connection.send(answer)


class _Server:
    def __init__(self, vast: VastEmulator, runpod: RunPodEmulator) -> None:
        self._vast, self._runpod = vast, runpod
        self._vendors: tuple[EmulatedVendor[Any, Any], ...] = (vast, runpod)
        _set_market(vast, runpod)
        for name in STRANGERS:
            _rent(vast, runpod, name)
        self._strangers = {v.name: frozenset(v.billing_now()) for v in self._vendors}
        self._before: dict[str, frozenset[str]] = {}
        self._prepared: list[object] = []

    def begin(self, prepare: Prepare) -> None:
        for vendor in self._vendors:
            vendor.faults.clear()
            vendor.inside.world.machine_faults.clear()
            vendor.inside.dispatcher.records.clear()
            self._before[vendor.name] = frozenset(
                str(row["id"]) for row in vendor.machines(destroyed=True)
            )
        self.change(prepare)

    def change(self, prepare: Prepare) -> None:
        prepare(self._vast, self._runpod)

    def books(self) -> Books:
        creates: list[str] = []
        made: list[Made] = []
        missing: list[str] = []
        bugs: list[str] = []
        in_flight = 0
        for vendor in self._vendors:
            field, name = _CREATES[vendor.name], vendor.name
            charges = vendor.charges()
            for request in vendor.requests:
                in_flight += request.status is None
                if request.endpoint == "create":
                    body: Mapping[str, Any] = request.body or {}
                    creates.append(str(body.get(field, "")))
            for row in vendor.machines(destroyed=True):
                machine = str(row["id"])
                if machine not in self._before[name]:
                    made.append(
                        Made(
                            vendor=name,
                            id=machine,
                            mark=str(row.get(field)),
                            destroyed=row["destroyed_at"] is not None,
                            charge=charges.get(machine, Money(0)),
                        )
                    )
            gone = self._strangers[name] - frozenset(vendor.billing_now())
            missing += [f"{name} {machine}" for machine in sorted(gone)]
            bugs += [*vendor.inside.dispatcher.bugs, *vendor.inside.world.tasks.bugs, *vendor.leaks]
        return Books(
            creates=tuple(creates),
            in_flight=in_flight,
            made=tuple(made),
            missing=tuple(missing),
            bugs=tuple(bugs),
        )


def _set_market(vast: VastEmulator, runpod: RunPodEmulator) -> None:
    """RTX 4090s at 5 cents at one vendor, and at 10 cents in two places of the other.

    In two, since one in which a machine vanished is left alone for a while.
    """
    for row in vast.offers():
        if row["gpu_name"] == "RTX 4090":
            vast.change_offer(row["id"], price="0.05")
    answer = httpx.get(
        f"{runpod.url}/v2/catalog/gpus/{CARD}",
        params={"include": "AVAILABILITY", "product": "POD"},
        headers={"Authorization": f"Bearer {runpod.key}", "User-Agent": "tests"},
        trust_env=False,
    )
    places = [place["id"] for place in answer.raise_for_status().json()["dataCenters"]]
    runpod.set_stock(0, gpu=CARD)
    runpod.set_price(CARD, "0.10")
    for place in places[:2]:
        runpod.set_stock(64, gpu=CARD, cloud="SECURE", place=place)


def _rent(vast: VastEmulator, runpod: RunPodEmulator, name: str) -> None:
    """Somebody else's machine in the same account, at each vendor."""
    offer = max(vast.offers(), key=lambda row: float(row["dph_total"]))
    vast.change_offer(offer["id"], price="0.90")
    by_vast = {"image": "vastai/base-image:@vastai-automatic-tag", "disk": 8, "label": name}
    by_runpod = {
        "name": name,
        "image": "any",
        "gpu": {"id": "NVIDIA L4"},
        "disk": 5,
        "args": "sleep 86400",
    }
    for vendor, method, path, body in (
        (vast, "PUT", f"/api/v0/asks/{offer['id']}/", by_vast),
        (runpod, "POST", "/v2/pods", by_runpod),
    ):
        headers = {"Authorization": f"Bearer {vendor.key}", "User-Agent": "another-tool/1.0"}
        answer = httpx.request(
            method, vendor.url + path, json=body, headers=headers, trust_env=False
        )
        if answer.is_error:
            raise RuntimeError(f"{vendor.name}: {answer.text}")
