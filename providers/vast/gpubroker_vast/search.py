"""From requirements to a search, and from its rows to offers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_UP, Decimal
from typing import Any, Final

from gpubroker import (
    Money,
    Offer,
    Price,
    Range,
    Requirements,
    TrustTier,
    gpu_compute_capability,
    gpu_name,
    gpu_vram,
)
from gpubroker.rest import Row, rows
from gpubroker_vast.vocabulary import GPU_LABELS

COLUMNS: Final = (
    *("id", "machine_id", "hosting_type", "verification", "rentable"),
    *("rented", "external"),
    *("num_gpus", "gpu_name", "gpu_ram", "compute_cap", "cuda_max_good", "driver_version"),
    *("cpu_cores", "cpu_cores_effective", "cpu_ram", "disk_space", "inet_up", "inet_down"),
    *("dph_base", "dph_total", "min_bid", "storage_cost", "inet_up_cost", "inet_down_cost"),
    *("reliability", "reliability2", "duration", "direct_port_count", "static_ip", "geolocation"),
)
"""What is read of an offer, and so asked for."""

BID: Final = ":bid"
"""Ends the id of an interruptible offer: the vendor gives it the id of the one on demand."""

LEAST_DISK: Final = 8.0
"""GB of disk that a machine has at the least, and is billed for."""

_LEAST_VRAM: Final = 8.0
_HOURS_PER_MONTH: Final = 720
_MICRO: Final = Decimal("0.000001")
_CENT_OF_A_CENT: Final = Decimal("0.0001")
#: GB in what the vendor counts as 1000 of its megabytes, which are MiB.
_GIGABYTES: Final = 1.048576
#: A little below what a GB is in those megabytes: a filter may let too much through.
_MEGABYTES: Final = 950.0
_COUNTRY: Final = re.compile(r"\b([A-Z]{2})\s*(?:,|$)")
#: What a name may say besides the model: memory, form factor, edition.
_DETAIL: Final = re.compile(r"\d+GB|SXM|PCIe|NVL|FHHL|Workstation|Server|Max-Q")


@dataclass(frozen=True, slots=True)
class Market:
    """How offers are searched for and priced.

    Attributes:
        limit: rows per search. bid: what to bid, as a multiple of the least bid.
        simulated: the offers are an emulator's.
    """

    limit: int
    bid: Decimal
    simulated: bool


def query(wanted: Requirements, market: Market, *, bid: bool, above: Decimal | None) -> Any:
    """The search that finds what is wanted, the cheapest first.

    Args:
        bid: search interruptible offers.
        above: the total price from which on to search; ``None`` for the beginning.
    """
    found: dict[str, Any] = {
        **_standing(wanted),
        **_cards(wanted),
        **_amounts(wanted),
        "type": "bid" if bid else "on-demand",
        "order": [["dph_total", "asc"]],
        "limit": market.limit,
        "allocated_storage": max(LEAST_DISK, wanted.disk_gb),
    }
    total = {} if wanted.max_price is None else {"lte": float(wanted.max_price.amount)}
    if above is not None:
        total["gte"] = float(above)
    return {**found, "dph_total": total} if total else found


def _standing(wanted: Requirements) -> dict[str, Any]:
    """Whose machines, and where. What is left out is not "any": the server has defaults."""
    unverified = wanted.trust is TrustTier.UNVERIFIED
    found: dict[str, Any] = {
        "verified": {"eq": "any" if unverified else True},
        "external": {"eq": False},
        "rentable": {"eq": True},
        "rented": {"eq": False},
    }
    if wanted.trust is TrustTier.DATACENTER:
        found["datacenter"] = {"eq": True}
    if wanted.region and all(len(name) == 2 for name in wanted.region):
        found["geolocation"] = {"in": [name.upper() for name in wanted.region]}
    if wanted.ports:
        found["direct_port_count"] = {"gte": len(wanted.ports) + 1}
    if wanted.static_ip:
        found["static_ip"] = {"eq": True}
    return found


def _cards(wanted: Requirements) -> dict[str, Any]:
    found: dict[str, Any] = {}
    vram = wanted.vram
    if wanted.gpu:
        spelt = {name: labels_of(name) for name in wanted.gpu}
        if any(spelt.values()) or len(spelt) > 1:
            labels = {label for name, some in spelt.items() for label in some or [name]}
            found["gpu_name"] = {"in": sorted(labels)}
        else:
            # Nobody knows how the vendor spells it: what is known of it narrows the search.
            capability, memory = gpu_compute_capability(wanted.gpu[0]), gpu_vram(wanted.gpu[0])
            if capability is not None:
                found["compute_cap"] = {"eq": round(capability * 100)}
            if vram is None and memory is not None:
                vram = Range(memory * 0.9, memory * 1.15)
    elif wanted.needs_gpu and vram is None:
        vram = Range(_LEAST_VRAM)
    if vram is not None:
        found["gpu_ram"] = _between(vram, _MEGABYTES, 1000.0)
    return found


def _amounts(wanted: Requirements) -> dict[str, Any]:
    asked: tuple[tuple[str, Range | None, float, float], ...] = (
        ("num_gpus", wanted.count, 1, 1),
        ("cuda_max_good", wanted.cuda, 1, 1),
        ("compute_cap", wanted.compute_capability, 100, 100),
        ("cpu_cores_effective", wanted.cpus, 1, 1),
        ("reliability", wanted.reliability, 1, 1),
        ("inet_down", wanted.download, 1, 1),
        ("inet_up", wanted.upload, 1, 1),
    )
    found = {
        name: _between(bounds, low, high) for name, bounds, low, high in asked if bounds is not None
    }
    if wanted.ram is not None and wanted.ram.low is not None:
        # The whole machine's, of which an offer is a share: at least as much.
        found["cpu_ram"] = {"gte": wanted.ram.low * _MEGABYTES}
    if wanted.driver is not None and (driver := _packed(wanted.driver)) is not None:
        found["driver_version"] = {"gte": driver}
    if wanted.disk is not None and wanted.disk.high is not None:
        found["disk_space"] = {"gte": wanted.disk_gb, "lte": wanted.disk.high}
    else:
        found["disk_space"] = {"gte": wanted.disk_gb}
    return found


def _packed(driver: str) -> int | None:
    """A driver's version as the search compares it: ``535.86.05`` is 535086005."""
    parts = [*map(int, driver.split(".")), 0, 0][:3]
    if max(parts) > 999:
        return None
    return parts[0] * 1_000_000 + parts[1] * 1_000 + parts[2]


