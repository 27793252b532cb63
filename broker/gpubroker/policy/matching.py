"""Whether an offer meets the requirements, and which one it fails first.

Requirements are turned into a list of checks once, and each offer is then put through them: a
market has thousands of offers, and one set of requirements asks for few things.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, Final

from gpubroker.model.decisions import Constraint, Rejection
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.gpus import gpu_matches
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.model.ranges import Range
from gpubroker.model.requirements import Requirements, TrustTier, version_of

Check = Callable[[Offer], Rejection | None]

#: The amounts: what the part is called in requirements and offers alike, and its unit.
_AMOUNTS: Final = (
    (Constraint.COUNT, "count", " GPUs"),
    (Constraint.VRAM, "vram", " GB"),
    (Constraint.COMPUTE_CAPABILITY, "compute_capability", ""),
    (Constraint.CUDA, "cuda", ""),
    (Constraint.CPUS, "cpus", " CPUs"),
    (Constraint.RAM, "ram", " GB"),
    (Constraint.DISK, "disk", " GB"),
    (Constraint.RELIABILITY, "reliability", ""),
    (Constraint.DOWNLOAD, "download", " Mbit/s"),
    (Constraint.UPLOAD, "upload", " Mbit/s"),
)

#: USD per hour that no machine costs: some unit was mistaken for another.
_ABSURD: Final = Money(100_000)


def reject(
    offer: Offer, requirements: Requirements, facts: ProviderFacts, now: float
) -> Rejection | None:
    """The first requirement that `offer` does not meet, or ``None`` if it meets them all.

    What the offer does not say is not met. Providers filter too, but only this decides.
    """
    for check in checks_of(requirements, facts, now):
        rejection = check(offer)
        if rejection is not None:
            return rejection
    return None


def checks_of(requirements: Requirements, facts: ProviderFacts, now: float) -> tuple[Check, ...]:
    """What `reject` asks of each offer of one provider, in order."""
    return (*_checks(requirements, facts), _price(requirements, facts, now))


def _checks(r: Requirements, facts: ProviderFacts) -> Iterator[Check]:
    """A check for each thing that is asked for, in the order in which they are reported."""
    if r.providers or r.exclude:
        yield _provider(r)
    if r.gpu:
        yield _gpu(r)
    for constraint, name, unit in _AMOUNTS:
        wanted: Range | None = getattr(r, name)
        if wanted is not None:
            yield _amount(constraint, name, wanted, unit)
    if r.region:
        yield _region(r)
    yield _trust(r, facts)
    if r.spot is not None:
        yield _spot(r.spot)
    if r.image is not None and not facts.runs_images:
        yield _always(Rejection(Constraint.IMAGE, r.image, "runs no images"))
    if r.ports and not facts.ports:
        yield _always(Rejection(Constraint.PORTS, ", ".join(map(str, r.ports)), "opens no ports"))
    elif r.ports:
        yield _ports(len(r.ports) + facts.ssh)  # SSH takes one of them
    if r.driver is not None:
        yield _driver(r.driver)
    if r.static_ip:
        yield _static_ip


def _always(rejection: Rejection) -> Check:
    return lambda _: rejection


def _provider(r: Requirements) -> Check:
    def check(offer: Offer) -> Rejection | None:
        if r.providers and offer.provider not in r.providers:
            return Rejection(Constraint.PROVIDER, ", ".join(r.providers), offer.provider)
        if offer.provider in r.exclude:
            return Rejection(Constraint.PROVIDER, f"not {offer.provider}", offer.provider)
        return None

    return check


class _Answers(dict[Any, Rejection | None]):
    """What is said of each value that an offer may have: worked out once, and shared."""

    def __init__(self, answer: Callable[[Any], Rejection | None]) -> None:
        self._answer = answer

    def __missing__(self, value: Any) -> Rejection | None:
        answer = self[value] = self._answer(value)
        return answer


def _gpu(r: Requirements) -> Check:
    text = " or ".join(r.gpu)

    def answer(gpu: str | None) -> Rejection | None:
        if any(gpu_matches(name, gpu or "") for name in r.gpu):
            return None
        return Rejection(Constraint.GPU, text, gpu or "none")

    answers = _Answers(answer)
    return lambda offer: answers[offer.gpu]


def _amount(constraint: Constraint, name: str, wanted: Range, unit: str) -> Check:
    low = -math.inf if wanted.low is None else wanted.low
    high = math.inf if wanted.high is None else wanted.high
    text = f"{wanted}{unit}"
    offered_of: Callable[[Offer], float | None] = attrgetter(name)

    def answer(offered: float | None) -> Rejection | None:
        if offered is not None and low <= offered <= high:
            return None
        if offered is not None and not math.isfinite(offered):
            # JSON has no such number: the reason would not come back as it was.
            return Rejection(constraint, text, f"{offered}{unit}")
        # As the reason is read back: a whole number is a number like any other.
        known = None if offered is None else float(offered)
        return Rejection(constraint, text, known, unit)

    answers = _Answers(answer)
    return lambda offer: answers[offered_of(offer)]


def _region(r: Requirements) -> Check:
    wanted = {name.lower() for name in r.region}
    text = " or ".join(r.region)

    def answer(region: str | None) -> Rejection | None:
        if region is not None and region.lower() in wanted:
            return None
        return Rejection(Constraint.REGION, text, region)

    answers = _Answers(answer)
    return lambda offer: answers[offer.region]


def _trust(r: Requirements, facts: ProviderFacts) -> Check:
    accepted = {tier for tier in TrustTier if r.trust.includes(tier)}

    def check(offer: Offer) -> Rejection | None:
        trust = offer.trust or facts.trust
        return None if trust in accepted else Rejection(Constraint.TRUST, str(r.trust), str(trust))

    return check


def _spot(wanted: bool) -> Check:
    words = {True: "spot", False: "on demand"}

    def check(offer: Offer) -> Rejection | None:
        if offer.spot == wanted:
            return None
        return Rejection(Constraint.SPOT, words[wanted], words[offer.spot])

    return check


def _ports(wanted: int) -> Check:
    def check(offer: Offer) -> Rejection | None:
        if offer.open_ports is None or offer.open_ports >= wanted:
            return None  # the provider as a whole opens ports, or it would not come to this
        return Rejection(Constraint.PORTS, f"{wanted} open ports", f"{offer.open_ports}")

    return check


def _driver(wanted: str) -> Check:
    least = version_of(wanted)

    def answer(driver: str | None) -> Rejection | None:
        if version_of(driver) >= least:
            return None
        return Rejection(Constraint.DRIVER, f"{wanted} or newer", driver)

    answers = _Answers(answer)
    return lambda offer: answers[offer.driver]


def _static_ip(offer: Offer) -> Rejection | None:
    if offer.static_ip:
        return None
    said = None if offer.static_ip is None else "a changing one"
    return Rejection(Constraint.STATIC_IP, "a lasting address", said)


def _price(r: Requirements, facts: ProviderFacts, now: float) -> Check:
    """Whether the price makes sense at all, still holds, and is not above what is to be paid."""
    ceiling = r.max_price
    most = math.inf if ceiling is None else float(ceiling.amount) * (1 - 1e-9)
    text = f"{ceiling}/h at most"
    nothing = Money(0)
    absurd = float(_ABSURD.amount)
    expired = Rejection(Constraint.EXPIRED, "an offer that still holds", "expired")

    def check(offer: Offer) -> Rejection | None:
        price, expires_at = offer.price, offer.expires_at
        usd = price.hourly_usd
        if price.flawed or (facts.paid and usd <= 0):
            traffic = price.flawed and price.machine >= nothing and price.disk >= nothing
            said = f"{price.least} per GB" if traffic else f"{price.hourly}/h"
            return Rejection(Constraint.PRICE_INVALID, "a price above zero", said)
        if usd >= absurd:
            return Rejection(
                Constraint.PRICE_INVALID, f"less than {_ABSURD}/h", f"{price.hourly}/h"
            )
        # The float only says where there can be no doubt; money decides.
        if usd > most and ceiling is not None and price.hourly > ceiling:
            return Rejection(Constraint.MAX_PRICE, text, usd, "/h")
        # An expiry that is no number is not later than anything, and so has passed.
        return None if expires_at is None or expires_at > now else expired

    return check
