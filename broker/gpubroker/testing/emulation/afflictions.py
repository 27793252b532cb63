"""Faults of single machines, by name: those that any vendor's machines can have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from gpubroker.errors import InvalidValue
from gpubroker.testing.emulation.machine import EmulatedMachine
from gpubroker.testing.emulation.relay import Relay
from gpubroker.testing.emulation.tasks import LifeTasks

Options = Mapping[str, Any]


class Rented(Protocol):
    """What an account rents, as far as these faults know it.

    Attributes:
        machine: there from its first boot until it is destroyed.
        destroyed_at: when a destroy was accepted, Unix seconds.
        conditions: faults that its next boot takes into account, with their options.
        stubborn: a destroy is accepted, and does nothing.
        destroy_errors: destroys that fail before one succeeds.
    """

    machine: EmulatedMachine | None
    destroyed_at: float | None
    conditions: list[tuple[str, Options]]
    stubborn: bool
    destroy_errors: int


class Surroundings(Protocol):
    """Where it is rented."""

    @property
    def tasks(self) -> LifeTasks:
        """Where faults that take time run."""
        ...


W = TypeVar("W", bound=Surroundings)
R = TypeVar("R", bound=Rented)

Affliction = Callable[[W, R, Options], None]
"""Called with the surroundings, what is rented, and the options of the fault."""


def condition(name: str) -> Affliction[Any, Any]:
    """A fault that the boot takes into account."""

    def set_condition(world: Surroundings, rented: Rented, options: Options) -> None:  # noqa: ARG001
        rented.conditions.append((name, options))

    return set_condition


def condition_of(rented: Rented, name: str) -> dict[str, Any] | None:
    """The options of a `condition` that a machine has, the last ones; ``None`` if it has none."""
    found = [options for known, options in rented.conditions if known == name]
    return dict(found[-1]) if found else None


def later(fault: Affliction[W, R]) -> Affliction[W, R]:
    """A fault that happens ``after`` so many seconds, if that is given."""

    def plan(world: W, rented: R, options: Options) -> None:
        wait = float(options.get("after", 0.0))
        if not wait:
            fault(world, rented, options)
            return

        async def work() -> None:
            await asyncio.sleep(wait)
            if rented.destroyed_at is None:
                fault(world, rented, options)

        world.tasks.soon(work())

    return plan


def afflict(
    faults: Mapping[str, Affliction[W, R]], world: W, rented: R, fault: str, options: Options
) -> None:
    """Let a fault happen by its name.

    Raises:
        InvalidValue: there is no such fault.
    """
    if fault not in faults:
        raise InvalidValue.unknown("fault", fault, tuple(faults), noun="fault")
    faults[fault](world, rented, options)


def _way(machine: EmulatedMachine, options: Options, default: str | None = None) -> Relay | None:
    route = options.get("route", default)
    return None if route is None else {"direct": machine.direct, "proxy": machine.proxy}[str(route)]


def _freeze(world: Surroundings, rented: Rented, options: Options) -> None:  # noqa: ARG001
    if rented.machine is not None:
        world.tasks.soon(rented.machine.freeze())


def _thaw(world: Surroundings, rented: Rented, options: Options) -> None:  # noqa: ARG001
    if rented.machine is not None:
        world.tasks.soon(rented.machine.thaw())


def _cut(world: Surroundings, rented: Rented, options: Options) -> None:  # noqa: ARG001
    """Cut connections that there are; with ``route``, that way stays closed."""
    if rented.machine is None:
        return
    way = _way(rented.machine, options)
    if way is not None:
        way.cut()
    else:
        rented.machine.direct.cut_connections()
        rented.machine.proxy.cut_connections()


def _restore(world: Surroundings, rented: Rented, options: Options) -> None:
    if rented.machine is not None:
        way = _way(rented.machine, options, "direct")
        assert way is not None
        world.tasks.soon(rented.machine.restore(way))


def _stubborn(world: Surroundings, rented: Rented, options: Options) -> None:  # noqa: ARG001
    rented.stubborn = bool(options.get("on", True))


def _destroy_errors(world: Surroundings, rented: Rented, options: Options) -> None:  # noqa: ARG001
    rented.destroy_errors = int(options.get("times", 1))


#: They act at once, or ``after`` some seconds.
AFFLICTIONS: Final[Mapping[str, Affliction[Any, Any]]] = {
    "freeze": later(_freeze),
    "thaw": later(_thaw),
    "cut": later(_cut),
    "restore": later(_restore),
    "stubborn": _stubborn,
    "destroy-errors": _destroy_errors,
}
