"""What happens to contracts with time: boot, stop, start, outbid, lost host, destroy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from gpubroker.testing.emulation import (
    Books,
    Cards,
    EmulatedMachine,
    Ground,
    LifeTasks,
    condition_of,
)
from gpubroker_vast.emulator.contracts import Contract
from gpubroker_vast.emulator.market import Market
from gpubroker_vast.emulator.offer_rows import storage_hourly
from gpubroker_vast.emulator.scenarios import Behaviour

_BANNER: Final = (
    "Welcome to vast.ai. If authentication fails, try again after a few seconds, "
    "and double check your ssh key.\nHave fun!\n"
)
#: What the daemon of a host says when a container cannot be made.
_BOOT_FAILURE: Final = (
    "Error response from daemon: failed to create task for container: failed to create shim "
    "task: OCI runtime create failed: runc create failed: unable to start container process: "
    "error running prestart hook: nvidia-container-cli: device error: unknown device"
)
_LAYERS: Final = ("a1b2c3d4e5f6", "0f9e8d7c6b5a", "77aa88bb99cc")


class Lives:
    """The lives of all contracts. Used in the emulator's event loop alone."""

    def __init__(
        self,
        ground: Ground,
        market: Market,
        books: Books,
        behaviour: Callable[[], Behaviour],
        *,
        system_sshd: bool,
    ) -> None:
        self.contracts: dict[int, Contract] = {}
        self._ground = ground
        self._market = market
        self._books = books
        self._behaviour = behaviour
        self._system_sshd = system_sshd
        self.tasks = LifeTasks()

    def begin(self, contract: Contract, *, run: bool) -> None:
        """Bill a new contract's disk, and boot it unless it was made stopped."""
        self.contracts[contract.id] = contract
        rate = storage_hourly(contract.ask.host.storage_cost, contract.disk)
        self._books.start(contract.name, "disk", rate, contract.created_at)
        if run:
            self._market.occupy(contract.ask, contract.id)
            self.tasks.drive(contract.name, self._boot(contract))
        else:
            contract.intended = contract.cur = contract.next = "stopped"

    def stop(self, contract: Contract) -> None:
        """Stop it; its disk is kept and billed."""
        contract.queued = False
        contract.intended = contract.next = "stopped"
        self.tasks.drive(contract.name, self._stop(contract))

    def start(self, contract: Contract) -> bool:
        """Start it again, or queue that; whether its cards are free."""
        contract.intended = "running"
        if contract.actual == "running" and contract.cur == "running":
            return True
        if not self._market.free(contract.ask, time.time()):
            contract.queued = True
            return False
        contract.queued = False
        contract.cur = contract.next = "running"
        self._market.occupy(contract.ask, contract.id)
        self.tasks.drive(contract.name, self._boot(contract))
        return True

    def reboot(self, contract: Contract, word: str) -> None:
        """End its processes and start its container again."""
        contract.actual = word
        self._books.stop(contract.name, "gpu", time.time())
        self.tasks.drive(contract.name, self._reboot(contract))

    def outbid(self, contract: Contract) -> None:
        """Somebody bid more: it is stopped, and what the host reports lags behind."""
        contract.intended = contract.cur = contract.next = "stopped"
        self._market.vacate(contract.id)
        self._books.stop(contract.name, "gpu", time.time())
        self.tasks.drive(contract.name, self._outbid(contract))

    def lose_host(self, contract: Contract, *, frozen: bool) -> None:
        """Its host goes offline: nothing is reported, reached or billed any more."""
        contract.offline = True
        self._books.stop_all(contract.name, time.time())
        self.tasks.drive(contract.name, self._lose_host(contract, frozen=frozen))

    def regain_host(self, contract: Contract) -> None:
        """Its host comes back, with the container stopped, as after a power cut."""
        now = time.time()
        contract.offline = False
        rate = storage_hourly(contract.ask.host.storage_cost, contract.disk)
        self._books.start(contract.name, "disk", rate, now)
        self.tasks.drive(contract.name, self._regain_host(contract))

    def end_process(self, contract: Contract) -> None:
        """The container's main process ends by itself."""
        contract.actual = "exited"
        contract.message = "container exited"
        self._books.stop(contract.name, "gpu", time.time())
        self.tasks.drive(contract.name, self._halt(contract))

    def destroy(self, contract: Contract) -> None:
        """End it: billing stops now, its processes at once, its row in a while."""
        now = time.time()
        contract.destroyed_at = now
        contract.intended = "stopped"
        contract.next = "unloaded"
        contract.queued = False
        contract.gone_at = now + self._behaviour().vanishing
        self._books.stop_all(contract.name, now)
        self.tasks.drive(contract.name, self._destroy(contract))

    def authorize(self, contract: Contract) -> None:
        """Bring the keys that are let in up to date, after the usual delay."""
        wait = self._behaviour().key_sync

        async def work() -> None:
            await asyncio.sleep(wait)
            if contract.machine is not None and contract.actual == "running":
                contract.machine.authorize(contract.keys)

        if wait:
            self.tasks.soon(work())
        elif contract.machine is not None:
            contract.machine.authorize(contract.keys)

    def reprice(self, contract: Contract, price: object, now: float) -> None:
        """Change a bid; without a price, to the lowest one that wins."""
        floor = self._market.floor(contract.ask, now)
        contract.base = floor if price is None else Decimal(str(price))
        if contract.actual == "running" and contract.cur == "running":
            self._books.stop(contract.name, "gpu", now)
            self._books.start(contract.name, "gpu", contract.base, now)

    async def close(self) -> None:
        """End every life and every machine."""
        await self.tasks.close()
        machines = [c.machine for c in self.contracts.values() if c.machine is not None]
        await asyncio.gather(*(machine.destroy() for machine in machines))
        for contract in self.contracts.values():
            contract.machine = None

    def retry_queued(self) -> None:
        """Start what waits for cards, where these are free by now."""
        for contract in self.contracts.values():
            if contract.queued and contract.destroyed_at is None:
                self.start(contract)

    async def _boot(self, contract: Contract) -> None:
        behaviour = self._behaviour()
        slow = condition_of(contract, "slow-boot")
        boot = behaviour.boot if slow is None else float(slow.get("seconds", 30.0))
        await asyncio.sleep(behaviour.scheduling)
        contract.actual = "loading"
        pauses = len(_LAYERS) + 1
        for layer in _LAYERS:
            contract.message = f"{layer}: Pulling fs layer of {contract.image}"
            await asyncio.sleep(boot / pauses)
        if condition_of(contract, "boot-failure") is not None:
            contract.actual = "created"
            contract.message = _BOOT_FAILURE
            contract.intended = contract.cur = "stopped"
            return
        if condition_of(contract, "stuck-loading") is not None:
            return
        await asyncio.sleep(boot / pauses)
        await self._come_up(contract)

    async def _come_up(self, contract: Contract) -> None:
        behaviour = self._behaviour()
        machine = self._machine(contract)
        machine.authorize([] if behaviour.key_sync else contract.keys)
        contract.machine = machine
        contract.actual = "running"
        contract.cur = contract.next = "running"
        contract.message = f"success, running {contract.image.replace(':', '_')}/ssh"
        contract.running_since = time.time()
        self._books.start(contract.name, "gpu", contract.base, contract.running_since)
        environment = contract.container_environment("127.0.0.1")
        if "ssh" in contract.runtype or "jupyter" in contract.runtype:
            machine.run_first(contract.onstart, environment)
        await self._open_ssh(contract, machine)

    async def _open_ssh(self, contract: Contract, machine: EmulatedMachine) -> None:
        behaviour = self._behaviour()
        if not contract.proxied or condition_of(contract, "no-ssh") is not None:
            return
        await asyncio.sleep(behaviour.sshd)
        late = condition_of(contract, "late-key")
        await machine.open_ssh(
            other_key=condition_of(contract, "wrong-host-key") is not None,
            admit=condition_of(contract, "no-key") is None,
        )
        if not contract.direct or condition_of(contract, "dead-direct-port") is not None:
            machine.direct.cut()
        wait = behaviour.key_sync if late is None else float(late.get("seconds", 1.0))
        if late is not None:
            machine.authorize([])
        if wait:
            await asyncio.sleep(wait)
            machine.authorize(contract.keys)

    def _machine(self, contract: Contract) -> EmulatedMachine:
        if contract.machine is not None:
            return contract.machine
        card = contract.ask.host.card
        other = condition_of(contract, "other-cards")
        cards = Cards(
            name=card.driver_name
            if other is None
            else str(other.get("name", "NVIDIA GeForce GT 1030")),
            memory=int((other or {}).get("memory", card.memory)),
            count=int((other or {}).get("count", contract.ask.count)),
            driver=contract.ask.host.driver[0],
        )
        machine = EmulatedMachine(
            self._ground, contract.name, cards=cards, system_sshd=self._system_sshd, banner=_BANNER
        )
        machine.build()
        return machine

    async def _stop(self, contract: Contract) -> None:
        await asyncio.sleep(self._behaviour().stopping)
        self._books.stop(contract.name, "gpu", time.time())
        self._market.vacate(contract.id)
        contract.cur = "stopped"
        if contract.actual is not None:
            contract.actual = "exited"
        contract.message = None
        await self._halt(contract)

    async def _reboot(self, contract: Contract) -> None:
        await self._halt(contract)
        await asyncio.sleep(self._behaviour().stopping)
        await self._come_up(contract)

    async def _outbid(self, contract: Contract) -> None:
        await self._halt(contract)
        await asyncio.sleep(self._behaviour().stopping * 4)
        if contract.actual is not None:
            contract.actual = "exited"

    async def _lose_host(self, contract: Contract, *, frozen: bool) -> None:
        if contract.machine is not None and frozen:
            await contract.machine.freeze()
        else:
            await self._halt(contract)
        contract.actual = "unknown"
        await asyncio.sleep(self._behaviour().stopping * 4)
        contract.actual = "offline"

    async def _regain_host(self, contract: Contract) -> None:
        await self._halt(contract)
        await self._boot(contract)

    async def _halt(self, contract: Contract) -> None:
        if contract.machine is not None:
            await contract.machine.halt()

    async def _destroy(self, contract: Contract) -> None:
        self._market.vacate(contract.id)
        machine = contract.machine
        if machine is not None:
            await machine.destroy()
            contract.machine = None
