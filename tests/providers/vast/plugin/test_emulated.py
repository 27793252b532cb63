"""The plugin against the emulated vendor, over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")

from tests.providers.answers import meaning

from gpubroker import (
    AccountSettings,
    CreateUnknown,
    Machine,
    MachineState,
    Offer,
    ProviderError,
    ProviderFacts,
    Requirements,
    TrustTier,
)
from gpubroker.policy.matching import reject
from gpubroker.transport.host_identity import host_keys
from gpubroker_vast import create
from gpubroker_vast.api import PAGE
from gpubroker_vast.emulator import VastEmulator
from gpubroker_vast.provider import VastProvider

from .vendor import MARK, NONCE, order

pytestmark = pytest.mark.anyio

FACTS = ProviderFacts(paid=True, trust=TrustTier.VERIFIED, spot=True, ports=True, ssh=True)
KEY_LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTq4dEi1Cr2gqWTdD3vXhgZ3C2hUGqkJRE7RwDXk9VZ lease"


@pytest.fixture
def cloud() -> Iterator[VastEmulator]:
    """A calm cloud; the account key leaked nowhere, and nothing bills when a test is over."""
    with VastEmulator(
        seed=1, ssh_server="built-in", boot=0.04, scheduling=0.01, stopping=0.01, vanishing=0.05
    ) as emulator:
        yield emulator
        assert emulator.leaks == ()
        assert emulator.billing_now() == ()


def account(cloud: VastEmulator) -> VastProvider:
    """The provider, as the broker makes it."""
    return create(AccountSettings("vast", cloud.options, cloud.key, cloud.url), _ignore)


def _ignore(kind: str, text: str) -> None:
    """Events are of no interest here."""


async def cheapest(provider: VastProvider) -> Offer:
    found = await provider.quote(Requirements(gpu="RTX 4090", disk=20, ports=[8000]))
    return min(found, key=lambda offer: offer.price.hourly)


async def rent(provider: VastProvider, *, lifetime: float = 600) -> Machine:
    offer = await cheapest(provider)
    wanted = order(
        disk=20.0,
        public_key=KEY_LINE,
        price_ceiling=offer.price.hourly,
        deadline=time.time() + lifetime,
    )
    return await provider.provision(offer, wanted)


async def reading(
    provider: VastProvider, machine_id: str, state: MachineState | None
) -> Machine | None:
    """The listing, once it shows a machine in this state; ``None`` for not at all."""
    with anyio.fail_after(15):
        while True:
            found = {machine.id: machine for machine in await provider.inventory()}
            machine = found.get(machine_id)
            if (machine.state if machine else None) is state:
                return machine
            await anyio.sleep(0.02)


def unfit(offer: Offer, wanted: Requirements) -> bool:
    return reject(replace(offer, provider="vast"), wanted, FACTS, now=time.time()) is not None


async def end(provider: VastProvider, machine_id: str) -> None:
    await provider.release(Machine(id=machine_id))
    await reading(provider, machine_id, None)


async def test_a_machine_from_the_offer_to_the_bill(cloud: VastEmulator) -> None:
    """Offered, rented, running at the price agreed on, known by its keys, destroyed and billed."""
    async with account(cloud) as provider:
        before = await provider.balance()
        offer = await cheapest(provider)
        made = await rent(provider)
        machine = await reading(provider, made.id, MachineState.RUNNING)
        assert machine is not None
        with anyio.fail_after(15):
            while not (keys := host_keys(await provider.logs(machine), NONCE)):
                await anyio.sleep(0.05)
        await end(provider, machine.id)
        charges = await provider.charges(time.time() - 60, time.time())
        after = await provider.balance()

    assert (offer.gpu, offer.simulated, offer.region is not None) == ("RTX 4090", True, True)
    assert (machine.mark, machine.host) == (MARK, offer.host)
    assert machine.hourly is not None
    assert machine.hourly <= offer.price.hourly
    assert [route.proxied for route in machine.routes] == [False, True]
    assert keys[0].startswith("ssh-")
    assert [(charge.machine_id, charge.amount) for charge in charges] == [
        (machine.id, cloud.billed(machine.id))
    ]
    assert after <= before


async def test_the_key_of_the_lease_is_let_in(cloud: VastEmulator) -> None:
    """Through the API, besides what the machine's own script does."""
    async with account(cloud) as provider:
        machine = await rent(provider)
        with anyio.fail_after(10):
            while not any(
                r.method == "POST" and r.path.endswith("/ssh/") and r.status == 200
                for r in cloud.requests
            ):
                await anyio.sleep(0.02)
        await end(provider, machine.id)


@pytest.mark.parametrize(
    "narrow",
    [
        {"gpu": "RTX 3090"},
        {"vram": "40GB.."},
        {"driver": "580"},
        {"cuda": "12.8.."},
        {"compute_capability": "..8.6"},
        {"download": "800.."},
        {"reliability": "0.995.."},
        {"trust": "datacenter"},
        {"region": ["CA", "DE"]},
        {"count": "2..4"},
        {"cpus": "24.."},
        {"max_price": "0.30"},
        {"static_ip": True},
        {"ports": [8000, 8001]},
        {"spot": True},
    ],
    ids=lambda narrow: next(iter(narrow)),
)
async def test_the_server_sorts_out_what_does_not_fit(
    cloud: VastEmulator, narrow: dict[str, Any]
) -> None:
    """So that the cheapest rows, of which few may be read, are no slow hosts or old drivers."""
    wanted = Requirements.from_mapping({"count": "1..", **narrow})
    async with account(cloud) as provider:
        found = await provider.quote(wanted)
        everything = await provider.quote(Requirements(count="1..", spot="spot" in narrow))

    assert found
    assert [offer.id for offer in found if unfit(offer, wanted)] == []
    if "spot" not in narrow:
        assert [offer for offer in everything if unfit(offer, wanted)]


