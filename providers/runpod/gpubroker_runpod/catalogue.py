"""From requirements to the catalogue, and from its rows to offers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from typing import Final

from gpubroker import (
    Money,
    Offer,
    Price,
    Requirements,
    TrustTier,
    gpu_compute_capability,
    gpu_name,
)
from gpubroker.rest import Row, rows
from gpubroker_runpod.vocabulary import CONTINENTS, COUNTRIES, NO_GPU, STOCK, TRUST, Cloud

EXPIRY: Final = 120.0
"""Seconds for which a price from the catalogue is taken to hold. The vendor promises nothing."""

_DISK: Final = Decimal("0.10")
"""USD per GB and month, while a pod runs."""

_HOURS_PER_MONTH: Final = 720
_CENT: Final = Decimal("0.01")
_DATA_CENTRE: Final = re.compile(r"([A-Z]{2,3})-([A-Z]{2,3})-\d{1,3}")
#: What may be sent as a data centre; several are joined by commas in an offer.
_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the catalogue is asked for.

    Attributes:
        clouds: those that are trusted enough. count: GPUs per pod. disk: whole GB.
        cuda: the lowest version that will do, as ``major.minor``; ``None`` for any.
        try_ssh: rent for work over SSH, too, where a public port is not certain.
    """

    clouds: tuple[Cloud, ...]
    count: int
    disk: int
    cuda: str | None
    try_ssh: bool = False

    @classmethod
    def of(
        cls, requirements: Requirements, clouds: Iterable[Cloud], *, try_ssh: bool = False
    ) -> Wanted:
        """What to ask for; no clouds, where nothing here can do."""
        trusted = () if requirements.spot else clouds
        count, cuda = requirements.count, requirements.cuda
        return cls(
            tuple(cloud for cloud in trusted if requirements.trust.includes(TRUST[cloud])),
            1 if count is None or count.low is None else max(1, math.ceil(count.low)),
            max(1, math.ceil(requirements.disk_gb)),
            None if cuda is None or cuda.low is None else _version(cuda.low),
            try_ssh,
        )


def _version(number: float) -> str:
    """``major.minor``, as a create needs it."""
    text = f"{number:g}"
    return text if "." in text else f"{text}.0"


def query(wanted: Wanted, cloud: Cloud) -> dict[str, str]:
    """The query for the prices and the stock of one cloud."""
    found = {
        "include": "AVAILABILITY",
        "product": "POD",
        "count": str(wanted.count),
        "cloud": cloud.value,
    }
    return found if wanted.cuda is None else {**found, "minCudaVersion": wanted.cuda}


def offers(
    found: Iterable[object],
    wanted: Wanted,
    cloud: Cloud,
    *,
    now: float,
    simulated: bool,
    skip: Callable[[str], None],
) -> list[tuple[int, Offer]]:
    """The offers in the rows of one cloud's catalogue, each with the rank of its stock (0: most).

    A row that makes no sense costs nothing but itself.

    Args:
        now: Unix time. skip: told why a row was left out, where that is odd.
    """
    made: dict[str, tuple[int, Offer]] = {}
    for entry in found:
        row = rows.table(entry)
        if row is None or not (gpu := rows.text(row, "id")):
            skip("a GPU type has no id")
            continue
        if gpu == NO_GPU or not rows.flag(row, cloud.lower()):
            continue  # not sold in this cloud, whatever price is said
        try:
            base = _offer(row, gpu, wanted, cloud, now=now, simulated=simulated)
        except ValueError as error:  # `InvalidValue` is one
            skip(f"{gpu} makes no sense: {error}")
            continue
        if base is None:
            skip(f"{gpu} has no sound price or memory in the {cloud.lower()} cloud")
            continue
        if (_part(row, "maxCount", cloud) or wanted.count) < wanted.count:
            continue
        for rank, offer in _places(row, base):
            made.setdefault(offer.id, (rank, offer))
    return list(made.values())


def _offer(
    row: Row, gpu: str, wanted: Wanted, cloud: Cloud, *, now: float, simulated: bool
) -> Offer | None:
    """What all offers of one GPU type in one cloud have in common."""
    each, vram = _part(row, "price", cloud), rows.number(row, "memory")
    if each is None or each <= 0 or vram is None or vram <= 0:
        return None
    machine, disk = each * wanted.count, _DISK * wanted.disk / _HOURS_PER_MONTH
    # The rate of a pod is told in cents, perhaps: one that was rounded up is not dearer than agreed.
    total = (machine + disk).quantize(_CENT, ROUND_CEILING)
    name = gpu_name(gpu, vram)
    certain = TRUST[cloud] is TrustTier.DATACENTER  # that TCP ports are public
    floor = () if wanted.cuda is None else (f"CUDA {wanted.cuda}",)
    extra = {"gpu": gpu, "cloud": cloud.value, "count": str(wanted.count)}
    return Offer(
        id="/".join((cloud.value, gpu, str(wanted.count), *floor)),
        price=Price(machine=Money(machine), disk=Money(total - machine)),
        gpu=name,
        count=wanted.count,
        vram=vram,
        compute_capability=gpu_compute_capability(name),
        cuda=None if wanted.cuda is None else float(wanted.cuda),
        disk=float(wanted.disk),
        trust=TRUST[cloud],
        open_ports=None if certain else 0,
        ssh=certain or wanted.try_ssh,
        expires_at=now + EXPIRY,
        simulated=simulated,
        extra=extra if wanted.cuda is None else {**extra, "cuda": wanted.cuda},
    )


def _part(row: Row, name: str, cloud: Cloud) -> Decimal | None:
    """One cloud's part of what is said for each cloud."""
    return rows.decimal(rows.table(row.get(name)) or {}, cloud.lower())


def _places(row: Row, base: Offer) -> Iterable[tuple[int, Offer]]:
    """One offer for each country that has some; one for anywhere, where no data centre is named."""
    stock = rows.text(row, "availability")
    named = rows.entries(row.get("dataCenters")) or []
    if stock and stock not in STOCK:
        return
    countries: dict[str, list[tuple[int, str]]] = {}
    for place in filter(None, map(rows.table, named)):
        level, id_ = rows.text(place, "availability"), rows.text(place, "id")
        if level in STOCK and _ID.fullmatch(id_):
            countries.setdefault(country(id_), []).append((STOCK.index(level), id_))
    for region, found in countries.items():
        found.sort()
        yield found[0][0], _placed(base, region, [id_ for _, id_ in found])
    if not named and stock:
        yield STOCK.index(stock), base


def _placed(base: Offer, region: str, ids: list[str]) -> Offer:
    extra: Mapping[str, str] = {**base.extra, "dataCenters": ",".join(ids)}
    return replace(base, id=f"{base.id}/{region}", region=region, extra=extra)


def country(data_centre: str) -> str:
    """The two letters of the country that a data centre is in; its id, where that is not clear."""
    match = _DATA_CENTRE.fullmatch(data_centre)
    if match is not None and match[1] in COUNTRIES:
        return match[1]
    if match is not None and match[1] in CONTINENTS and len(match[2]) == 2:
        return match[2]
    return data_centre
