"""RunPod's REST API v2 as a real HTTP server on loopback, with real pods behind it.

::

    with RunPodEmulator(seed=1) as cloud:
        cloud.faults.add("create", "drop", when="after")  # the next create loses its reply
        cloud.next_pod("pull-failure")
        ...  # rent from cloud.url with cloud.key
        assert cloud.billing_now() == ()

The same over HTTP, with the account key: ``POST /_emulator/faults`` takes ``{"endpoint": "create",
"fault": "drop", "when": "after"}``, and with the endpoint ``pod`` a fault of the next pod;
``POST /_emulator/pods/{id}`` takes ``{"fault": "dies"}``, ``POST /_emulator/stock`` takes ``{"gpu": "NVIDIA L4",
"cards": 0}``; ``GET`` reads ``/_emulator/state``, ``books`` and ``requests``. `SCENARIOS` are named sets
of the switches in `Behaviour`.

There are: the catalogue of cards and data centers; pods (create, list, show, delete, actions,
logs); the billing history of pods; the account's SSH keys; and of GraphQL the account's balance and
``podTerminate``. A change of a pod (``PATCH``) is 405, the retired API under ``/v1`` is 410, and everything
else of the vendor's document (serverless, clusters, volumes, templates, registries, processors) is 404.

It needs the extra ``sandbox``. Pods are folders with processes of the user who runs it: it is for
programs that one would run oneself, and no wall against others.

Known departures from the vendor:

- A pod is no container. Its image is neither pulled nor read; programs are this system's, its home
  is ``~``, and its first process is not number 1: ``/proc/1`` is this system's own.
- ``args`` is run as it stands, as words in JSON or as a command line; the entry point of an image is
  not known. Without ``args`` a pod does what the vendor's own images do: an SSH server where there
  is a key, and then nothing.
- There is no card but for a stand-in of ``nvidia-smi``. Where one is asked for, memory, disk and
  processor are not limited to what was rented.
- ``ssh-keygen -A`` and ``sshd`` are stand-ins, too: they put public host keys into the folder named by
  ``GPUBROKER_SSH_DIR``, which stands for ``/etc/ssh``, and have the emulator open the pod's SSH server. Of
  sshd's options ``-D``, ``-t`` and ``PermitUserEnvironment=yes`` mean something; its end is not noticed.
- But for SSH, ports of a pod are this system's own: they have the same number outside, and two
  pods cannot listen on the same one. Ports for browsers, and the SSH proxy, lead nowhere.
- Everything that may differ between accounts or is told differently by different people is a switch
  in `Behaviour`. What is told by nobody was chosen: the texts of 402 and 409, the form of paths in
  the ``errors`` of a 422, that billing begins with the order, that a stream ends with its pod, and
  that all hosts of a data center report one version of CUDA.
- Disk costs 0.10 USD per GB and month of 730 hours, and is a part of ``cost``.
- Mounts are billed, and nothing is mounted.
- Secrets in variables are not replaced. Names of images, registries and mounts are not looked up.
- All keys have every permission but one, which may only read; requests with any key are counted
  in the same windows.
- Containment on Linux is by a variable in each process's environment: a program that wipes its
  environment and leaves its parents outlives its pod. Elsewhere only the SSH server and the main
  process are ended for sure.
"""

from __future__ import annotations

from gpubroker_runpod.emulator.cloud import RunPodEmulator
from gpubroker_runpod.emulator.scenarios import SCENARIOS, Behaviour

__all__ = ["SCENARIOS", "Behaviour", "RunPodEmulator"]
