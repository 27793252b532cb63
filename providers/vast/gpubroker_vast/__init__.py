"""Vast.ai as a provider: a marketplace of other people's machines, reached over SSH.

Machines are containers. Each gets the lease's mark as its label, an SSH key of its own, and a
dead-man switch that destroys it at the lease's deadline, or 15 minutes after the last sign of
life from the broker, with a key that can do nothing else. The account's key never leaves here.

The account's key is the setting ``key`` (``VAST_API_KEY``). Settings (all text, all optional):

``url``
    where the API is, when it is not Vast.ai's own: https, or http to this machine. At a loopback
    address it is taken for an emulator, whose offers are marked as simulated.
``image``
    the container image where none is asked for; ``vastai/base-image:@vastai-automatic-tag`` by
    default: most hosts have it already, its CUDA is chosen to fit their driver, and it has
    what the dead-man switch needs (curl, wget or python3; an image without any has none).
``image_login``
    credentials for a private registry, as ``-u USER -p TOKEN registry.example.com``. They are
    sent to Vast.ai with each order, as it needs them.
``limit``
    offers to ask for in one search, at most 64; 64 by default. Vast.ai allows so many rows a day.
``pages``
    searches in a row for one request, each going on where the last one ended; 1 by default.
``bid``
    what to bid for an interruptible machine, as a multiple of its least bid; 1.05 by default. It
    is the machine's price here: all of it is taken to be charged.
``charges_after``
    seconds after a release when its bill is final; 3600 by default.

``boot_timeout``
    seconds that a machine may boot without any progress; 600 by default. Images of tens of GB on
    slow hosts need more.
``identity_timeout``
    seconds that the log of a machine that runs may take to show its host keys; 120 by default.
    After that the key it shows first is believed, and no secrets are sent there.

With a loopback ``url`` alone, where nothing can leak: ``poll_interval``, ``visibility_horizon``,
``absence_interval`` and ``release_margin`` (seconds; see `gpubroker.ProviderFacts`), and ``pacing``: ``off`` sends requests
as fast as they come.

Limits: containers only, no virtual machines; no volumes; no reserved offers. A search brings the
cheapest 64 offers that fit unless ``pages`` says more. A container that was destroyed keeps its
row for some seconds. What a stopped or outbid machine still costs is ended by destroying it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpubroker import AccountSettings, Emit
    from gpubroker_vast.provider import VastProvider

__all__ = ["create"]


def create(settings: AccountSettings, emit: Emit) -> VastProvider:
    """The provider, for the broker: the entry point ``vast`` names this function.

    Raises:
        InvalidValue: a setting is unknown or makes no sense.
    """
    from gpubroker_vast.options import Options
    from gpubroker_vast.provider import VastProvider

    return VastProvider(Options.read(settings), emit)
