"""A plugin for Acme that keeps every promise: what wrong plugins are made of."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

from gpubroker import (
    AccountSettings,
    Charge,
    CreateUnknown,
    Emit,
    ErrorKind,
    Job,
    JobIO,
    JobState,
    Machine,
    MachineState,
    Money,
    Offer,
    Order,
    Outcome,
    Price,
    ProviderError,
    ProviderFacts,
    Requirements,
    Route,
    Scope,
    hookimpl,
)
from gpubroker.testing.conformance import Subject, Troubles, VendorBooks

from .acme_vendor import BALANCE, BILL, KEY, CutOff, Vendor


class Acme:
    """The plugin. Wrong ones override a part of it."""

    def __init__(self, vendor: Vendor, *, ssh: bool) -> None:
        self.facts = ProviderFacts(paid=True, ssh=ssh, charges_after=0.0)
        self.vendor = vendor
        self.key = KEY

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Nothing is held."""

    async def answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What the vendor says; its words in an error are without the key."""
        try:
            status, text = await self.vendor.ask(method, path, body)
        except CutOff:
            raise self.failure("the connection was cut") from None
        if status != 200:
            raise self.failure(f"{status}: {text}", status)
        return json.loads(text)

    def failure(self, text: str, status: int = 500) -> ProviderError:
        kind = ErrorKind.TRANSIENT if status >= 500 else ErrorKind.BAD_REQUEST
        return ProviderError(text.replace(KEY, "…"), kind=kind, scope=Scope.PROVIDER)

    @hookimpl
    async def quote(self, requirements: Requirements) -> list[Offer]:
        """Cards with 24 GB, by ones and twos."""
        found = await self.answer("GET", "/offers")
        count = int((requirements.count and requirements.count.low) or 1)
        vram = requirements.vram
        if vram is not None and vram.low is not None and vram.low > 24:
            return []
        disk = Money(found["disk"]) * requirements.disk_gb
        price = Price(machine=self.machine_price(found["price"], count), disk=disk)
        return [
            Offer(
                id=self.offer_id(count), price=price, gpu="RTX 4090", count=count, vram=24, disk=500
            )
        ]

    def machine_price(self, price: str, count: int) -> Money:
        return Money(price) * count

    def offer_id(self, count: int) -> str:
        return f"{count}x"

    @hookimpl
    async def provision(self, offer: Offer, order: Order) -> Machine:
        """One create, with the mark in it."""
        number = await self.create(self.body_of(offer, order))
        planned = self.facts.ssh and bool(order.jobs)
        return Machine(id=number, state=MachineState.BOOTING, mark=order.mark, ssh=not planned)

    def body_of(self, offer: Offer, order: Order) -> dict[str, Any]:
        jobs = [
            {"purpose": job.purpose, "argv": job.argv, "env": dict(job.env)} for job in order.jobs
        ]
        return {
            "name": order.mark,
            "nonce": order.nonce,
            "jobs": jobs,
            "count": offer.count,
            "disk": order.disk,
            "key": order.public_key,
            "ends": order.deadline,
        }

    async def create(self, body: Mapping[str, Any]) -> str:
        """Send it once, and find the id in whatever is answered."""
        try:
            status, text = await self.vendor.ask("POST", "/machines", body)
        except CutOff:
            raise CreateUnknown("the connection was cut") from None
        if status >= 500:
            raise CreateUnknown(f"{status}: {text}")
        if status != 200:
            left = json.loads(text).get("left") if text.startswith("{") else None
            raise self.refusal(text, left)
        return str(json.loads(text)["id"])

    def refusal(self, text: str, left: str | None) -> ProviderError:
        text = str(self.failure(text))
        return ProviderError(text, kind=ErrorKind.CAPACITY, machine_id=left)

    @hookimpl
    async def inventory(self) -> list[Machine]:
        """All of them."""
        found = await self.answer("GET", "/machines")
        self.count(found["machines"], found["count"])
        return [self.machine_from(row) for row in found["machines"]]

    def count(self, found: Sequence[object], said: int) -> None:
        if len(found) != said:
            raise self.failure(f"{len(found)} machines, and it says that there are {said}")

    def machine_from(self, row: Mapping[str, Any]) -> Machine:
        by_itself = self.facts.ssh and bool(row["jobs"])
        return Machine(
            id=row["id"],
            mark=row["name"],
            hourly=Money(row["price"]),
            state=self.state_from(row["state"]),
            routes=(Route("127.0.0.1", 22),) if self.facts.ssh and not by_itself else (),
            ssh=not by_itself,
        )

    def state_from(self, word: str) -> MachineState:
        known = {"up": MachineState.RUNNING, "draining": MachineState.STOPPED}
        return known.get(word, MachineState.BOOTING)

    @hookimpl
    async def run(self, machine: Machine, job: Job, io: JobIO) -> Outcome:
        """Here and now, in a process of this computer: nothing in virtual time may wait for one."""
        row = self.vendor.rows[machine.id]
        if row["jobs"]:
            planned = next(one for one in row["jobs"] if one["purpose"] == io.purpose)
            return await self.run_here(planned["argv"], planned["env"], 60, io)
        return await self.run_here(job.argv, dict(io.env), job.timeout, io)

    async def run_here(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout: float | None,
        io: JobIO,
        /,
    ) -> Outcome:
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", **env}
        try:
            done = subprocess.run(
                argv, env=environment, timeout=timeout, capture_output=True, check=False
            )
        except subprocess.TimeoutExpired as late:
            await io.output("stdout", late.stdout or b"")
            return self.late()
        await io.output("stdout", self.stdout(done.stdout))
        await io.output("stderr", done.stderr)
        code = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return Outcome(state=JobState.EXITED, exit_code=code)

    def late(self) -> Outcome:
        return Outcome(state=JobState.TIMED_OUT)

    def stdout(self, data: bytes) -> bytes:
        return data

    @hookimpl
    async def release(self, machine: Machine) -> None:
        """Destroy it; what is gone is gone."""
        if not (machine.id.isascii() and machine.id.isdecimal() and len(machine.id) < 20):
            raise self.failure("that is no id", 400)
        await self.destroy(machine.id)

    async def destroy(self, number: str) -> None:
        status, text = await self.vendor.ask("DELETE", f"/machines/{number}")
        if status not in (200, 404):
            raise self.failure(text, status)

    @hookimpl
    async def logs(self, machine: Machine) -> str:
        """What it printed."""
        await self.answer("GET", f"/machines/{machine.id}/log")
        return f"booting\n{self.vendor.rows[machine.id]['log']}\n"

    @hookimpl
    async def charges(self, since: float, until: float) -> list[Charge]:
        """One for each machine, of all the lines of its bill."""
        found = await self.answer("GET", "/charges")
        sums = dict[str, Money]()
        for number, usd in found["lines"]:
            sums[number] = self.sum_of(sums.get(number, Money(0)), Money(usd))
        return [Charge(machine_id=number, amount=usd) for number, usd in sums.items()]

    def sum_of(self, before: Money, line: Money) -> Money:
        return before + line

    @hookimpl
    async def balance(self) -> Money:
        """What is left."""
        return Money((await self.answer("GET", "/balance"))["usd"])


def subject_of(plugin: type[Acme], *, ssh: bool = True, vendor: Vendor | None = None) -> Subject:
    """A plugin on a vendor of its own, with everything declared that Acme can do."""
    vendor = vendor or Vendor()

    def create(settings: AccountSettings, emit: Emit) -> Acme:
        return plugin(vendor, ssh=ssh)

    def goes_wrong(trouble: str) -> Callable[[], None]:
        return partial(setattr, vendor, "trouble", trouble)

    return Subject(
        name="acme",
        factory=create,
        settings=AccountSettings("acme", {}, KEY),
        wanted={"gpu": "RTX 4090", "disk": 20.5},
        books=VendorBooks(
            running=vendor.running,
            creates=lambda: vendor.creates,
            targets=lambda: tuple(vendor.targets),
            orders=lambda: tuple(vendor.orders),
            hourly=lambda number: Money(vendor.rows[number]["price"]),
            billed=lambda _: Money(sum(BILL)),
            balance=lambda: Money(BALANCE),
        ),
        troubles=Troubles(
            calm=goes_wrong(""),
            lost_creates={"a cut": goes_wrong("cut create"), "a 502": goes_wrong("502")},
            billing_refusal=goes_wrong("refusal"),
            broken_listings={
                "a cut": goes_wrong("cut list"),
                "a 500": goes_wrong("page of errors"),
                "fewer rows than were counted": goes_wrong("short list"),
            },
            slow_boot=goes_wrong("slow boot"),
            others=vendor.others,
            echoes={"a 400": goes_wrong("echo")},
            newer=goes_wrong("new"),
        ),
        unknown_id="99999",
        ssh=ssh,
        logs=True,
        charges=True,
        balance=True,
        doubles=True,
        bills_disk=True,
        runs_jobs=ssh,
        announces=True,
        ends_itself=True,
    )
