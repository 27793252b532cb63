"""Which cards are offered: real ones through NVML, simulated ones, and none."""

# The driver library's names are its own.
# ruff: noqa: N802
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from gpubroker import ErrorKind, Offer, ProviderError, Requirements
from gpubroker_local.cards import Card, read_cards
from gpubroker_local.locks import CardLocks

if TYPE_CHECKING:
    from tests.providers.local.conftest import House

anyio_test = pytest.mark.anyio


class NvmlError(Exception):
    """What a driver in trouble raises."""


@dataclass
class FakeCard:
    uuid: str | bytes = "GPU-1"
    name: str | bytes = "NVIDIA GeForce RTX 4090"
    memory: int = 25_757_220_864
    capability: tuple[int, int] = (8, 9)
    mig: int | None = None
    broken: bool = False

    @property
    def total(self) -> int:
        return self.memory


@dataclass
class FakeNvml:
    """The driver library as `pynvml` shows it."""

    cards: list[FakeCard] = field(default_factory=list[FakeCard])
    failing: frozenset[str] = frozenset()
    closed: bool = False

    def _reach(self, call: str) -> None:
        if call in self.failing:
            raise NvmlError(call)

    def nvmlInit(self) -> None:
        self._reach("init")

    def nvmlShutdown(self) -> None:
        self.closed = True

    def nvmlDeviceGetCount(self) -> int:
        self._reach("count")
        return len(self.cards)

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        self._reach("version")
        return 12040

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeCard:
        if self.cards[index].broken:
            raise NvmlError("lost")
        return self.cards[index]

    def nvmlDeviceGetUUID(self, handle: FakeCard) -> str | bytes:
        return handle.uuid

    def nvmlDeviceGetName(self, handle: FakeCard) -> str | bytes:
        return handle.name

    def nvmlDeviceGetMemoryInfo(self, handle: FakeCard) -> FakeCard:
        return handle

    def nvmlDeviceGetMigMode(self, handle: FakeCard) -> list[int]:
        if handle.mig is None:
            raise NvmlError("not supported")
        return [handle.mig, handle.mig]

    def nvmlDeviceGetCudaComputeCapability(self, handle: FakeCard) -> tuple[int, int]:
        return handle.capability


def test_cards_are_read_with_everything_known_of_them() -> None:
    """Names are canonical, memory is in GB, versions are numbers; bytes are text."""
    other = FakeCard(b"GPU-2", b"NVIDIA A100-SXM4-80GB", 85_899_345_920, (8, 0), mig=0)
    nvml = FakeNvml([FakeCard(), other])

    first, second = read_cards(nvml)

    assert first == Card(uuid="GPU-1", gpu="RTX 4090", vram=25.8, compute_capability=8.9, cuda=12.4)
    assert (second.uuid, second.vram, second.compute_capability) == ("GPU-2", 85.9, 8.0)
    assert second.gpu.startswith("A100")
    assert nvml.closed


@pytest.mark.parametrize("call", ["init", "count"])
def test_driver_in_trouble_is_a_machine_without_cards(call: str) -> None:
    """No traceback, whatever call fails."""
    assert read_cards(FakeNvml([FakeCard()], failing=frozenset({call}))) == []


def test_missing_library_is_a_machine_without_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the Python module nor the driver's library need be there."""

    def fail(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("gpubroker_local.cards.importlib.import_module", fail)

    assert read_cards() == []


def test_driver_that_does_not_tell_its_version_still_has_cards() -> None:
    """The version is then unknown."""
    cards = read_cards(FakeNvml([FakeCard()], failing=frozenset({"version"})))

    assert [card.cuda for card in cards] == [None]


def test_broken_and_split_cards_are_left_out() -> None:
    """One card that fell off the bus or is split into slices does not hide the others."""
    cards = [FakeCard(broken=True), FakeCard("GPU-2", mig=1), FakeCard("GPU-3")]

    assert [card.uuid for card in read_cards(FakeNvml(cards))] == ["GPU-3"]


@pytest.fixture
def with_cards(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Sequence[FakeCard]], Any]:
    """A provider on a machine with these cards."""

    def make(cards: Sequence[FakeCard]) -> Any:
        nvml = FakeNvml(list(cards))
        monkeypatch.setattr("gpubroker_local.provider.read_cards", lambda: read_cards(nvml))
        return house.provider()

    return make


