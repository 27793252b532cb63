"""Offers as the vendor writes them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gpubroker_vast.emulator.market import Ask, Market
from gpubroker_vast.emulator.query import (
    MOST_OFFERS,
    SEARCH_DEFAULTS,
    SPECIAL,
    BadQuery,
    in_order,
    matching,
)

_SHORT = Decimal("0.0000000001")


def storage_hourly(storage_cost: Decimal, disk: Decimal) -> Decimal:
    """USD per hour for a disk: the price is for a month of 720 hours."""
    return (storage_cost * disk / 720).quantize(_SHORT)


def hardware(ask: Ask) -> dict[str, Any]:
    """What rows of offers and of contracts have in common."""
    host, card = ask.host, ask.host.card
    name, cores, clock = host.processor
    version, packed, cuda = host.driver
    return {
        "machine_id": host.machine_id,
        "host_id": host.host_id,
        "bundle_id": 600_000_000 + host.machine_id,
        "cluster_id": None,
        "hosting_type": 1 if host.datacenter else 0,
        "num_gpus": ask.count,
        "gpu_name": card.name,
        "gpu_arch": "nvidia",
        "gpu_ids": sorted(ask.slots),
        "gpu_ram": card.memory,
        "gpu_total_ram": card.memory * ask.count,
        "gpu_totalram": card.memory * ask.count,
        "gpu_frac": ask.share,
        "gpu_lanes": 16,
        "gpu_mem_bw": card.bandwidth,
        "bw_nvlink": 0.0,
        "pcie_bw": 24.1,
        "pci_gen": 4.0,
        "gpu_max_power": card.power,
        "gpu_max_temp": 85.0,
        "gpu_display_active": False,
        "compute_cap": card.capability,
        "cuda_max_good": cuda,
        "driver_version": version,
        "driver_vers": packed,
        "cpu_name": name,
        "cpu_arch": "amd64",
        "cpu_ghz": clock,
        "has_avx": 1,
        "cpu_cores": cores,
        "cpu_cores_effective": cores * ask.share,
        "cpu_ram": host.ram,
        "disk_bw": host.disk_bandwidth,
        "disk_name": "nvme",
        "inet_up": host.upload,
        "inet_down": host.download,
        "inet_up_cost": host.traffic,
        "inet_down_cost": host.traffic,
        "internet_up_cost_per_tb": host.traffic * 1000,
        "internet_down_cost_per_tb": host.traffic * 1000,
        "storage_cost": host.storage_cost,
        "total_flops": round(card.flops * ask.count, 3),
        "dlperf": round(card.flops * ask.count * 1.2, 3),
        "reliability": host.reliability,
        "reliability2": host.reliability,
        "verification": host.verification,
        "vericode": 1 if host.verification == "verified" else 0,
        "is_vm_deverified": False,
        "vms_enabled": False,
        "direct_port_count": host.ports,
        "static_ip": host.static_ip,
        "public_ipaddr": "127.0.0.1",
        "geolocation": host.place,
        "country": host.place[-2:],
        "geolocode": sum(ord(letter) for letter in host.place[-2:]),
        "os_version": "22.04",
        "mobo_name": "H12SSL-i",
        "logo": "/static/logos/vastai_small2.png",
        "webpage": None,
        "hostname": None,
        "resource_type": "gpu",
        "platform_fee": None,
        "external": host.external,
    }


def prices(base: Decimal, storage_cost: Decimal, disk: Decimal) -> dict[str, Any]:
    """The parts of a row that hang on the price and on the size of the disk."""
    storage = storage_hourly(storage_cost, disk)
    total = base + storage
    parts = {
        "gpuCostPerHour": base,
        "diskHour": storage,
        "totalHour": total,
        "discountTotalHour": 0,
        "discountedTotalPerHour": total,
    }
    return {
        "dph_base": base,
        "storage_total_cost": storage,
        "dph_total": total,
        "discounted_dph_total": total,
        "discount_rate": 0.0,
        "credit_discount_max": 0.1,
        "search": parts,
        "instance": parts,
    }


def offer_row(
    market: Market, ask: Ask, now: float, *, bid: bool, disk: Decimal, free: bool | None = None
) -> dict[str, Any]:
    """One row. The row for bids has the same id as the one for renting on demand."""
    base = market.floor(ask, now) if bid else market.price(ask, now)
    row = hardware(ask) | prices(base, ask.host.storage_cost, disk)
    ends = (int(now) // 86_400 + ask.host.days) * 86_400
    return row | {
        "id": ask.id,
        "ask_contract_id": ask.id,
        "disk_space": ask.host.disk,
        "min_bid": market.floor(ask, now),
        "is_bid": bid,
        "dlperf_per_dphtotal": round(row["dlperf"] / float(row["dph_total"]), 3),
        "flops_per_dphtotal": round(row["total_flops"] / float(row["dph_total"]), 3),
        "score": round(row["dlperf"] / float(row["dph_total"]) * ask.host.reliability, 6),
        "duration": float(ends - now),
        "start_date": float(ends - 90 * 86_400),
        "end_date": float(ends),
        "time_remaining": "",
        "time_remaining_isbid": "",
        "rentable": market.free(ask, now) if free is None else free,
        "rented": market.held(ask),
    }


def search(
    market: Market, query: Mapping[str, Any], now: float, *, ids_match: bool
) -> list[Mapping[str, Any]]:
    """The answer to a search.

    Raises:
        BadQuery: with the vendor's words.
    """
    bid = str(query.get("type", "on-demand")) in ("bid", "interruptible")
    try:
        disk = Decimal(str(query.get("allocated_storage") or 8))
        limit = int(query.get("limit") or MOST_OFFERS)
    except (ArithmeticError, ValueError):
        raise BadQuery("Invalid query: must be dict of conditions") from None
    conditions = {name: want for name, want in query.items() if name not in SPECIAL}
    rows = [offer_row(market, ask, now, bid=bid, disk=disk) for ask in market.asks.values()]
    known = {*rows[0], "verified", "datacenter"} if rows else set[str]()
    for name in conditions:
        if name not in known:
            raise BadQuery(f"Invalid query: {name} is not a valid search key")

    def column(row: Mapping[str, Any], name: str) -> Any:
        if name == "verified":
            return row["verification"] == "verified"
        if name == "datacenter":
            return row["hosting_type"] == 1
        if name == "geolocation":
            return row["country"]
        if name == "driver_version":
            return row["driver_vers"]
        if name == "id" and not ids_match:
            return None  # seen at the vendor: this filter finds nothing
        value = row[name]
        return float(value) if isinstance(value, Decimal) else value

    found = matching(rows, {**SEARCH_DEFAULTS, **conditions}, column)
    ordered = in_order(found, query.get("order") or [["score", "desc"]])
    return ordered[: max(min(limit, MOST_OFFERS), 0)]
