"""Vast.ai's API as a real HTTP server on loopback, with real machines behind it.

::

    with VastEmulator(seed=1) as cloud:
        cloud.faults.add("create", "drop", when="after")  # the next create loses its reply
        cloud.next_instance("boot-failure")
        ...  # rent from cloud.url with cloud.key
        assert cloud.billing_now() == ()

The same over HTTP, with the account key: ``POST /_emulator/faults`` takes ``{"endpoint": "create",
"fault": "drop", "when": "after"}``; ``GET`` reads ``/_emulator/state``, ``books`` and ``requests``.
`SCENARIOS` are named sets of the switches in `Behaviour`.

It needs the extra ``sandbox``. Machines are folders with processes of the user who runs it: it
is for programs that one would run oneself, and no wall against others.

Known departures from the vendor:

- A machine is no container. Its image is neither pulled nor read; programs are this system's,
  its home is ``~``, and ``/root``, ``/etc/environment``, ``/workspace`` and ``/.launch`` are not made.
- There is no card but for a stand-in of ``nvidia-smi``. Where one is asked for, memory, disk and
  processor are not limited to what was rented.
- Public host keys lie in the folder named by ``GPUBROKER_SSH_DIR``, which stands for ``/etc/ssh``.
- Ports of a container are this system's own, so a mapped port has the same number outside, two
  instances cannot listen on the same one, and UDP is not mapped.
- Both ways to SSH lead to 127.0.0.1. Logins are not put into tmux. Compression and ChaCha20 are not
  offered by the built-in server.
- Traffic is free: nothing is counted at ``inet_up_cost`` and ``inet_down_cost``. A stopped instance's
  disk costs what a running one's does. A bid that wins is charged in full.
- A search refuses conditions on columns that no row has, and reads the account's offers only: no
  volumes, no ``reserved`` ones, no templates, no teams, no 2FA, no webhooks, no serverless.
- ``GET /api/v0/instances/balance/{id}/`` and invoices know no prepayment; the account has had its
  credit from the start. An account without credit is stopped, and never destroyed for it.
- Nothing answers where files are copied (``/api/v0/commands/…``), nor for prepayment, price increases,
  scheduled jobs, new templates of an instance or new keys of the account: 404, in HTML.
- Keys of the account have every permission. A 301 leads to the path with its slash.
- Other clients of the market exist by chance only (`Behaviour.busy`, ``races``); nobody outbids
  by himself.
- A row's utilisation, temperatures and times of work are made up.
- Containment on Linux is by a variable in each process's environment: a program that wipes its
  environment and leaves its parents outlives its instance. Elsewhere only the SSH server
  and the first script are ended for sure.
"""

from __future__ import annotations

from gpubroker_vast.emulator.cloud import VastEmulator
from gpubroker_vast.emulator.scenarios import SCENARIOS, Behaviour

__all__ = ["SCENARIOS", "Behaviour", "VastEmulator"]
