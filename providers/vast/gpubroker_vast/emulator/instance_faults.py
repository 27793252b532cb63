"""Faults of single instances: at their boot, or while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from gpubroker_vast.emulator.contracts import Contract
from gpubroker_vast.emulator.world import World

Options = Mapping[str, Any]
InstanceFault = Callable[[World, Contract, Options], None]


def _condition(name: str) -> InstanceFault:
    """A fault that the boot takes into account."""

    def set_condition(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
        contract.conditions.append((name, options))

    return set_condition


def _later(fault: InstanceFault) -> InstanceFault:
    """A fault that happens ``after`` so many seconds, if that is given."""

    def plan(world: World, contract: Contract, options: Options) -> None:
        wait = float(options.get("after", 0.0))
        if not wait:
            fault(world, contract, options)
            return

        async def work() -> None:
            await asyncio.sleep(wait)
            if contract.destroyed_at is None:
                fault(world, contract, options)

        world.lives.soon(work())

    return plan


def _hide(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
    contract.unlisted = True


def _label(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
    label = options.get("label")
    contract.label = None if label is None else str(label)


def _outbid(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
    world.lives.outbid(contract)


def _vanish(world: World, contract: Contract, options: Options) -> None:
    world.lives.lose_host(contract, frozen=bool(options.get("frozen", False)))


def _return(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
    world.lives.regain_host(contract)


def _exit(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
    world.lives.end_process(contract)


def _freeze(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
    if contract.machine is not None:
        world.lives.soon(contract.machine.freeze())


def _thaw(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
    if contract.machine is not None:
        world.lives.soon(contract.machine.thaw())


def _cut(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
    """Cut connections that there are; with ``route``, that way stays closed."""
    if contract.machine is None:
        return
    ways = {"direct": contract.machine.direct, "proxy": contract.machine.proxy}
    route = options.get("route")
    if route is None:
        for way in ways.values():
            way.cut_connections()
    else:
        ways[str(route)].cut()


def _restore(world: World, contract: Contract, options: Options) -> None:
    machine = contract.machine
    if machine is not None:
        ways = {"direct": machine.direct, "proxy": machine.proxy}
        world.lives.soon(machine.restore(ways[str(options.get("route", "direct"))]))


def _stubborn(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
    contract.stubborn = bool(options.get("on", True))


def _destroy_errors(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
    contract.destroy_errors = int(options.get("times", 1))


def _logs(world: World, contract: Contract, options: Options) -> None:  # noqa: ARG001
    contract.log_polls = int(options.get("polls", contract.log_polls))
    contract.log_status = int(options.get("status", contract.log_status))
    contract.log_empty = bool(options.get("empty", contract.log_empty))


#: By name. Those of a boot matter for the next boot; the others act at once.
INSTANCE_FAULTS: Final[Mapping[str, InstanceFault]] = {
    # of a boot
    "slow-boot": _condition("slow-boot"),
    "boot-failure": _condition("boot-failure"),
    "stuck-loading": _condition("stuck-loading"),
    "other-cards": _condition("other-cards"),
    "no-ssh": _condition("no-ssh"),
    "wrong-host-key": _condition("wrong-host-key"),
    "late-key": _condition("late-key"),
    "no-key": _condition("no-key"),
    "dead-direct-port": _condition("dead-direct-port"),
    # at any time
    "hidden": _later(_hide),
    "label": _later(_label),
    "outbid": _later(_outbid),
    "vanish": _later(_vanish),
    "return": _later(_return),
    "exit": _later(_exit),
    "freeze": _later(_freeze),
    "thaw": _later(_thaw),
    "cut": _later(_cut),
    "restore": _later(_restore),
    "stubborn": _stubborn,
    "destroy-errors": _destroy_errors,
    "logs": _logs,
}
