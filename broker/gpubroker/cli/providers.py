"""``gpubroker providers``: who takes part, who does not and why, and what is set where."""

from __future__ import annotations

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.render import providers_page
from gpubroker.cli.screen import show, show_json
from gpubroker.lifecycle.standing import ProviderStatus
from gpubroker.model.codec import to_plain
from gpubroker.settings import Setting, Settings


def providers(settings: Settings, *, balances: bool, as_json: bool) -> int:
    """Open every provider, and show how that went."""

    async def ask() -> list[ProviderStatus]:
        async with AsyncBroker(settings=settings, sweep=False) as broker:
            return await broker.providers(balances=balances)

    statuses = anyio.run(ask)
    if as_json:
        show_json(
            {
                "providers": [to_plain(ProviderStatus, status) for status in statuses],
                "settings": [to_plain(Setting, setting) for setting in settings.sources],
            }
        )
    else:
        show(providers_page(statuses, settings.sources))
    return 0
