"""What happens to pods with time: placed, pulled, run, restarted, stopped, deleted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from gpubroker.testing.emulation import (
    Books,
    Cards,
    EmulatedMachine,
    Ground,
    LifeTasks,
    condition_of,
)
from gpubroker_runpod.emulator.container import Doorbell, furnish, main_process
from gpubroker_runpod.emulator.market import DISK_RATE, Market, Spot
from gpubroker_runpod.emulator.pods import ERROR, EXITED, RUNNING, STARTING, Pod
from gpubroker_runpod.emulator.scenarios import Behaviour

_LAYERS: Final = ("a1b2c3d4e5f6", "0f9e8d7c6b5a", "77aa88bb99cc")
_PULL_FAILURE: Final = "failed to pull image: manifest unknown"


class Lives:
    """The lives of all pods. Used in the emulator's event loop alone."""

    def __init__(
        self,
        ground: Ground,
        market: Market,
        books: Books,
        behaviour: Callable[[], Behaviour],
        *,
        system_sshd: bool,
    ) -> None:
        self.pods: dict[str, Pod] = {}
        self.tasks = LifeTasks()
        self._ground = ground
        self._market = market
        self._books = books
        self._behaviour = behaviour
        self._system_sshd = system_sshd
        self._bells: dict[str, Doorbell] = {}
        self._openings: dict[str, asyncio.Task[None]] = {}

    def begin(self, pod: Pod) -> None:
        """Bill a new pod from this moment on, and boot it."""
        self.pods[pod.id] = pod
        self._market.take(pod.card, pod.cloud, pod.place, pod.count)
        self._bill(pod, pod.created_at)
        self.tasks.drive(pod.id, self._boot(pod))

    def stop(self, pod: Pod) -> None:
        """End its container. Its cards are free again, its container's disk is gone."""
        now = time.time()
        pod.status = EXITED
        self._books.stop_all(pod.id, now)
        if pod.kept_disk:
            rate = 2 * DISK_RATE * int(pod.kept_disk["size"])
            self._books.start(pod.id, "kept-disk", rate, now)
        self._market.take(pod.card, pod.cloud, pod.place, -pod.count)
        self.tasks.drive(pod.id, self._halt(pod))

    def start(self, pod: Pod) -> bool:
        """Start it again on its own host; whether there are cards for it."""
        if self._market.stock.get(Spot(pod.card.id, pod.cloud, pod.place), 0) < pod.count:
            return False
        self._market.take(pod.card, pod.cloud, pod.place, pod.count)
        self._books.stop_all(pod.id, time.time())
        self._bill(pod, time.time())
        pod.status = STARTING
        self.tasks.drive(pod.id, self._boot(pod, scheduling=0.0))
        return True

    def restart(self, pod: Pod) -> None:
        """End its container and run it anew: other host keys, another public port."""
        self.tasks.drive(pod.id, self._run(pod))

    def fail(self, pod: Pod, reason: str) -> None:
        """Its container cannot run; it bills on."""
        pod.log.say(reason)
        pod.status = ERROR
        self.tasks.drive(pod.id, self._halt(pod))

    def lose_container(self, pod: Pod) -> None:
        """Its container is dead and stays so, and nothing but its missing figures tells; it bills on."""
        pod.conditions.append(("no-runtime", {}))
        self.tasks.drive(pod.id, self._halt(pod))

    def destroy(self, pod: Pod) -> None:
        """End it: billing stops now, its processes at once; the list may show it for a while."""
        now = time.time()
        if pod.status != EXITED:
            self._market.take(pod.card, pod.cloud, pod.place, -pod.count)
        pod.destroyed_at = now
        pod.gone_at = now + self._behaviour().vanishing
        self._books.stop_all(pod.id, now)
        self.tasks.drive(pod.id, self._destroy(pod))

    def lose(self, pod: Pod) -> None:
        """It disappears, without notice: its host has failed, and nothing is billed any more."""
        self.destroy(pod)
        pod.gone_at = pod.destroyed_at

    async def close(self) -> None:
        """End every life and every machine."""
        await self.tasks.close()
        for bell in self._bells.values():
            bell.close()
        machines = [pod.machine for pod in self.pods.values() if pod.machine is not None]
        await asyncio.gather(*(machine.destroy() for machine in machines))
        for pod in self.pods.values():
            pod.machine = None

    def _bill(self, pod: Pod, now: float) -> None:
        self._books.start(pod.id, "gpu", pod.rate, now)
        self._books.start(pod.id, "disk", pod.disk_rate, now)

    async def _boot(self, pod: Pod, scheduling: float | None = None) -> None:
        behaviour = self._behaviour()
        if pod.has("never-runs"):
            return
        await asyncio.sleep(behaviour.scheduling if scheduling is None else scheduling)
        pod.status = STARTING
        slow = condition_of(pod, "slow-boot")
        boot = behaviour.boot if slow is None else float(slow.get("seconds", 30.0))
        pod.log.say(f"create container {pod.image}")
        for layer in _LAYERS:
            pod.log.say(f"{layer} Pulling fs layer")
            await asyncio.sleep(boot / (len(_LAYERS) + 1))
            if pod.has("pull-stalled"):
                return
        failure = condition_of(pod, "pull-failure")
        if failure is not None:
            pod.log.say(str(failure.get("reason", _PULL_FAILURE)))
            pod.status = ERROR
            return
        await asyncio.sleep(boot / (len(_LAYERS) + 1))
        pod.log.say(f"Status: Downloaded newer image for {pod.image}")
        await self._run(pod)

    async def _run(self, pod: Pod) -> None:
        """Run the container, and again whenever its main process ends."""
        while True:
            await self._halt(pod)
            machine = await self._fresh(pod)
            now = time.time()
            pod.status, pod.started_at = RUNNING, now
            self._show_ports(pod, now)
            pod.log.say("start container")
            try:
                over = await machine.run_main(
                    main_process(pod),
                    pod.environment(),
                    lambda data: pod.log.printed(data, self._behaviour().line_limit),
                )
            except (OSError, ValueError) as error:
                pod.log.say(f"error creating container: {error}")
                pod.status = ERROR
                return
            status = await asyncio.shield(over)
            pod.log.say(f"container exited with status {status}; restarting")
            await self._halt(pod)
            await asyncio.sleep(self._behaviour().restart_pause)

    def _show_ports(self, pod: Pod, now: float) -> None:
        """Let the ports of a container that has just begun be shown, at once or in a while."""
        behaviour = self._behaviour()
        stale = condition_of(pod, "stale-port")
        late = condition_of(pod, "late-port")
        wait = behaviour.port_delay if pod.old_port is None else behaviour.port_lag
        if stale is not None and pod.old_port is not None:
            wait = float(stale.get("seconds", 60.0))
        if late is not None:
            pod.old_port = None
            wait = float(late.get("seconds", 60.0))
        pod.ports_at = now + wait

    async def _fresh(self, pod: Pod) -> EmulatedMachine:
        """A machine as a container finds it that has just been made."""
        behaviour = self._behaviour()
        machine = pod.machine
        if machine is None:
            machine = EmulatedMachine(
                self._ground, pod.id, cards=_cards(pod), system_sshd=self._system_sshd
            )
            machine.build()
        else:
            pod.old_port = machine.direct.port
            await machine.renew(keep_home=behaviour.keep_home)
            if not behaviour.keep_log:
                pod.log.forget()
        pod.machine = machine
        furnish(machine)
        if "22/tcp" in pod.ports:
            self._ring(pod, machine)
        return machine

    def _ring(self, pod: Pod, machine: EmulatedMachine) -> None:
        """Open the SSH server when the container asks for it."""
        asked = False

        def rung(said: str) -> None:
            nonlocal asked
            if not asked:
                asked = True
                self._openings[pod.id] = self.tasks.soon(self._open_ssh(pod, machine, said))

        self._bells[pod.id] = Doorbell(machine, rung)

    async def _open_ssh(self, pod: Pod, machine: EmulatedMachine, said: str) -> None:
        late = condition_of(pod, "late-ssh")
        if pod.has("no-ssh"):
            return
        await asyncio.sleep(
            self._behaviour().sshd if late is None else float(late.get("seconds", 1.0))
        )
        await machine.open_ssh(
            other_key=pod.has("wrong-host-key"),
            user_environment="permituserenvironment=yes" in said.lower(),
        )
        if not pod.public:
            machine.direct.cut()
        machine.proxy.cut()

    async def _halt(self, pod: Pod) -> None:
        bell = self._bells.pop(pod.id, None)
        if bell is not None:
            bell.close()
        opening = self._openings.pop(pod.id, None)
        if opening is not None:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        if pod.machine is not None:
            await pod.machine.halt()

    async def _destroy(self, pod: Pod) -> None:
        await self._halt(pod)
        machine = pod.machine
        if machine is not None:
            await machine.destroy()
            pod.machine = None
        pod.log.close()


def _cards(pod: Pod) -> Cards:
    """What the driver on a pod's host reports."""
    other = condition_of(pod, "wrong-card")
    default = _driver_name(pod.card.id) if other is None else "NVIDIA GeForce GT 1030"
    other = other or {}
    if pod.has("zero-gpus"):
        other = {"name": _driver_name(pod.card.id), "count": 0, "memory": pod.card.driver_memory}
    return Cards(
        name=str(other.get("name", default)),
        memory=int(other.get("memory", pod.card.driver_memory)),
        count=int(other.get("count", pod.count)),
    )


def _driver_name(card: str) -> str:
    """A card's name by its driver. The vendor's ids are those names, but for slices."""
    return card.partition(" MIG ")[0]
