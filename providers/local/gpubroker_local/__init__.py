"""This machine as a provider: its CPUs and its NVIDIA cards, for nothing or at a price you set.

A lease is one small runner process with a folder of its own. Jobs are real processes, kept apart
by folder, home and card; they are trusted as much as the user who starts them. Cards are locked
across processes, so two brokers never share one. A killed broker leaves its runner behind: it
ends itself at the lease's deadline, and any broker with the same ``directory`` finds it before.

Settings (all text, all optional):

``directory``
    where leases live; ``~/.local/state/gpubroker/local`` by default.
``lock_directory``
    where cards are locked, shared by all users; ``/tmp/gpubroker-cards`` by default.
``simulate``
    cards to pretend to have instead of the real ones: ``2x RTX 4090`` or ``RTX 4090:24GB``,
    several with commas between them. Their offers say that they are simulated.
``price``
    USD per hour for each machine; 0 by default.
``pass_env``
    names of environment variables that jobs inherit, with commas between them, besides the few
    that any program needs.
``images``
    ``true`` declares this machine's own software good enough for jobs that name an image.

Limits: what a job leaves running stays until the lease is released. Release ends everything that
descends from a job, on Linux; elsewhere only what stayed in the job's process group. Work handed
to another daemon (``docker run``, ``systemd-run``) is that daemon's. Windows is not supported.
"""

# The runner imports this package too, and its start is part of every lease's: no `typing`.
from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpubroker import AccountSettings, Emit
    from gpubroker_local.provider import LocalProvider

__all__ = ["create"]


def create(settings: AccountSettings, emit: Emit) -> LocalProvider:
    """The provider, for the broker: the entry point ``local`` names this function.

    Raises:
        InvalidValue: a setting is unknown or makes no sense.
        ProviderError: this operating system is not supported.
    """
    import os

    from gpubroker import ErrorKind, ProviderError, Scope

    if os.name != "posix":
        raise ProviderError(
            "the local provider needs Linux or macOS; on Windows run it under WSL",
            kind=ErrorKind.BAD_REQUEST,
            scope=Scope.PROVIDER,
        )
    from gpubroker_local.options import Options
    from gpubroker_local.provider import LocalProvider

    return LocalProvider(Options.read(settings), emit)
