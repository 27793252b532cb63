"""``gpubroker offers``: what could be rented now, and why not the rest."""

from __future__ import annotations

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.render import plan_page
from gpubroker.cli.screen import show, show_json
from gpubroker.model.codec import to_plain
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.money import parse_money
from gpubroker.model.requirements import Requirements
from gpubroker.settings import Settings


def offers(
    settings: Settings,
    wanted: Requirements,
    *,
    budget: str | None,
    rejected_too: bool,
    as_json: bool,
) -> int:
    """Show the plan; 125 if nothing fits."""
    limit = None if budget is None else parse_money("budget", budget)

    async def ask() -> DecisionRecord:
        async with AsyncBroker(settings=settings, sweep=False) as broker:
            return await broker.quote(wanted, budget=limit)

    record = anyio.run(ask)
    if as_json:
        show_json(to_plain(DecisionRecord, record))
    else:
        show(plan_page(record, rejected_too=rejected_too))
    return 0 if record.ranked else 125
