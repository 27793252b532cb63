"""``gpubroker offers``: what could be rented now, and why not the rest."""

from __future__ import annotations

import time

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.decisions import plan_page
from gpubroker.cli.ledger import opened
from gpubroker.cli.screen import show, show_json
from gpubroker.model.codec import to_plain
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.money import parse_money
from gpubroker.model.requirements import Requirements
from gpubroker.policy.policy import Policy
from gpubroker.settings import Settings


def offers(
    settings: Settings,
    wanted: tuple[Requirements, ...],
    policy: Policy,
    *,
    budget: str | None,
    rejected_too: bool,
    as_json: bool,
) -> int:
    """Show the plan; 125 if nothing fits."""
    limit = None if budget is None else parse_money("budget", budget)

    async def ask() -> DecisionRecord:
        async with AsyncBroker(settings=settings, sweep=False) as broker:
            return await broker.quote(wanted, policy=policy, budget=limit)

    record = anyio.run(ask)
    if as_json:
        show_json(to_plain(DecisionRecord, record))
    else:
        with opened(settings) as ledger:
            cooldowns, _ = ledger.memory()
        show(
            plan_page(
                record,
                ranking=policy.rank.name,
                cooldowns=cooldowns,
                now=time.time(),
                rejected_too=rejected_too,
            )
        )
    return 0 if record.ranked else 125
