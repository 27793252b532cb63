"""Whether an offer meets the requirements, and which one it fails first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpubroker.model.decisions import Constraint, Rejection
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.gpus import gpu_matches
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer, Price
from gpubroker.model.ranges import Range
from gpubroker.model.requirements import Requirements

_AMOUNTS: Final[
    tuple[
        tuple[
            Constraint, Callable[[Requirements], Range | None], Callable[[Offer], float | None], str
        ],
        ...,
    ]
] = (
    (Constraint.COUNT, lambda r: r.count, lambda o: o.count, " GPUs"),
    (Constraint.VRAM, lambda r: r.vram, lambda o: o.vram, " GB"),
    (
        Constraint.COMPUTE_CAPABILITY,
        lambda r: r.compute_capability,
        lambda o: o.compute_capability,
        "",
    ),
    (Constraint.CUDA, lambda r: r.cuda, lambda o: o.cuda, ""),
    (Constraint.CPUS, lambda r: r.cpus, lambda o: o.cpus, " CPUs"),
    (Constraint.RAM, lambda r: r.ram, lambda o: o.ram, " GB"),
    (Constraint.DISK, lambda r: r.disk, lambda o: o.disk, " GB"),
    (Constraint.RELIABILITY, lambda r: r.reliability, lambda o: o.reliability, ""),
    (Constraint.DOWNLOAD, lambda r: r.download, lambda o: o.download, " Mbit/s"),
    (Constraint.UPLOAD, lambda r: r.upload, lambda o: o.upload, " Mbit/s"),
)

#: USD per hour that no machine costs: some unit was mistaken for another.
_ABSURD: Final = Money(100_000)


def reject(
    offer: Offer, requirements: Requirements, facts: ProviderFacts, now: float
) -> Rejection | None:
    """The first requirement that `offer` does not meet, or ``None`` if it meets them all.

    What the offer does not say is not met. Providers filter too, but only this decides.
    """
    r = requirements
    if r.providers and offer.provider not in r.providers:
        return Rejection(Constraint.PROVIDER, ", ".join(r.providers), offer.provider)
    if offer.provider in r.exclude:
        return Rejection(Constraint.PROVIDER, f"not {offer.provider}", offer.provider)
    if r.gpu and not any(gpu_matches(gpu, offer.gpu or "") for gpu in r.gpu):
        return Rejection(Constraint.GPU, " or ".join(r.gpu), offer.gpu or "none")
    for constraint, wanted_of, offered_of, unit in _AMOUNTS:
        wanted = wanted_of(r)
        if wanted is not None:
            offered = offered_of(offer)
            if offered is None or offered not in wanted:
                said = "not stated" if offered is None else f"{offered:g}{unit}"
                return Rejection(constraint, f"{wanted}{unit}", said)
    return _other_reasons(offer, r, facts, now)


def _other_reasons(
    offer: Offer, r: Requirements, facts: ProviderFacts, now: float
) -> Rejection | None:
    if r.region and (offer.region or "").lower() not in {name.lower() for name in r.region}:
        return Rejection(Constraint.REGION, " or ".join(r.region), offer.region or "not stated")
    trust = offer.trust or facts.trust
    if not r.trust.includes(trust):
        return Rejection(Constraint.TRUST, r.trust, trust)
    if r.spot is not None and r.spot != offer.spot:
        words = {True: "spot", False: "on demand"}
        return Rejection(Constraint.SPOT, words[r.spot], words[offer.spot])
    if r.image is not None and not facts.runs_images:
        return Rejection(Constraint.IMAGE, r.image, "runs no images")
    if r.ports and not facts.ports:
        return Rejection(Constraint.PORTS, ", ".join(map(str, r.ports)), "opens no ports")
    hourly = offer.price.hourly
    if (wrong := _senseless(offer.price, facts)) is not None:
        return Rejection(Constraint.PRICE_INVALID, "a price above zero", wrong)
    if hourly >= _ABSURD:
        return Rejection(Constraint.PRICE_INVALID, f"less than {_ABSURD}/h", f"{hourly}/h")
    if r.max_price is not None and hourly > r.max_price:
        return Rejection(Constraint.MAX_PRICE, f"{r.max_price}/h at most", f"{hourly}/h")
    # An expiry that is no number is not later than anything, and so has passed.
    if offer.expires_at is not None and not offer.expires_at > now:
        return Rejection(Constraint.EXPIRED, "an offer that still holds", "expired")
    return None


def _senseless(price: Price, facts: ProviderFacts) -> str | None:
    """What is wrong with a price: nothing is ever paid to the one who rents."""
    if min(price.machine.amount, price.disk.amount) < 0 or (facts.paid and not price.hourly):
        return f"{price.hourly}/h"
    traffic = min(price.upload, price.download, key=lambda money: money.amount)
    return f"{traffic} per GB" if traffic.amount < 0 else None