async def test_a_create_whose_answer_is_lost_is_sent_once_and_found(cloud: VastEmulator) -> None:
    """By its mark, in the listing."""
    cloud.faults.add("create", "drop", when="after")
    async with account(cloud) as provider:
        with pytest.raises(CreateUnknown):
            await rent(provider)
        (found,) = await provider.inventory()
        await end(provider, found.id)

    assert found.mark == MARK
    assert sum(r.method == "PUT" and "/asks/" in r.path for r in cloud.requests) == 1


async def test_a_create_that_fails_and_bills_is_handed_over(cloud: VastEmulator) -> None:
    """The refusal names the machine."""
    cloud.faults.add("create", "stopped-contract")
    async with account(cloud) as provider:
        with pytest.raises(ProviderError) as failed:
            await rent(provider)
        assert failed.value.machine_id is not None
        await end(provider, failed.value.machine_id)

    assert meaning(failed.value) == ("capacity", "offer")


async def test_a_revoked_key_is_no_empty_account(cloud: VastEmulator) -> None:
    """In each of its forms, for listing and for destroying."""
    async with account(cloud) as provider:
        machine = await rent(provider)
        for status in (401, 403, 404):
            cloud.revoke_key(status)
            with pytest.raises(ProviderError) as listing:
                await provider.inventory()
            with pytest.raises(ProviderError) as destroying:
                await provider.release(machine)
            assert meaning(listing.value) == meaning(destroying.value) == ("auth", "account")
        cloud.restore_key()
        await end(provider, machine.id)


async def test_many_pages_are_read_and_many_machines_destroyed(cloud: VastEmulator) -> None:
    """Two pages of machines, and a request or two to destroy them all."""
    cloud.switch(scheduling=60.0)
    async with account(cloud) as provider:
        offers = await provider.quote(Requirements(disk=20))
        by_host = {offer.host: offer for offer in offers}  # renting one takes others' cards
        machines = [
            await provider.provision(
                offer,
                order(
                    disk=20.0,
                    public_key="",
                    nonce="",
                    price_ceiling=offer.price.hourly,
                    deadline=time.time() + 600,
                ),
            )
            for offer in by_host.values()
        ]
        listed = {machine.id for machine in await provider.inventory()}
        async with anyio.create_task_group() as tasks:
            for machine in machines:
                tasks.start_soon(provider.release, machine)
        for machine in machines:
            await reading(provider, machine.id, None)

    assert len(machines) > PAGE
    assert listed == {machine.id for machine in machines}
    assert sum(request.method == "DELETE" for request in cloud.requests) <= 2


async def test_many_that_were_destroyed_unheard_are_gone(cloud: VastEmulator) -> None:
    """The answer was lost; asked again, the vendor knows none of them, and that is no failure."""
    cloud.switch(scheduling=60.0)
    cloud.faults.add("destroy-bulk", "drop", when="after")
    async with account(cloud) as provider:
        offers = await provider.quote(Requirements(disk=20))
        machines = [
            await provider.provision(
                offer,
                order(
                    disk=20.0,
                    public_key="",
                    nonce="",
                    price_ceiling=offer.price.hourly,
                    deadline=time.time() + 600,
                ),
            )
            for offer in list({offer.host: offer for offer in offers}.values())[:3]
        ]
        failed: list[str] = []

        async def release(machine: Machine) -> None:
            try:
                await provider.release(machine)
            except ProviderError:
                failed.append(machine.id)
                await provider.release(machine)

        async with anyio.create_task_group() as tasks:
            for machine in machines:
                tasks.start_soon(release, machine)

    assert len(failed) >= 2
    destroys = [request for request in cloud.requests if request.method == "DELETE"]
    assert {request.status for request in destroys if request.path.endswith("/instances/")} == {
        0,
        404,
    }


async def test_at_its_deadline_a_machine_destroys_itself(cloud: VastEmulator) -> None:
    """With nobody looking: by its own script, and its own key."""
    async with account(cloud) as provider:
        machine = await rent(provider, lifetime=1)
        await reading(provider, machine.id, None)

    (destroy,) = {r.path for r in cloud.requests if r.method == "DELETE"}
    assert destroy.endswith(f"/instances/{machine.id}/")


async def test_the_vendors_pace_is_kept() -> None:
    """At the vendor's own limits no request is refused."""
    with VastEmulator(seed=1, ssh_server="built-in", limits=1.0) as cloud:
        settings = AccountSettings("vast", {}, cloud.key, cloud.url)
        async with create(settings, _ignore) as provider:
            for _ in range(3):
                await provider.inventory()
                await provider.quote(Requirements(disk=20))

        assert {request.status for request in cloud.requests} == {200}
