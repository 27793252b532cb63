"""The emulator itself: everything put together, and the handle that tests hold."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from gpubroker import InvalidValue, Money
from gpubroker.testing.emulation import (
    Answer,
    ApiServer,
    Call,
    FaultRule,
    FaultSchedule,
    Ground,
    RequestRecord,
    sshd_path,
)
from gpubroker_vast.emulator.assembly import Assembly, Setup
from gpubroker_vast.emulator.contracts import contract_row
from gpubroker_vast.emulator.control_api import change_offer
from gpubroker_vast.emulator.instance_faults import INSTANCE_FAULTS
from gpubroker_vast.emulator.offer_rows import offer_row
from gpubroker_vast.emulator.scenarios import SCENARIOS, Behaviour
from gpubroker_vast.emulator.world import World


class VastEmulator:
    """Vast.ai's API on loopback, with real machines behind it.

    ::

        with VastEmulator(seed=1) as cloud:
            ...  # talk to cloud.url with cloud.key

    Every method may be called from any thread while it runs.

    Args:
        seed: the market, and everything that happens by chance.
        scenario: one of `scenarios`.
        port: of the API; 0 takes a free one.
        key: the account key; a random one by default.
        ssh_server: ``"system"`` (Debian's sshd; needs root), ``"built-in"``, or ``"auto"``: the
            system's where it is installed.
        switches: parts of `Behaviour`, over those of the scenario.

    Raises:
        InvalidValue: there is no such scenario, SSH server or switch.
    """

    name: ClassVar[str] = "vast"
    scenarios: ClassVar[Mapping[str, str]] = {name: text for name, (text, _) in SCENARIOS.items()}

    def __init__(
        self,
        seed: int = 0,
        *,
        scenario: str = "calm",
        port: int = 0,
        key: str | None = None,
        ssh_server: str = "auto",
        **switches: Any,
    ) -> None:
        if scenario not in SCENARIOS:
            raise InvalidValue.unknown("scenario", scenario, tuple(SCENARIOS), noun="scenario")
        self._behaviour = _behaviour(SCENARIOS[scenario][1], switches)
        if ssh_server not in ("auto", "system", "built-in"):
            raise InvalidValue("ssh_server", ssh_server, "must be auto, system or built-in")
        if ssh_server == "system" and sshd_path() is None:
            raise InvalidValue("ssh_server", ssh_server, "sshd is missing, or this is not root")
        self._system_sshd = ssh_server != "built-in" and sshd_path() is not None
        self._seed = seed
        self._port = port
        self.key = key or secrets.token_hex(32)
        self._server = ApiServer(self._answer)
        self._ground: Ground | None = None
        self._assembly: Assembly | None = None

    def __repr__(self) -> str:
        return f"<VastEmulator at {self.url}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._assembly is not None and error is None:
            bugs = (*self._assembly.dispatcher.bugs, *self._assembly.world.lives.bugs)
            if bugs:
                raise AssertionError("the emulator failed: " + "\n".join(bugs))

    # Life

    def start(self) -> None:
        """Serve.

        Raises:
            OSError: the port is taken.
        """
        self._server.start(self._port)
        try:
            self._ground = Ground()
            self._server.call(self._assemble)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every machine, and leave nothing behind. Again: nothing."""
        try:
            if self._assembly is not None and self._server.running:
                self._server.run(self._assembly.world.lives.close())
        finally:
            self._server.stop()
            if self._ground is not None:
                self._ground.close()

    @property
    def url(self) -> str:
        """Where the API is."""
        return self._server.url

    @property
    def options(self) -> Mapping[str, str]:
        """Settings of the provider that suit an emulator, which need not be spared."""
        behaviour = self.behaviour
        if behaviour.limits:
            return {}
        return {
            "pacing": "off",
            "poll_interval": "0.2",
            "absence_interval": "0.2",
            "visibility_horizon": str(behaviour.visibility * 2),
            "charges_after": str(behaviour.settling),
        }

    @property
    def hints(self) -> tuple[str, ...]:
        """How to point the vendor's own client here, as lines for people."""
        return (f"VAST_URL={self.url} VAST_API_KEY={self.key} vastai search offers",)

    @property
    def behaviour(self) -> Behaviour:
        """How it behaves at this moment."""
        return self._behaviour if self._assembly is None else self._assembly.world.behaviour

    # What happened

    @property
    def world(self) -> World:
        """Everything that the emulator knows. To be touched in its event loop alone."""
        return self._open.world

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """Every request so far."""
        return tuple(self._open.dispatcher.records)

    @property
    def leaks(self) -> tuple[str, ...]:
        """Secrets that came where they must not."""
        return tuple(self.world.leaks)

    def instances(self) -> list[dict[str, Any]]:
        """Every instance that was not destroyed, shown or not, as a row of the list."""

        def read() -> list[dict[str, Any]]:
            contracts = self.world.lives.contracts.values()
            return [contract_row(c, time.time()) for c in contracts if c.destroyed_at is None]

        return self._server.call(read)

    def offers(self) -> list[dict[str, Any]]:
        """Every offer on demand, rented or not, as a row of a search."""

        def read() -> list[dict[str, Any]]:
            market = self.world.market
            return [
                offer_row(market, ask, time.time(), bid=False, disk=Decimal(8))
                for ask in market.asks.values()
            ]

        return self._server.call(read)

    def folder(self, instance: int | str) -> Path:
        """Where the files of an instance are: ``home``, ``log``."""
        assert self._ground is not None
        return self._ground.folder / str(instance)

    # Books

    def charges(self) -> dict[str, Money]:
        """What each instance has really cost so far."""
        return self._server.call(lambda: self.world.books.charges(time.time()))

    def billed(self, instance: int | str) -> Money:
        """What the vendor's charges of one instance come to, once they have settled."""
        return self._server.call(lambda: self.world.billed(str(instance)))

    def billing_now(self) -> tuple[str, ...]:
        """Instances that cost money at this moment, whatever anybody was told."""
        return self._server.call(self.world.books.billing_now)

    def total(self) -> Money:
        """What all of them have really cost so far."""
        return self._server.call(lambda: self.world.books.total(time.time()))

    # Faults

    @property
    def faults(self) -> FaultSchedule:
        """Faults of the API, by endpoint: ``cloud.faults.add("create", "drop", when="after")``."""
        return self._open.faults

    def next_instance(
        self, fault: str, *, nth: int = 1, times: int | None = 1, **options: Any
    ) -> FaultRule:
        """Give a fault to the next instance that is made, or to the `nth` from now."""
        return self.world.instance_faults.add("instance", fault, nth=nth, times=times, **options)

    def afflict(self, instance: int | str, fault: str, **options: Any) -> None:
        """Let a fault happen to an instance now.

        Raises:
            InvalidValue: there is no such instance or fault.
        """

        def act() -> None:
            contract = self.world.lives.contracts.get(int(instance))
            if contract is None:
                raise InvalidValue("instance", instance, "there is no such instance")
            if fault not in INSTANCE_FAULTS:
                raise InvalidValue.unknown("fault", fault, tuple(INSTANCE_FAULTS), noun="fault")
            INSTANCE_FAULTS[fault](self.world, contract, options)

        self._server.call(act)

    def revoke_key(self, status: int = 404) -> None:
        """Refuse the account key: with 401, 403 or 404, each in the vendor's words."""
        self.world.revoked = status

    def restore_key(self) -> None:
        """Accept the account key again."""
        self.world.revoked = None

    def switch(self, **switches: Any) -> None:
        """Change parts of the `Behaviour` while it runs."""

        def change() -> None:
            behaviour = self.world.behaviour = _behaviour(self.behaviour, switches)
            self.world.limits.factor = behaviour.limits
            self.world.quota.limit = behaviour.daily_rows
            self.world.market.drift = behaviour.drift
            self.world.market.busy = behaviour.busy

        self._server.call(change)

    def change_offer(
        self, offer: int | str, *, price: str | None = None, taken: bool | None = None
    ) -> None:
        """Set the hourly price of an offer's cards, or whether somebody else has it."""
        self._server.call(lambda: change_offer(self.world, int(offer), price, taken))

    # Inside

    def _assemble(self) -> None:
        assert self._ground is not None
        self._assembly = Assembly(
            Setup(
                seed=self._seed,
                behaviour=self._behaviour,
                url=self.url,
                key=self.key,
                ground=self._ground,
                system_sshd=self._system_sshd,
            )
        )

    async def _answer(self, call: Call) -> Answer:
        if self._assembly is None:
            return Answer(503)
        return await self._assembly.dispatcher.answer(call)

    @property
    def _open(self) -> Assembly:
        if self._assembly is None:
            raise RuntimeError("the emulator has not been started")
        return self._assembly


def _behaviour(before: Behaviour, switches: Mapping[str, Any]) -> Behaviour:
    for name in switches:
        if not hasattr(before, name):
            known = tuple(Behaviour.__dataclass_fields__)
            raise InvalidValue.unknown("switch", name, known, noun="switch")
    return replace(before, **switches)
