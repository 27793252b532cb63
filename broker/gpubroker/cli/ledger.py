"""The ledger, read directly: no provider is opened for it."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

from gpubroker.ledger.ledger import Ledger
from gpubroker.settings import Settings

#: Seconds to wait for another process that is writing.
_PATIENCE = 5.0


@contextmanager
def opened(settings: Settings) -> Generator[Ledger]:
    """The ledger of these settings; an empty one where there is none yet, and none is made."""
    path = settings.ledger if settings.ledger.exists() else None
    ledger = Ledger(path, entropy=os.urandom(5), busy=_PATIENCE)
    try:
        yield ledger
    finally:
        ledger.close()
