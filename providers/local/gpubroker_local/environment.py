"""The environment of runners and jobs: the one place where this plugin reads its own.

A plugin must take everything from its settings, keys above all. This one stands for the machine
itself, though, and the machine's basic environment is that of the process that runs the broker.
So a fixed list of harmless names is taken over, and nothing else: API keys never reach a job.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

from gpubroker_local import processes
from gpubroker_local.leases import LeaseFolder, LeaseRecord

_BASIC: Final = (
    "PATH",
    "LANG",
    "LANGUAGE",
    "TZ",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "CUDA_HOME",
    "CUDA_PATH",
)


def basic_environment(also: Iterable[str] = ()) -> dict[str, str]:
    """What every process of a lease takes over from this one, and the names in `also`."""
    names = {*_BASIC, *also}
    return {
        name: value for name, value in os.environ.items() if name in names or name.startswith("LC_")
    }


def ownership(lease: LeaseFolder, record: LeaseRecord) -> dict[str, str]:
    """What every process of a lease is recognised by in the process table."""
    return {
        processes.MARK: record.mark,
        processes.LEASE: lease.id,
        processes.FOLDER: str(lease.path),
        processes.CARDS: ",".join(record.cards),
    }


def job_environment(
    lease: LeaseFolder,
    record: LeaseRecord,
    *,
    job_id: str,
    wanted: Mapping[str, str],
    passed_on: Iterable[str],
) -> dict[str, str]:
    """The complete environment of a job. Which cards it sees is not the job's to choose."""
    real = not record.simulated
    return {
        **basic_environment(passed_on),
        "HOME": str(lease.path / "home"),
        **record.env,
        **wanted,
        **ownership(lease, record),
        processes.JOB: job_id,
        "CUDA_VISIBLE_DEVICES": ",".join(record.cards) if real else "",
        **({} if real else {"GPUBROKER_SIMULATED_GPUS": f"{len(record.cards)}x {record.gpu}"}),
    }
