"""RunPod as a provider: containers in data centres and on checked hosts, over its REST API v2.

A pod is a container. Its name, and a variable in it, hold the lease's mark. Its first process is
this plugin's own script, which never returns while the pod lives (RunPod starts a container that
ends again, and goes on billing) and destroys the pod at the lease's deadline, with the key that
RunPod puts into the pod and which is for that pod alone. The account's key never leaves here, and
the account's own list of SSH keys is left as it is.

Work reaches a pod in one of two ways, and an event of the kind ``way`` says which and why:

over SSH
    the pod has a public port for it. Jobs with files, outputs or secrets need this way.
through its log
    for a pod without a public port: its jobs stand in its command, and what they print, and their
    exit codes, are read from its log. Only for a single job without files, outputs and secrets.
    What it prints comes as lines of text in one stream, standard error among standard output: a
    line that has no newline yet comes with the next one, what is no UTF-8 is replaced, and a carriage
    return at the end of a line is dropped. The pod asks for its own cards first, and does not begin
    if they are not those of the offer. It runs nothing twice while its disk is kept; should the host
    start its container again with an empty one, the job is reported as lost and its command has run again.

The account's key is the setting ``key`` (``RUNPOD_API_KEY``). Settings (all text, all optional):

``url``
    where the API is, when it is not RunPod's own: https, or http to this machine. At a loopback
    address it is taken for an emulator, whose offers are marked as simulated.
``image``
    the container image where none is asked for; an official one with CUDA 12.8, PyTorch and an SSH
    server by default. An image without an SSH server has one installed at each start, with apt or apk.
``registry``
    RunPod's id of the credentials for a private registry.
``clouds``
    ``secure``, ``community`` or both, with a comma between; both by default. The secure cloud is
    in data centres; the community cloud is other people's machines, checked by RunPod.
``way``
    ``auto``: over SSH in the secure cloud, and through the log in the community cloud, where a public
    port is not certain; so nothing is rented there for jobs that do not allow it. ``ssh``: always
    over SSH; a community pod that turns out to have no public port is paid for until that is noticed.
    ``log``: through the log wherever the job allows it. ``auto`` by default.
``boot_timeout``
    seconds that a pod may boot without any progress; 900 by default. Images of tens of GB need more.
``identity_timeout``
    seconds that the log of a pod that runs may take to show its host keys; 120 by default.
    After that the key it shows first is believed, and no secrets are sent there.
``charges_after``
    seconds after a release when its bill is final; 3600 by default.

With a loopback ``url`` alone, where nothing can leak: ``poll_interval``, ``visibility_horizon``,
``absence_interval`` and ``release_margin`` (seconds; see `gpubroker.ProviderFacts`), and ``pacing``: ``off`` sends
requests as fast as they come.

Limits. The catalogue tells the GPU, its memory, its price and where it is in stock, and nothing
of processors, main memory, bandwidth, reliability, driver or a lasting address: offers leave these
open, so that asking for any of them rules RunPod out. An offer is one GPU type in one cloud and
one country, and no single machine. Where CUDA is asked for, it is asked for in the order too. Pods
without GPUs, interruptible pods, volumes, templates and clusters are not offered; a cluster's pods are
not listed. Disk is taken to cost 0.10 USD per GB and month of 720 hours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpubroker import AccountSettings, Emit
    from gpubroker_runpod.provider import RunPodProvider

__all__ = ["create"]


def create(settings: AccountSettings, emit: Emit) -> RunPodProvider:
    """The provider, for the broker: the entry point ``runpod`` names this function.

    Raises:
        InvalidValue: a setting is unknown or makes no sense.
    """
    from gpubroker_runpod.options import Options
    from gpubroker_runpod.provider import RunPodProvider

    return RunPodProvider(Options.read(settings), emit)
