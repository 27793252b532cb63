"""Faults of single pods: at their boot, or while they run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Protocol

from gpubroker.testing.emulation import (
    AFFLICTIONS,
    Affliction,
    Books,
    LifeTasks,
    Options,
    condition,
    later,
)
from gpubroker_runpod.emulator.lives import Lives
from gpubroker_runpod.emulator.pods import RUNNING, Pod


class Surroundings(Protocol):
    """What these faults need of the emulator's world."""

    lives: Lives
    books: Books

    @property
    def tasks(self) -> LifeTasks:
        """Where faults that take time run."""
        ...


def _invisible(world: Surroundings, pod: Pod, options: Options) -> None:  # noqa: ARG001
    pod.visible_at = time.time() + float(options.get("seconds", 5.0))


def _never_listed(world: Surroundings, pod: Pod, options: Options) -> None:  # noqa: ARG001
    pod.unlisted = True


def _no_public_port(world: Surroundings, pod: Pod, options: Options) -> None:  # noqa: ARG001
    pod.public = False


def _dear(world: Surroundings, pod: Pod, options: Options) -> None:
    """It costs more than was quoted: ``factor`` times as much."""
    now = time.time()
    pod.rate *= Decimal(str(options.get("factor", 2)))
    world.books.stop(pod.id, "gpu", now)
    world.books.start(pod.id, "gpu", pod.rate, now)


def _rename(world: Surroundings, pod: Pod, options: Options) -> None:  # noqa: ARG001
    """Somebody edits its name; with ``env``, its variables too."""
    pod.name = str(options.get("name", "renamed"))
    if "env" in options:
        pod.env = {str(name): str(value) for name, value in options["env"].items()}


def _cluster(world: Surroundings, pod: Pod, options: Options) -> None:  # noqa: ARG001
    pod.cluster = str(options.get("id", "cluster_abc123"))


def _dies(world: Surroundings, pod: Pod, options: Options) -> None:  # noqa: ARG001
    if pod.destroyed_at is None:
        world.lives.lose(pod)


def _container_dies(world: Surroundings, pod: Pod, options: Options) -> None:  # noqa: ARG001
    if pod.status == RUNNING and pod.destroyed_at is None:
        world.lives.lose_container(pod)


def _restarts(world: Surroundings, pod: Pod, options: Options) -> None:  # noqa: ARG001
    if pod.status == RUNNING and pod.destroyed_at is None:
        world.lives.restart(pod)


def _stops(world: Surroundings, pod: Pod, options: Options) -> None:  # noqa: ARG001
    if pod.status == RUNNING and pod.destroyed_at is None:
        world.lives.stop(pod)


def _error(world: Surroundings, pod: Pod, options: Options) -> None:
    if pod.destroyed_at is None:
        world.lives.fail(
            pod, str(options.get("reason", "error creating container: no such device"))
        )


def _says(world: Surroundings, pod: Pod, options: Options) -> None:  # noqa: ARG001
    """A line of its host's, or of its container's: ``line``, and ``source``."""
    line = str(options.get("line", ""))
    if options.get("source") == "container":
        pod.log.printed(f"{line}\n".encode(), 1 << 20)
    else:
        pod.log.say(line)


_CONDITIONS: Final = (
    "slow-boot",
    "never-runs",
    "pull-failure",
    "pull-stalled",
    "no-runtime",
    "empty-runtime",
    "zero-gpus",
    "wrong-card",
    "late-ssh",
    "no-ssh",
    "wrong-host-key",
    "late-port",
    "stale-port",
)

#: By name. Those of a boot matter for the next boot; the others act at once, or ``after`` a while.
POD_FAULTS: Final[Mapping[str, Affliction[Any, Any]]] = {
    **{name: condition(name) for name in _CONDITIONS},
    **AFFLICTIONS,
    "invisible": _invisible,
    "never-listed": _never_listed,
    "no-public-port": _no_public_port,
    "dear": _dear,
    "rename": later(_rename),
    "cluster": _cluster,
    "dies": later(_dies),
    "container-dies": later(_container_dies),
    "restarts": later(_restarts),
    "stops": later(_stops),
    "error": later(_error),
    "says": later(_says),
}
