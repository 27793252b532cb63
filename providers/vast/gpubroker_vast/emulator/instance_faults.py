"""Faults of single instances: at their boot, or while they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from gpubroker.testing.emulation import (
    AFFLICTIONS,
    Affliction,
    LifeTasks,
    Options,
    condition,
    later,
)
from gpubroker_vast.emulator.contracts import Contract
from gpubroker_vast.emulator.lives import Lives


class Surroundings(Protocol):
    """What these faults need of the emulator's world."""

    lives: Lives

    @property
    def tasks(self) -> LifeTasks:
        """Where faults that take time run."""
        ...


def _hide(world: Surroundings, contract: Contract, options: Options) -> None:  # noqa: ARG001
    contract.unlisted = True


def _label(world: Surroundings, contract: Contract, options: Options) -> None:  # noqa: ARG001
    label = options.get("label")
    contract.label = None if label is None else str(label)


def _outbid(world: Surroundings, contract: Contract, options: Options) -> None:  # noqa: ARG001
    world.lives.outbid(contract)


def _vanish(world: Surroundings, contract: Contract, options: Options) -> None:
    world.lives.lose_host(contract, frozen=bool(options.get("frozen", False)))


def _return(world: Surroundings, contract: Contract, options: Options) -> None:  # noqa: ARG001
    world.lives.regain_host(contract)


def _exit(world: Surroundings, contract: Contract, options: Options) -> None:  # noqa: ARG001
    world.lives.end_process(contract)


def _logs(world: Surroundings, contract: Contract, options: Options) -> None:  # noqa: ARG001
    contract.log_polls = int(options.get("polls", contract.log_polls))
    contract.log_status = int(options.get("status", contract.log_status))
    contract.log_empty = bool(options.get("empty", contract.log_empty))


_CONDITIONS: Final = (
    "slow-boot",
    "boot-failure",
    "stuck-loading",
    "other-cards",
    "no-ssh",
    "wrong-host-key",
    "late-key",
    "no-key",
    "dead-direct-port",
)

#: By name. Those of a boot matter for the next boot; the others act at once.
INSTANCE_FAULTS: Final[Mapping[str, Affliction[Any, Any]]] = {
    **{name: condition(name) for name in _CONDITIONS},
    **AFFLICTIONS,
    "hidden": later(_hide),
    "label": later(_label),
    "outbid": later(_outbid),
    "vanish": later(_vanish),
    "return": later(_return),
    "exit": later(_exit),
    "logs": _logs,
}
