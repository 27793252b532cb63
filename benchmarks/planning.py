"""From a market in memory, or from a vendor's JSON, to an ordered plan with every reason."""

from __future__ import annotations

import json
import random
import time
from decimal import Decimal
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure
from gpubroker import Money, Offer, Price, ProviderFacts, Requirements, gpu_name
from gpubroker.policy.plan import Market, Terms, plan

_CARDS = (
    ("RTX 4090", 24.0, 8.9, 0.35),
    ("RTX 3090", 24.0, 8.6, 0.18),
    ("RTX A6000", 48.0, 8.6, 0.45),
    ("L40S", 48.0, 8.9, 0.80),
    ("A100 SXM4", 80.0, 8.0, 1.20),
    ("H100 SXM", 80.0, 9.0, 2.10),
)
_WANTED = (
    Requirements(gpu="RTX 4090"),
    Requirements(gpu=["A100", "H100"], region=["US", "CA"]),
    Requirements(vram="40GB..", max_price="1.00"),
    Requirements(vram="24GB..", reliability=0.97, download=500, cpus="8.."),
    Requirements(count="1..2", vram="1GB.."),
)
_FACTS = {"market": ProviderFacts(paid=True)}


def plans(rounds: int, home: Path) -> list[Figure]:
    """Ten thousand offers, and a hundred thousand, to a plan; and 64 rows of JSON to one."""
    del home
    figures = [_of_size(10_000, rounds, 25.0), _of_size(100_000, max(1, rounds // 5), None)]
    return [*figures, _from_json(rounds)]


def _of_size(size: int, rounds: int, limit: float | None) -> Figure:
    offers = [_offer(row) for row in _rows(size)]
    ours: list[float] = []
    floor: list[float] = []
    for _ in range(rounds):
        for wanted in _WANTED:
            began = time.perf_counter()
            verdicts = plan(Market(offers=[offers], facts=_FACTS, now=0.0), [wanted], Terms())
            planned = time.perf_counter()
            sorted(
                (o for o in offers if o.vram is not None and o.vram >= 24),
                key=lambda o: o.price.hourly_usd,
            )
            ours.append(planned - began)
            floor.append(time.perf_counter() - planned)
            if len(verdicts) != size:
                raise RuntimeError("an offer has no verdict")
    return Figure(
        what=f"{size:,} offers to a plan with every reason",
        value=median(ours) * 1000,
        unit="ms",
        beside="one condition and a sort, no reasons",
        other=median(floor) * 1000,
        limit=limit,
        note=f"median of {len(_WANTED)} requirements; the slowest took {max(ours) * 1000:.1f} ms",
    )


def _from_json(rounds: int) -> Figure:
    body = json.dumps({"offers": list(_rows(64))}).encode()
    ours: list[float] = []
    floor: list[float] = []
    for _ in range(rounds * 10):
        began = time.perf_counter()
        rows = json.loads(body, parse_float=Decimal)["offers"]
        decoded = time.perf_counter()
        offers = [_offer(row) for row in rows]
        plan(Market(offers=[offers], facts=_FACTS, now=0.0), [_WANTED[0]], Terms())
        ours.append(time.perf_counter() - began)
        floor.append(decoded - began)
    return Figure(
        what="64 rows of JSON to a plan",
        value=median(ours) * 1000,
        unit="ms",
        beside="`json.loads` alone",
        other=median(floor) * 1000,
        limit=5,
    )


def _rows(size: int) -> list[dict[str, object]]:
    """Rows in the manner of a marketplace: always the same ones."""
    source = random.Random(7)
    rows: list[dict[str, object]] = []
    for number in range(size):
        card, vram, capability, price = source.choice(_CARDS)
        rows.append(
            {
                "id": number,
                "gpu_name": card,
                "num_gpus": source.choice((1, 1, 1, 2, 4, 8)),
                "gpu_ram": vram,
                "compute_cap": capability,
                "dph_base": round(price * source.uniform(0.8, 1.6), 6),
                "storage": round(source.uniform(0.001, 0.01), 6),
                "cpus": source.choice((4, 8, 16, 32)),
                "ram": source.choice((16, 32, 64, 128)),
                "disk": source.randint(20, 2000),
                "country": source.choice(("US", "CA", "DE", "SE", "JP")),
                "reliability": round(source.uniform(0.9, 1.0), 4),
                "down": source.randint(50, 5000),
                "machine": number // 3,
            }
        )
    return rows


def _offer(row: dict[str, object]) -> Offer:
    def number(name: str) -> float:
        return float(str(row[name]))

    return Offer(
        id=str(row["id"]),
        provider="market",
        price=Price(machine=Money(str(row["dph_base"])), disk=Money(str(row["storage"]))),
        gpu=gpu_name(str(row["gpu_name"]), number("gpu_ram")),
        count=int(number("num_gpus")),
        vram=number("gpu_ram"),
        compute_capability=number("compute_cap"),
        cpus=number("cpus"),
        ram=number("ram"),
        disk=number("disk"),
        region=str(row["country"]),
        reliability=number("reliability"),
        download=number("down"),
        host=str(row["machine"]),
    )
