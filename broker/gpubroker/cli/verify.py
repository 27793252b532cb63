"""``gpubroker verify``: does the ledger keep its own rules?"""

from __future__ import annotations

from gpubroker.cli.ledger import opened
from gpubroker.cli.screen import Page, say, show, show_json
from gpubroker.ledger.verify import violations
from gpubroker.settings import Settings


def verify(settings: Settings, *, as_json: bool) -> int:
    """Have the engine check what it stored, and replay every event; 1 if something does not hold."""
    with opened(settings) as ledger:
        leases = ledger.leases(open_only=False)
        found = [*ledger.damage(), *violations(leases, ledger.events())]
        for concern in ledger.concerns():
            say(concern)
    if as_json:
        show_json({"leases": len(leases), "violations": found})
    else:
        counted = "1 lease" if len(leases) == 1 else f"{len(leases)} leases"
        broken = (
            f"{len(found)} violation{'s' if len(found) > 1 else ''}:" if found else "no violation"
        )
        show(Page([f"{counted}, {broken}", *found]))
    return 1 if found else 0
