"""A vendor's emulator: what its handle can do, whatever the vendor."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from gpubroker.errors import InvalidValue
from gpubroker.model.money import Money
from gpubroker.testing.emulation.control import EmulatedWorld
from gpubroker.testing.emulation.dispatch import Dispatcher, RequestRecord
from gpubroker.testing.emulation.exchange import Answer, Call
from gpubroker.testing.emulation.faults import FaultRule, FaultSchedule
from gpubroker.testing.emulation.ground import Ground
from gpubroker.testing.emulation.serving import ApiServer
from gpubroker.testing.emulation.ssh import sshd_path

B = TypeVar("B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup(Generic[B]):
    """What the inside of an emulator is made from; see `EmulatedVendor`."""

    seed: int
    behaviour: B
    url: str
    key: str = field(repr=False)
    ground: Ground
    system_sshd: bool


class Assembly(Protocol):
    """The inside of an emulator. Made in its event loop.

    Attributes:
        faults: of the API.
        dispatcher: answers calls.
    """

    faults: FaultSchedule
    dispatcher: Dispatcher

    @property
    def world(self) -> EmulatedWorld:
        """Everything that it knows."""
        ...

    async def answer(self, call: Call) -> Answer:
        """Answer one call."""
        ...


A = TypeVar("A", bound=Assembly)


class EmulatedVendor(ABC, Generic[A, B]):
    """A vendor's API on loopback, with real machines behind it.

    Every method may be called from any thread while it runs. A vendor's own class says what the
    switches are, and what is inside.

    Args:
        seed: the market, and everything that happens by chance.
        scenario: one of `scenarios`.
        port: of the API; 0 takes a free one.
        key: the account key; a random one by default.
        ssh_server: ``"system"`` (Debian's sshd; needs root), ``"built-in"``, or ``"auto"``: the
            system's where it is installed.
        switches: parts of the behaviour, over those of the scenario.

    Raises:
        InvalidValue: there is no such scenario, SSH server or switch.
    """

    name: ClassVar[str]
    scenarios: ClassVar[Mapping[str, str]]
    #: What a machine is called here.
    noun: ClassVar[str]
    #: The fault of a machine that is gone without notice.
    loss: ClassVar[str]
    #: How it behaves in each scenario: a frozen dataclass of switches.
    behaviours: ClassVar[Mapping[str, Any]]

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
        if scenario not in self.behaviours:
            known = tuple(self.behaviours)
            raise InvalidValue.unknown("scenario", scenario, known, noun="scenario")
        self._behaviour: B = switched(self.behaviours[scenario], switches)
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
        self._assembly: A | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.url}>"

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
            bugs = (*self._assembly.dispatcher.bugs, *self._assembly.world.tasks.bugs)
            if bugs:
                raise AssertionError("the emulator failed: " + "\n".join(bugs))

    # What a vendor has of its own

    @abstractmethod
    def assemble(self, setup: Setup[B]) -> A:
        """Make the inside. Called in the emulator's event loop."""

    @abstractmethod
    def switched(self) -> None:
        """Called in the emulator's event loop after the behaviour was changed."""

    @property
    @abstractmethod
    def options(self) -> Mapping[str, str]:
        """Settings of the provider that suit an emulator, which need not be spared."""

    @property
    @abstractmethod
    def hints(self) -> tuple[str, ...]:
        """How to point the vendor's own programs here, as lines for people."""

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
                self._server.run(self._assembly.world.close())
        finally:
            self._server.stop()
            if self._ground is not None:
                self._ground.close()

    @property
    def url(self) -> str:
        """Where the API is."""
        return self._server.url

    @property
    def behaviour(self) -> B:
        """How it behaves at this moment."""
        if self._assembly is None:
            return self._behaviour
        behaviour: B = self._assembly.world.behaviour
        return behaviour

    def switch(self, **switches: Any) -> None:
        """Change parts of the behaviour while it runs.

        Raises:
            InvalidValue: there is no such switch.
        """

        def change() -> None:
            self.inside.world.behaviour = switched(self.behaviour, switches)
            self.switched()

        self._server.call(change)

    # What happened

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """Every request so far."""
        return tuple(self.inside.dispatcher.records)

    @property
    def leaks(self) -> tuple[str, ...]:
        """Secrets that came where they must not."""
        return tuple(self.inside.world.leaks)

    def machines(self, *, destroyed: bool = False) -> list[dict[str, Any]]:
        """Every machine that was not destroyed, shown or not, as a row of the vendor's list.

        Args:
            destroyed: those that were as well.
        """

        def read() -> list[dict[str, Any]]:
            rows = self.inside.world.machines(time.time())
            return [row for row in rows if destroyed or row["destroyed_at"] is None]

        return self._server.call(read)

    def folder(self, machine: int | str) -> Path:
        """Where the files of a machine are: ``home`` and others."""
        assert self._ground is not None
        return self._ground.folder / str(machine)

    # Books

    def charges(self) -> dict[str, Money]:
        """What each machine has really cost so far."""
        return self._server.call(lambda: self.inside.world.books.charges(time.time()))

    def billed(self, machine: int | str) -> Money:
        """What the vendor's own account of one machine comes to, once it has settled."""
        return self._server.call(lambda: self.inside.world.billed(str(machine)))

    def hourly(self, machine: int | str) -> Money:
        """USD per hour that one machine really costs at this moment."""
        return self._server.call(lambda: Money(self.inside.world.books.hourly(str(machine))))

    def credit(self) -> Money:
        """USD left in the account."""
        return self._server.call(self.inside.world.credit)

    def billing_now(self) -> tuple[str, ...]:
        """Machines that cost money at this moment, whatever anybody was told."""
        return self._server.call(self.inside.world.books.billing_now)

    def total(self) -> Money:
        """What all of them have really cost so far."""
        return self._server.call(lambda: self.inside.world.books.total(time.time()))

    # Faults

    @property
    def faults(self) -> FaultSchedule:
        """Faults of the API, by endpoint: ``cloud.faults.add("create", "drop", when="after")``."""
        return self.inside.faults

    def next_machine(
        self, fault: str, *, nth: int = 1, times: int | None = 1, **options: Any
    ) -> FaultRule:
        """Give a fault to the next machine that is made, or to the `nth` from now."""
        schedule = self.inside.world.machine_faults
        return schedule.add(self.noun, fault, nth=nth, times=times, **options)

    def afflict(self, machine: int | str, fault: str, **options: Any) -> None:
        """Let a fault happen to a machine now.

        Raises:
            InvalidValue: there is no such machine or fault.
        """
        self._server.call(lambda: self.inside.world.afflict(str(machine), fault, options))

    @abstractmethod
    def sell_out(self) -> None:
        """From now on others have all that it offers, and what it has just offered too."""

    def lose_all(self, *, after: float = 0.0) -> None:
        """Every machine that it runs now is gone without notice, `after` seconds from now."""
        for row in self.machines():
            self.afflict(row["id"], self.loss, after=after)

    def revoke_key(self, status: int) -> None:
        """Refuse the account key with a status, in the vendor's words."""
        self.inside.world.revoked = status

    def restore_key(self) -> None:
        """Accept the account key again."""
        self.inside.world.revoked = None

    # Inside

    @property
    def inside(self) -> A:
        """How it is made. What it knows is to be touched in its event loop alone.

        Raises:
            RuntimeError: it has not been started.
        """
        if self._assembly is None:
            raise RuntimeError("the emulator has not been started")
        return self._assembly

    def _assemble(self) -> None:
        assert self._ground is not None
        self._assembly = self.assemble(
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
        return await self._assembly.answer(call)


def switched(before: Any, switches: Mapping[str, Any]) -> Any:
    """A behaviour with some switches changed.

    Raises:
        InvalidValue: there is no such switch.
    """
    for name in switches:
        if not hasattr(before, name):
            known = tuple(before.__dataclass_fields__)
            raise InvalidValue.unknown("switch", name, known, noun="switch")
    return replace(before, **switches)