def _between(bounds: Range, low: float, high: float) -> dict[str, float]:
    """A filter for a range, its ends in the vendor's unit."""
    found: dict[str, float] = {}
    if bounds.low is not None:
        found["gte"] = round(bounds.low * low, 6)
    if bounds.high is not None:
        found["lte"] = round(bounds.high * high, 6)
    return found


def labels_of(wanted: str) -> list[str]:
    """How the vendor spells the models that a canonical name stands for."""
    return [
        label
        for label, sizes in GPU_LABELS.items()
        if any(
            _is_one(wanted, gpu_name(label, float(size) if size else None))
            for size in sizes or (0,)
        )
    ]


def _is_one(wanted: str, model: str) -> bool:
    """Whether a model's full name adds nothing to `wanted` but memory, form factor or edition."""
    words = model.split()
    if not set(wanted.split()) <= set(words):
        return False
    return all(_DETAIL.fullmatch(word) for word in words if word not in wanted.split())


def offers(
    found: Iterable[object],
    wanted: Requirements,
    market: Market,
    *,
    bid: bool,
    now: float,
    skip: Callable[[str], None],
) -> list[Offer]:
    """The offers in the rows of a search; a row that makes no sense costs nothing but itself.

    Args:
        now: Unix time. skip: told why a row was left out.
    """
    made: dict[str, Offer] = {}
    for entry in found:
        row = rows.table(entry)
        try:
            offer = None if row is None else _offer(row, wanted, market, bid=bid, now=now)
        except ValueError as error:  # `InvalidValue` is one
            skip(f"an offer makes no sense: {error}")
            continue
        if offer is None:
            skip("an offer has no id or no sound price, or cannot be rented")
        else:
            made.setdefault(offer.id, offer)
    return list(made.values())


