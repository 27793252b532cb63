"""Hypothesis strategies: requirements, offers, and what goes wrong.

Each shrinks towards what is plainest: no constraint, a cheap ordinary offer, no fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements, TrustTier
from gpubroker.testing.fault_schedules import FAULTS, Fault
from gpubroker.testing.offers import offer

#: Canonical names, each with its GB and its compute capability.
CARDS: Final[Mapping[str, tuple[float, float]]] = {
    "RTX 4090": (24.0, 8.9),
    "RTX 3060": (12.0, 8.6),
    "A100 80GB SXM": (80.0, 8.0),
    "H100 SXM": (80.0, 9.0),
}
_REGIONS: Final = ("US", "DE", "JP")
#: The parts of `Requirements`, with what may be asked for; the easiest first.
_WANTED: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "gpu": st.sampled_from([*CARDS, ("A100", "H100")]),
    "count": st.integers(1, 8),
    "vram": st.sampled_from([8, 24, 80, "8..24"]),
    "compute_capability": st.sampled_from([8.0, 8.9, 9.0]),
    "cuda": st.sampled_from([11.8, 12.4, 13.0]),
    "cpus": st.sampled_from([1, 8, 64]),
    "ram": st.sampled_from([8, 64, 512]),
    "disk": st.sampled_from([10, 100, 1000]),
    "region": st.sampled_from(_REGIONS),
    "reliability": st.sampled_from([0.5, 0.95, 0.999]),
    "trust": st.sampled_from(list(reversed(TrustTier))),
    "download": st.sampled_from([10, 500, 5000]),
    "upload": st.sampled_from([10, 500, 5000]),
    "spot": st.sampled_from([None, False, True]),
    "max_price": st.sampled_from(["10", "1", "0.10"]),
}
#: The parts of `offer` that a vendor may leave unsaid.
_SAID: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "cuda": st.sampled_from([12.8, 11.8, None]),
    "cpus": st.sampled_from([16.0, 4.0, None]),
    "ram": st.sampled_from([64.0, 16.0, None]),
    "disk": st.sampled_from([500.0, 50.0, None]),
    "region": st.sampled_from([*_REGIONS, None]),
    "reliability": st.sampled_from([0.99, 0.7, None]),
    "trust": st.sampled_from([None, *TrustTier]),
    "download": st.sampled_from([1000.0, 50.0, None]),
    "upload": st.sampled_from([1000.0, 50.0, None]),
    "spot": st.booleans(),
    "host": st.sampled_from([None, "host-a", "host-b"]),
}


def requirements() -> st.SearchStrategy[Requirements]:
    """What machine is wanted: any part of it, or nothing in particular."""
    return _some_of(_WANTED).map(lambda parts: Requirements(**parts))


def _some_of(parts: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the parts, by name; none of them is plainest."""
    return st.fixed_dictionaries({}, optional=dict(parts))


def cents(least: int = 1, most: int = 999) -> st.SearchStrategy[str]:
    """An amount of USD in whole cents, as text; both ends are cents."""
    return st.integers(least, most).map(lambda amount: f"{amount // 100}.{amount % 100:02d}")


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    """One offer, of a GPU machine or not; what a vendor may leave unsaid is unsaid at times."""
    gpu = draw(st.sampled_from([*CARDS, None]))
    vram, capability = CARDS.get(gpu or "", (None, None))
    return offer(
        gpu,
        draw(cents()),
        id=draw(st.integers(1, 99).map("offer-{}".format)),
        count=draw(st.sampled_from([1, 2, 8])),
        vram=vram,
        compute_capability=capability,
        disk_price=draw(st.sampled_from(["0", "0.01"])),
        **draw(_some_of(_SAID)),
    )


def markets(most: int = 8) -> st.SearchStrategy[list[Offer]]:
    """Some offers of one provider, each with an id of its own."""
    return st.lists(offers(), max_size=most, unique_by=lambda each: each.id)


def faults() -> st.SearchStrategy[Fault]:
    """One thing that goes wrong in a scripted cloud."""
    return st.sampled_from(list(FAULTS)).flatmap(
        lambda what: st.builds(
            Fault,
            st.just(what),
            st.fixed_dictionaries({n: st.sampled_from(some) for n, some in FAULTS[what].items()}),
        )
    )


def fault_schedules(most: int = 6) -> st.SearchStrategy[list[Fault]]:
    """What goes wrong, to be told in this order: ``for fault in schedule: fault.tell(cloud)``."""
    return st.lists(faults(), max_size=most)
