"""``gpubroker explain``: the decision record, for people."""

from __future__ import annotations

import time

from gpubroker.cli.decisions import record_page
from gpubroker.cli.ledger import opened
from gpubroker.cli.screen import say, show, show_json
from gpubroker.errors import InvalidValue
from gpubroker.ledger.ledger import Ledger
from gpubroker.model.codec import to_plain
from gpubroker.model.decisions import DecisionRecord
from gpubroker.settings import Settings


def explain(settings: Settings, lease_id: str | None, *, as_json: bool) -> int:
    """Show the record of a lease, or the newest one."""
    with opened(settings) as ledger:
        record = _record(ledger, lease_id)
        cooldowns, _ = ledger.memory()
    if as_json:
        show_json({} if record is None else to_plain(DecisionRecord, record))
    elif record is None:
        say(f"nothing was ever asked for with {settings.ledger}")
    else:
        show(record_page(record, cooldowns=cooldowns, now=time.time()))
    return 0


def _record(ledger: Ledger, lease_id: str | None) -> DecisionRecord | None:
    if lease_id is None:
        return ledger.record()
    lease = ledger.lease(lease_id)
    record = ledger.record(lease_id if lease is None else lease.request_id)
    if record is None:
        known = [row.id for row in ledger.leases(open_only=False, limit=1000)]
        raise InvalidValue.unknown("lease", lease_id, known, noun="lease or request")
    return record
