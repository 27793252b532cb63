"""``gpubroker plan``: what each way to keep machines warm would cost. Rents nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.durations import shown
from gpubroker.cli.ledger import opened
from gpubroker.cli.plan_picture import picture
from gpubroker.cli.screen import Page, Table, show, show_json
from gpubroker.cli.traffic import Said, Traffic, traffic
from gpubroker.errors import InvalidValue, NoOfferFits
from gpubroker.model.codec import to_plain
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.money import ZERO, Money
from gpubroker.model.offers import Offer, Price
from gpubroker.model.requirements import Requirements
from gpubroker.policy.experience import PRIOR_BOOT, Memory
from gpubroker.policy.outlook import Outlook, outlook, recommended, strategies
from gpubroker.policy.replay import Ground
from gpubroker.policy.schedule import Schedule
from gpubroker.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the options say of prices and machines; times in seconds, ``None`` is not said."""

    price: Money | None
    disk_price: Money | None
    cold_start: float | None
    resume: float
    quantum: float
    machines: int
    idle: float
    schedule: str | None
    max_wait: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What is shown.

    Attributes:
        source: where the price comes from. began: where the length of a cold start does.
    """

    traffic: Traffic
    price: Price
    source: str
    cold_start: float
    began: str
    outlooks: Sequence[Outlook]
    best: Outlook | None
    why: str


def plan(
    settings: Settings,
    wanted: tuple[Requirements, ...],
    said: Said,
    asked: Asked,
    *,
    svg: Path | None,
    as_json: bool,
) -> int:
    """Show what each strategy would cost; 125 if there is no price."""
    requests = traffic(said, settings.budget.timezone)
    schedule = requests.schedule
    if asked.schedule is not None:
        schedule = Schedule.parse(asked.schedule, requests.timezone)
    offer = None if asked.price is not None else _best_offer(settings, wanted)
    price = _price(asked, offer)
    cold_start, began = _cold_start(settings, asked, offer, wanted[0])
    ground = Ground(
        since=requests.since,
        until=requests.until,
        cold_start=cold_start,
        resume=min(asked.resume, cold_start),
        most=asked.machines,
    )
    outlooks = [
        outlook(requests.arrivals, strategy, ground, price, asked.quantum)
        for strategy in strategies(asked.idle, schedule)
    ]
    best = recommended(outlooks, asked.max_wait)
    planned = Planned(
        traffic=requests,
        price=price,
        source="given" if offer is None else f"{offer.title} at {offer.provider}",
        cold_start=cold_start,
        began=began,
        outlooks=outlooks,
        best=best,
        why=reason(outlooks, best, asked.max_wait),
    )
    if svg is not None:
        svg.write_bytes(picture(outlooks, requests.title, best))
    if as_json:
        show_json(as_data(planned))
    else:
        show(plan_page(planned))
    return 0


def _best_offer(settings: Settings, wanted: tuple[Requirements, ...]) -> Offer:
    from gpubroker.cli.policy import policy_of

    async def ask() -> DecisionRecord:
        async with AsyncBroker(settings=settings, sweep=False) as broker:
            return await broker.quote(wanted, policy=policy_of(settings, {}))

    record = anyio.run(ask)
    if not record.ranked:
        raise NoOfferFits("nothing that fits is on offer; --price says what to reckon with", record)
    return record.ranked[0]


def _price(asked: Asked, offer: Offer | None) -> Price:
    if asked.price is None and offer is not None:
        return offer.price if asked.disk_price is None else _split(offer.price.hourly, asked)
    return _split(asked.price or ZERO, asked)


def _split(hourly: Money, asked: Asked) -> Price:
    disk = asked.disk_price or ZERO
    if disk > hourly:
        raise InvalidValue("disk_price", disk, "is more than the whole price")
    return Price(machine=hourly - disk, disk=disk)


def _cold_start(
    settings: Settings, asked: Asked, offer: Offer | None, requirements: Requirements
) -> tuple[float, str]:
    """Seconds until a new machine works, set-up included, and where that comes from."""
    if asked.cold_start is not None:
        return asked.cold_start, "given"
    with opened(settings) as ledger:
        _, experiences = ledger.memory()
    worked = [each for each in experiences if each.successes > 0]
    if offer is None and not worked:
        return PRIOR_BOOT, "assumed; --cold-start says it"
    memory = Memory(experiences, time.time())
    if offer is None:
        provider, host = max(worked, key=lambda each: each.successes).provider, None
    else:
        provider, host = offer.provider, offer.host
    boot = memory.boot(provider, host, requirements.image, PRIOR_BOOT)
    if requirements.setup is not None:
        boot += memory.setup(provider, host, requirements.image, 60.0)
    return boot, "as seen before" if worked else "assumed; --cold-start says it"


# ---- what is shown -------------------------------------------------------------------------


def reason(outlooks: Sequence[Outlook], best: Outlook | None, max_wait: float | None) -> str:
    """The recommendation, and why, in a sentence."""
    if best is None:
        limit = shown(max_wait or 0.0)
        return f"nothing lets 95 of 100 requests wait for {limit} at most: try more machines"
    text = f"{best.strategy}: {_cents(best.month)} a month"
    always = outlooks[0]
    if best is not always and always.month:
        text += f", {1 - best.month.amount / always.month.amount:.0%} less than {always.strategy}"
    text += f", and 95 of 100 requests wait for {shown(best.wait_p95)} at most"
    quicker = [each for each in outlooks if each.built and each.wait_p95 < best.wait_p95 / 2]
    if quicker:
        other = min(quicker, key=lambda each: each.month.amount)
        text += (
            f"; {other.strategy} makes that {shown(other.wait_p95)}"
            f" for {_cents(other.month - best.month)} a month more"
        )
    return text


def plan_page(planned: Planned) -> Page:
    """The strategies side by side, and the recommendation."""
    found = planned.traffic
    columns = [
        "strategy",
        ">$/day",
        ">$/month",
        ">$/image",
        ">p50",
        ">p95",
        ">cold",
        ">h/day",
        ">x",
    ]
    return Page(
        heading=[
            f"{found.title}: {len(found.arrivals)} requests",
            f"{planned.price.hourly} an hour ({planned.source})",
            f"a cold start takes {shown(planned.cold_start)} ({planned.began})",
        ],
        tables=[Table(columns, [_row(each) for each in planned.outlooks])],
        closing=[
            "p50, p95: from a request to its result. cold: requests that a machine was started for.",
            "x: boot and idle time over the least that serves all at once. Month: 30.4 days.",
            "Stopping machines is not built: for comparison.",
            *_warnings(planned),
            f"recommended: {planned.why}",
        ],
    )


_FREE: Final = (
    "this machine costs nothing, so the prices above decide nothing: --price says what to reckon"
    " with, a vendor's key or --sandbox lets vendors take part"
)


def _warnings(planned: Planned) -> list[str]:
    """What makes the figures useless, if anything does."""
    return [] if planned.price.hourly else [_FREE]


def _row(found: Outlook) -> list[str]:
    return [
        found.strategy,
        _cents(found.day),
        _cents(found.month),
        f"${found.image.amount:.4f}",
        shown(found.latency_p50),
        shown(found.latency_p95),
        f"{found.cold:.0%}",
        f"{found.hours:.1f}",
        "-" if found.overhead is None else f"{found.overhead:.2f}",
    ]


def _cents(money: Money) -> str:
    return f"${money.amount:.2f}"


def as_data(planned: Planned) -> dict[str, Any]:
    """The same as plain data; times in seconds, money in USD."""
    return {
        "traffic": planned.traffic.title,
        "requests": len(planned.traffic.arrivals),
        "days": (planned.traffic.until - planned.traffic.since) / 86_400,
        "hourly": f"{planned.price.hourly.amount:f}",
        "disk_hourly": f"{planned.price.disk.amount:f}",
        "price_from": planned.source,
        "cold_start": planned.cold_start,
        "strategies": [to_plain(Outlook, each) for each in planned.outlooks],
        "recommended": None if planned.best is None else planned.best.strategy,
        "why": planned.why,
    }