@anyio_test
async def test_machine_without_cards_offers_its_processors_only(house: House) -> None:
    """No driver here: nothing for a GPU job, one free offer for others."""
    provider = house.provider(simulate="")
    if read_cards():
        pytest.skip("this machine has a card")

    assert await provider.quote(Requirements(gpu="RTX 4090")) == []
    (offer,) = await provider.quote(Requirements(cpus=1))

    assert (offer.gpu, offer.count, offer.region, offer.simulated) == (None, 0, "local", False)
    assert None not in (offer.cpus, offer.ram, offer.disk, offer.host)
    assert not offer.price.hourly


@anyio_test
async def test_each_model_is_offered_with_the_count_that_is_wanted(
    with_cards: Callable[[Sequence[FakeCard]], Any],
) -> None:
    """Cards of different models are never put together; the low end of the count is enough."""
    other = FakeCard("GPU-3", "NVIDIA A100-SXM4-80GB", 85_899_345_920, (8, 0))
    provider = with_cards([FakeCard("GPU-1"), other, FakeCard("GPU-2")])

    async def offered(**wanted: Any) -> list[tuple[str | None, int, str]]:
        offers: list[Offer] = await provider.quote(Requirements(**wanted))
        return [(offer.gpu, offer.count, offer.extra["cards"]) for offer in offers]

    one = await offered(count=1)
    assert [(count, cards) for _, count, cards in one] == [(1, "GPU-1"), (1, "GPU-3")]
    assert await offered(count="2..8") == [("RTX 4090", 2, "GPU-1,GPU-2")]
    assert await offered(count=3) == []


@anyio_test
async def test_real_cards_are_named_to_the_job_by_their_ids(
    house: House, with_cards: Callable[[Sequence[FakeCard]], Any]
) -> None:
    """``CUDA_VISIBLE_DEVICES`` is exactly what the lease holds."""
    provider = with_cards([FakeCard("GPU-1"), FakeCard("GPU-2"), FakeCard("GPU-3")])
    await house.rent(provider, gpu="RTX 4090")
    machine = await house.rent(provider, gpu="RTX 4090", count=2)

    ran = await house.run(provider, machine, "echo $CUDA_VISIBLE_DEVICES")

    assert ran.text == "GPU-2,GPU-3\n"


@anyio_test
async def test_taken_cards_are_not_offered_until_they_are_free(house: House) -> None:
    """Two leases share no card; a released card comes back."""
    provider = house.provider(simulate="2x RTX 4090")
    first = await house.rent(provider, gpu="RTX 4090")
    second = await house.rent(provider, gpu="RTX 4090")

    none_left = await provider.quote(Requirements(gpu="RTX 4090"))
    await provider.release(first)
    offers = await provider.quote(Requirements(gpu="RTX 4090"))

    assert first.details["cards"] != second.details["cards"]
    assert none_left == []
    assert offers[0].extra["cards"] == first.details["cards"]


@anyio_test
async def test_offer_made_twice_is_served_with_another_card_of_the_kind(house: House) -> None:
    """Two jobs that saw the same free card both get one while there are two; a third does not."""
    provider = house.provider(simulate="2x RTX 4090, H100")
    offer = await house.offer(provider, gpu="RTX 4090")
    taken: list[str] = []
    refused: list[ErrorKind] = []

    async def rent() -> None:
        try:
            taken.append((await provider.provision(offer, house.order())).details["cards"])
        except ProviderError as problem:
            refused.append(problem.kind)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(rent)

    assert len(set(taken)) == 2
    assert refused == [ErrorKind.CAPACITY]


