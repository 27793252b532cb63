"""What happens at the emulated Vast.ai: counted, waited for, and done by hand."""

from __future__ import annotations

from functools import partial
from typing import Final

from tests.providers import watching
from tests.providers.watching import QUICK, booting, by_hand, sent, texts, until

from gpubroker_vast.emulator import VastEmulator

__all__ = ["QUICK", "asked_for", "booting", "by_hand", "look", "sent", "texts", "until"]

look: Final = partial(watching.look, provider="vast")


def asked_for(cloud: VastEmulator) -> list[str]:
    """The offers that creates were sent for, in order."""
    return [request.parameters["id"] for request in sent(cloud, "create")]