def _offer(
    row: Row, wanted: Requirements, market: Market, *, bid: bool, now: float
) -> Offer | None:
    ask = rows.identifier(row, "id")
    price = _price(row, max(LEAST_DISK, wanted.disk_gb), market.bid if bid else None)
    if ask is None or price is None or not _is_to_be_had(row):
        return None
    vram = _scaled(row, "gpu_ram", _GIGABYTES / 1000)
    count = rows.whole(row, "num_gpus") or 0
    duration = rows.number(row, "duration")
    capability = rows.number(row, "compute_cap")
    return Offer(
        id=ask + BID if bid else ask,
        price=price,
        gpu=gpu_name(rows.text(row, "gpu_name"), vram) if count else None,
        count=count,
        vram=vram if count else None,
        compute_capability=None if capability is None else capability / 100,
        cuda=rows.number(row, "cuda_max_good"),
        cpus=rows.number(row, "cpu_cores_effective"),
        ram=_share_of_memory(row),
        disk=rows.number(row, "disk_space"),
        region=_region(row),
        reliability=_reliability(row),
        trust=_trust(row),
        download=rows.number(row, "inet_down"),
        upload=rows.number(row, "inet_up"),
        spot=bid,
        single=True,
        driver=rows.text(row, "driver_version") or None,
        open_ports=rows.whole(row, "direct_port_count"),
        static_ip=rows.flag(row, "static_ip"),
        host=rows.identifier(row, "machine_id"),
        expires_at=None if duration is None else now + duration,
        simulated=market.simulated,
        extra={"ask": ask},
    )


def _is_to_be_had(row: Row) -> bool:
    """The search asks for these alone, and its filters were seen to let others through."""
    rented, external = rows.flag(row, "rented"), rows.flag(row, "external")
    return rows.flag(row, "rentable") is not False and not rented and not external


def _price(row: Row, disk: float, factor: Decimal | None) -> Price | None:
    """What the machine costs, split; ``None`` if the row does not say, or says nonsense.

    Each part is rounded up to the micro-dollar, so that what the vendor writes with fewer digits
    later on is no rise.

    Args:
        factor: of the least bid to bid; ``None`` on demand.
    """
    if factor is None:
        machine = rows.decimal(row, "dph_base")
    else:
        least = rows.decimal(row, "min_bid")
        machine = None if least is None else (least * factor).quantize(_CENT_OF_A_CENT, ROUND_UP)
    storage = rows.decimal(row, "storage_cost")
    parts = (
        machine,
        None if storage is None else storage * Decimal(str(disk)) / _HOURS_PER_MONTH,
        rows.decimal(row, "inet_up_cost"),
        rows.decimal(row, "inet_down_cost"),
    )
    if machine is None or machine <= 0 or any(part is None or part < 0 for part in parts):
        return None
    exact = [Money((part or Decimal(0)).quantize(_MICRO, ROUND_CEILING)) for part in parts]
    return Price(machine=exact[0], disk=exact[1], upload=exact[2], download=exact[3])


def _scaled(row: Row, name: str, factor: float) -> float | None:
    value = rows.number(row, name)
    return None if value is None else round(value * factor, 1)


def _share_of_memory(row: Row) -> float | None:
    """GB of the machine's memory that come with this offer's share of its processors."""
    total = rows.number(row, "cpu_ram")
    cores, own = rows.number(row, "cpu_cores"), rows.number(row, "cpu_cores_effective")
    if total is None:
        return None
    share = min(1.0, own / cores) if cores and own and cores > 0 and own > 0 else 1.0
    return round(total * share * _GIGABYTES / 1000, 1)


def _region(row: Row) -> str | None:
    """The country's two letters out of ``Quebec, CA``, else all that is said."""
    said = rows.text(row, "geolocation")
    match = _COUNTRY.search(said)
    return match[1] if match else said or None


def _reliability(row: Row) -> float | None:
    value = rows.number(row, "reliability")
    return rows.number(row, "reliability2") if value is None else value


def _trust(row: Row) -> TrustTier:
    if rows.text(row, "verification").lower() != "verified":
        return TrustTier.UNVERIFIED
    return TrustTier.DATACENTER if rows.whole(row, "hosting_type") == 1 else TrustTier.VERIFIED