@anyio_test
async def test_simulated_cards_say_so_everywhere(house: House) -> None:
    """On the offer, and to the job, which sees no real card."""
    provider = house.provider(simulate="2x RTX 4090:48GB", price="0.25")
    offer = await house.offer(provider, gpu="RTX 4090", count=2)
    machine = await provider.provision(offer, house.order())

    ran = await house.run(
        provider, machine, 'echo "$GPUBROKER_SIMULATED_GPUS|$CUDA_VISIBLE_DEVICES|"'
    )

    assert offer.simulated
    assert (offer.count, offer.vram, str(offer.price.hourly)) == (2, 48.0, "$0.25")
    assert ran.text == "2x RTX 4090||\n"


@anyio_test
async def test_card_counts_as_taken_after_a_job_has_closed_its_lock(house: House) -> None:
    """Python's ``subprocess`` closes what it inherited; the environment still tells."""
    import os
    import signal

    provider = house.provider(simulate="RTX 4090")
    machine = await house.rent(provider, gpu="RTX 4090")
    ready = house.root / "ready"
    closing = 'for n in $(ls /proc/self/fd); do [ $n -gt 2 ] && eval "exec $n>&-"; done;'
    closed = f"until [ -e {ready} ]; do sleep 0.02; done"
    script = f"(setsid bash -c '{closing} touch {ready}; exec sleep 600' &); {closed}"
    await house.run(provider, machine, script)
    os.kill(house.runner_of(machine), signal.SIGKILL)
    with anyio.fail_after(5):
        while len(house.alive()) != 1:
            await anyio.sleep(0.005)

    async with (locks := CardLocks(house.root / "locks")).picking():
        locked = not locks.is_free(machine.details["cards"])

    assert not locked
    assert await provider.quote(Requirements(gpu="RTX 4090")) == []


@anyio_test
async def test_lock_directory_is_for_all_users_and_follows_no_link(house: House) -> None:
    """Sticky and writable for everybody; a link in its place is refused, not followed."""
    provider = house.provider(simulate="RTX 4090")
    await house.offer(provider, gpu="RTX 4090")
    locks = house.root / "locks"
    (house.root / "link").symlink_to(locks)
    tricked = house.provider(simulate="RTX 4090", lock_directory=str(house.root / "link"))

    with pytest.raises(ProviderError, match="cards cannot be locked"):
        await tricked.quote(Requirements(gpu="RTX 4090"))

    assert locks.stat().st_mode & 0o7777 == 0o1777
    (lock,) = locks.iterdir()
    lock.unlink()
    lock.symlink_to(house.root / "elsewhere")
    with pytest.raises(ProviderError, match="cards cannot be locked"):
        await provider.quote(Requirements(gpu="RTX 4090"))
    assert not (house.root / "elsewhere").exists()


def _real_cards() -> list[Card]:
    cards = read_cards()
    if not cards:
        pytest.skip("NVML finds no card on this machine")
    return cards


@pytest.mark.gpu
@anyio_test
async def test_real_card_is_offered_and_locked(house: House) -> None:
    """With its own name and memory; the job is shown the card that the lease has locked."""
    card = _real_cards()[0]
    provider = house.provider()
    offer = await house.offer(provider, count=1)
    machine = await provider.provision(offer, house.order())

    ran = await house.run(provider, machine, "echo $CUDA_VISIBLE_DEVICES")

    assert (offer.gpu, offer.vram, offer.simulated) == (card.gpu, card.vram, False)
    assert offer.compute_capability is not None
    assert offer.cuda is not None
    assert ran.text.strip() == offer.extra["cards"] == machine.details["cards"]
    assert Path(house.root / "locks" / f"{card.uuid}.lock").exists()
