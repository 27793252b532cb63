"""``gpubroker ps``: the leases of this ledger. Opens no provider."""

from __future__ import annotations

import time

from gpubroker.cli.ledger import opened
from gpubroker.cli.render import LeaseLine, leases_page
from gpubroker.cli.screen import show, show_json
from gpubroker.ledger.ledger import Ledger
from gpubroker.lifecycle.owner import Identity
from gpubroker.model.codec import to_plain
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.policy.pricing import spent
from gpubroker.settings import Settings


def ps(settings: Settings, *, open_only: bool, as_json: bool) -> int:
    """Show the leases, and when each provider was last swept."""
    now = time.time()
    with opened(settings) as ledger:
        lines = _lines(ledger, now, open_only=open_only)
        swept = ledger.swept()
    if as_json:
        show_json({"leases": [_plain(line) for line in lines], "swept": swept})
    else:
        show(leases_page(lines, swept, now, open_only=open_only))
    return 0


def _lines(ledger: Ledger, now: float, *, open_only: bool) -> list[LeaseLine]:
    viewer = Identity.own("ps")
    owners = ledger.owners()
    return [
        LeaseLine(
            lease=lease,
            cost=lease.spent if lease.state is LeaseState.RELEASED else spent(lease, now),
            alive=viewer.alive(owners.get(lease.owner), now) if lease.state.open else None,
        )
        for lease in ledger.leases(open_only=open_only)
    ]


def _plain(line: LeaseLine) -> dict[str, object]:
    row = to_plain(LeaseRow, line.lease)
    return {**row, "cost": f"{line.cost.amount:f}", "owner_alive": line.alive}
