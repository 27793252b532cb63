"""The GPUs of this machine: read through NVML, or simulated."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

from gpubroker import gpu_compute_capability, gpu_name, gpu_vram
from gpubroker_local.options import SimulatedCards

_GIGABYTE: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU.

    Attributes:
        uuid: NVIDIA's id of the card; what ``CUDA_VISIBLE_DEVICES`` names it by.
        gpu: canonical name. vram: GB.
        compute_capability: NVIDIA's. cuda: the highest CUDA version that the driver supports.
        simulated: there is no such card.
    """

    uuid: str
    gpu: str
    vram: float | None = None
    compute_capability: float | None = None
    cuda: float | None = None
    simulated: bool = False


class Nvml(Protocol):
    """The part of the module ``pynvml`` that is used here; tests put another in its place."""

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlSystemGetCudaDriverVersion_v2(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetMigMode(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> Any: ...  # noqa: N802


def read_cards(nvml: Nvml | None = None) -> list[Card]:
    """The NVIDIA cards of this machine. May block for seconds: drivers do.

    No library, no driver, a driver in trouble: that is a machine without GPUs, never an error. A
    single card that cannot be read is left out, and so is one that is split into slices (MIG):
    what a slice can do is not what its name promises.
    """
    try:
        library = nvml or cast("Nvml", importlib.import_module("pynvml"))
        with _opened(library):
            cuda = _version(library)
            cards = (_card(library, i, cuda) for i in range(library.nvmlDeviceGetCount()))
            return [card for card in cards if card is not None]
    except Exception:  # noqa: BLE001  a broken driver fails in every way there is
        return []


@contextmanager
def _opened(nvml: Nvml) -> Generator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _version(nvml: Nvml) -> float | None:
    """The driver's CUDA version as a number: 12040 is 12.4."""
    try:
        number = nvml.nvmlSystemGetCudaDriverVersion_v2()
    except Exception:  # noqa: BLE001  as above: the version is then unknown
        return None
    return float(f"{number // 1000}.{number % 1000 // 10}")


def _card(nvml: Nvml, index: int, cuda: float | None) -> Card | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        if _is_split(nvml, handle):
            return None
        vram = round(int(nvml.nvmlDeviceGetMemoryInfo(handle).total) / _GIGABYTE, 1)
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        name = _text(nvml.nvmlDeviceGetName(handle))
        return Card(
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
            gpu=gpu_name(name, vram),
            vram=vram,
            compute_capability=float(f"{major}.{minor}"),
            cuda=cuda,
        )
    except Exception:  # noqa: BLE001  one broken card must not hide the others
        return None


def _is_split(nvml: Nvml, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except Exception:  # noqa: BLE001  most cards do not know the question
        return False


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def simulated_cards(wanted: tuple[SimulatedCards, ...], directory: Path) -> list[Card]:
    """The cards that settings pretend. Brokers with the same `directory` share them."""
    place = hashlib.sha256(str(directory).encode(errors="replace")).hexdigest()[:8]
    return [
        Card(
            uuid=f"SIM-{place}-{group}-{number}",
            gpu=cards.gpu,
            vram=cards.vram or gpu_vram(cards.gpu),
            compute_capability=gpu_compute_capability(cards.gpu),
            simulated=True,
        )
        for group, cards in enumerate(wanted)
        for number in range(cards.count)
    ]
