"""Creating pods: everything that can be the answer to it."""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

from gpubroker import Money
from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_runpod.emulator.answers import (
    DISK_NEEDED,
    NO_CAPACITY,
    OTHER_MACHINE,
    invalid,
    low_balance,
    over_spend_limit,
    problem,
)
from gpubroker_runpod.emulator.bodies import BadBody, CreatePod, Gpu, order
from gpubroker_runpod.emulator.catalogue import CardType, Place
from gpubroker_runpod.emulator.market import COMMUNITY, Wish, card_of
from gpubroker_runpod.emulator.pod_faults import POD_FAULTS
from gpubroker_runpod.emulator.pods import Pod, pod_row
from gpubroker_runpod.emulator.world import World

_MOST_ENV: Final = 50
_MOST_HTTP: Final = 10
_PORT: Final = re.compile(r"([1-9]\d{0,4})/(http|tcp)")


class CreateApi:
    """The endpoint that makes pods."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        return (Endpoint("create", "POST", "/v2/pods", self._create),)

    def _create(self, call: Call) -> Answer:
        world = self._world
        try:
            wanted = order(call.object(), newer=world.behaviour.newer)
        except BadBody as error:
            return invalid(*error.errors)
        wrong = _broken_rule(wanted, disk_needed=world.behaviour.disk_needed)
        if wrong is not None:
            return wrong
        # There are no processors to be rented alone here: that such pods are never free is true.
        card = None if wanted.gpu is None else card_of(wanted.gpu.id)
        if card is None or not world.market.sold(card, wanted.cloud):
            return problem(400, NO_CAPACITY)
        assert wanted.gpu is not None
        places = world.market.free(card, _wish(wanted, wanted.gpu))
        if not places:
            return problem(400, NO_CAPACITY)
        if world.behaviour.races and world.chance.random() < world.behaviour.races:
            return problem(400, OTHER_MACHINE)
        pod = self._pod(wanted, wanted.gpu, card, places[0], call.at)
        refusal = self._unpaid(pod)
        if refusal is not None:
            return refusal
        self.add(pod)
        return Answer.of(pod_row(pod, call.at, newer=world.behaviour.newer), 201)

    def add(self, pod: Pod) -> None:
        """Begin the life of a pod, with the faults that were planned for the next one."""
        world = self._world
        world.lives.begin(pod)
        rule = world.machine_faults.take("pod", {"id": pod.id, "gpu": pod.card.id})
        if rule is not None:
            POD_FAULTS[rule.fault](world, pod, rule.options)
        else:
            self._misfortune(pod)

    def again(self, name: str) -> None:
        """Make another pod just like the last one of a name: a fault."""
        like = next(pod for pod in reversed(self._world.lives.pods.values()) if pod.name == name)
        self.add(
            Pod(
                **{
                    part: getattr(like, part)
                    for part in (
                        *("name", "image", "args", "entrypoint", "command", "card", "count"),
                        *("cloud", "place", "cuda", "disk", "kept_disk", "env", "injected"),
                        *("ports", "registry", "rate", "visible_at", "public"),
                    )
                },
                id=self._world.fresh_id(),
                created_at=time.time(),
            )
        )

    def _pod(self, wanted: CreatePod, gpu: Gpu, card: CardType, place: Place, now: float) -> Pod:
        world = self._world
        behaviour = world.behaviour
        public = wanted.cloud != COMMUNITY or (world.chance.random() < behaviour.public_community)
        kept = wanted.mounts.persistent
        return Pod(
            id=world.fresh_id(),
            name=wanted.name,
            image=wanted.image or "",
            args=wanted.args,
            entrypoint=tuple(wanted.entrypoint),
            command=tuple(wanted.cmd),
            card=card,
            count=gpu.count,
            cloud=wanted.cloud,
            place=place.id,
            cuda=place.cuda if card.manufacturer == "NVIDIA" else None,
            disk=wanted.disk or 20,
            kept_disk=None if kept is None else {"size": kept.size, "path": kept.path},
            env=dict(wanted.env),
            injected=self._injected(wanted),
            ports=tuple(wanted.ports),
            registry=wanted.registry,
            rate=world.market.prices[card.id, wanted.cloud] * gpu.count,
            created_at=now,
            visible_at=now + behaviour.visibility,
            public=public,
        )

    def _injected(self, wanted: CreatePod) -> dict[str, str]:
        injected: dict[str, str] = {}
        if wanted.startSsh and "PUBLIC_KEY" not in wanted.env and self._world.ssh_keys:
            injected["PUBLIC_KEY"] = "\n".join(self._world.ssh_keys)
        if wanted.startJupyter and "JUPYTER_PASSWORD" not in wanted.env:
            injected["JUPYTER_PASSWORD"] = secrets.token_hex(10)
        return injected

    def _unpaid(self, pod: Pod) -> Answer | None:
        """The refusal of a pod that the account cannot pay for."""
        world = self._world
        if world.credit() < Money(pod.cost):
            return low_balance()
        if float(world.books.hourly() + pod.cost) > world.behaviour.spend_limit:
            return over_spend_limit(world.behaviour.spend_limit)
        return None

    def _misfortune(self, pod: Pod) -> None:
        """What may go wrong with a pod in a scenario, by chance."""
        behaviour, chance = self._world.behaviour, self._world.chance
        for probability, fault in (
            (behaviour.boot_failures, "pull-failure"),
            (behaviour.stuck, "pull-stalled"),
            (behaviour.unreachable, "no-ssh"),
            (behaviour.dying_hosts, "dies"),
        ):
            if probability and chance.random() < probability:
                after = {"after": chance.uniform(1, 60)} if fault == "dies" else {}
                POD_FAULTS[fault](self._world, pod, after)
                return


def _wish(wanted: CreatePod, gpu: Gpu) -> Wish:
    return Wish(
        cloud=wanted.cloud,
        count=gpu.count,
        places=tuple(wanted.dataCenterIds),
        cuda=tuple(gpu.allowedCudaVersions),
        cuda_from=gpu.minCudaVersion,
    )


def _broken_rule(wanted: CreatePod, *, disk_needed: bool) -> Answer | None:
    """The refusal of a request that matches its schema and breaks a rule all the same."""
    if (wanted.gpu is None) == (wanted.cpu is None):
        return problem(400, "exactly one of gpu or cpu must be set")
    if wanted.gpu is not None and wanted.gpu.allowedCudaVersions and wanted.gpu.minCudaVersion:
        return problem(400, "allowedCudaVersions and minCudaVersion are mutually exclusive")
    if wanted.mounts.persistent is not None and wanted.mounts.network:
        return problem(400, "mounts.persistent and mounts.network are mutually exclusive")
    if wanted.templateId is not None or wanted.mounts.network:
        return problem(404, "resource not found")
    if wanted.disk is None and disk_needed:
        return problem(400, DISK_NEEDED)
    for port in wanted.ports:
        if not _PORT.fullmatch(port) or int(port.partition("/")[0]) > 65_535:
            return problem(400, f"invalid port {port!r}: use <number>/http or <number>/tcp")
    if sum(port.endswith("/http") for port in wanted.ports) > _MOST_HTTP:
        return problem(400, f"at most {_MOST_HTTP} http ports can be exposed")
    if len(wanted.env) > _MOST_ENV:
        return problem(400, f"at most {_MOST_ENV} environment variables can be set")
    return None
