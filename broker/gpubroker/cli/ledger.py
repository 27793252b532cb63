"""The ledger, read directly: no provider is opened for it."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

from gpubroker.ledger.ledger import Ledger
from gpubroker.model.places import PostgresUrl
from gpubroker.settings import Settings

#: Seconds to wait for another process that is writing.
_PATIENCE = 5.0


@contextmanager
def opened(settings: Settings) -> Generator[Ledger]:
    """The ledger of these settings; an empty one where there is none yet, and none is made."""
    place = settings.ledger
    there = isinstance(place, PostgresUrl) or place.exists()
    ledger = Ledger(place if there else None, entropy=os.urandom(5), busy=_PATIENCE)
    try:
        yield ledger
    finally:
        ledger.close()
