"""What happens at the emulated RunPod: counted, waited for, and done by hand."""

from __future__ import annotations

from functools import partial
from typing import Final

from tests.providers import watching
from tests.providers.watching import QUICK, booting, by_hand, row_of, sent, texts, until

from gpubroker_runpod.emulator import RunPodEmulator

__all__ = [
    "QUICK",
    "asked_for",
    "booting",
    "by_hand",
    "check_creates",
    "look",
    "row_of",
    "sent",
    "texts",
    "until",
]

look: Final = partial(watching.look, provider="runpod")


def asked_for(cloud: RunPodEmulator) -> list[tuple[str, str, tuple[str, ...]]]:
    """The GPU type, the cloud and the data centers that creates were sent for, in order."""
    return [
        (body["gpu"]["id"], body["cloud"], tuple(body.get("dataCenterIds", ())))
        for body in (request.body for request in sent(cloud, "create"))
    ]


def check_creates(cloud: RunPodEmulator) -> None:
    """Every create had a name of its own: none was sent twice."""
    names = [request.body["name"] for request in sent(cloud, "create")]
    assert len(set(names)) == len(names)
