"""What a pod's container runs: the create field ``args``, as the vendor wants it.

Either the pod is reached over SSH, or it runs jobs by itself and its log says what became of
them (`gpubroker_runpod.log_work` reads it). In both, PID 1 never returns, and a dead-man switch
ends the pod with the key that the vendor gave the pod itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from gpubroker import ErrorKind, PlannedJob, ProviderError, Scope
from gpubroker.transport.dead_man_switch import SILENCE, asking, watch
from gpubroker.transport.host_identity import announcement
from gpubroker.transport.work.lines import job_lines
from gpubroker.transport.work.scripts import job_functions

LIMIT: Final = 100_000
"""Bytes that ``args`` may have within a create request; the whole of it may have 102 400."""

GRACE: Final = 600.0
"""Seconds that a pod waits for its end, once its last job has ended, before it sees to it."""

#: Seconds: a log may lose lines, and how a job ended must not be lost.
_REPEATS: Final = (1.0, 2.0, 4.0, 8.0)
_URL: Final = re.compile(r"https?://[A-Za-z0-9.:/\[\]-]+")
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{8,128}")


def ssh_command(
    *,
    api: str,
    nonce: str,
    lifetime: float,
    silence: float = SILENCE,
    pause: float = 20,
    sbin: str = "/usr/sbin",
) -> str:
    """The command of a pod that lets the key in its variable ``PUBLIC_KEY`` in over SSH.

    Args:
        api: address of the API that the pod destroys itself through.
        nonce: printed beside its host keys.
        lifetime: seconds from its first start after which it destroys itself.
        silence: seconds without a heartbeat, once there was one, that end it too.
        pause: seconds between two looks at both.
        sbin: where sshd may be besides the search path.

    Raises:
        ProviderError: what was ordered cannot stand in a command.
    """
    begin = _begin(api, nonce, watch(lifetime=lifetime, silence=silence, pause=pause))
    rest = _script("ssh").replace("@SBIN@", sbin).replace("@ANNOUNCEMENT@", announcement(nonce))
    return _args(begin + rest)


def jobs_command(
    *,
    api: str,
    nonce: str,
    lifetime: float,
    jobs: Sequence[PlannedJob],
    repeats: Sequence[float] = _REPEATS,
    grace: float = GRACE,
    pause: float = 20,
) -> str:
    """The command of a pod that runs `jobs` by itself, in this order, and never twice.

    Args:
        api: address of the API that the pod destroys itself through.
        nonce: stands in each line of the log that is not a job's own.
        lifetime: seconds from its first start after which it destroys itself.
        repeats: seconds to wait, time after time, before telling again how the jobs ended.
        grace: seconds after that after which it destroys itself too.
        pause: seconds between two attempts at it.

    Raises:
        ProviderError: what was ordered cannot stand in a command.
    """
    begin = _begin(api, nonce, watch(lifetime=lifetime, pause=pause))
    rest = _script("jobs").replace("@NONCE@", nonce)
    rest = rest.replace("@REPEATS@", " ".join(f"{seconds:g}" for seconds in repeats))
    rest = rest.replace("@GRACE@", f"{grace:g}").replace("@PAUSE@", f"{pause:g}")
    words = [word for job in jobs for word in _words(job)]
    return _args(begin + job_functions() + rest, *words)


def _begin(api: str, nonce: str, watching: str) -> str:
    if not _URL.fullmatch(api):
        raise _unfit("the API's address has characters that no script may have")
    if not _NONCE.fullmatch(nonce):
        raise _unfit("the nonce has characters that no script may have")
    text = _script("begin").replace("@ASK@", asking()).replace("@WATCH@", watching)
    return text.replace("@API@", api)


def _words(job: PlannedJob) -> tuple[str, ...]:
    limit = "-" if job.timeout is None else f"{max(job.timeout, 0.001):.3f}"
    try:
        lines = job_lines(job.argv, job.env).decode("utf-8")
    except UnicodeError:
        raise _unfit(f"the {job.purpose} has words that are no text") from None
    return job.purpose, "home" if job.shared else "work", limit, lines


def _args(script: str, *words: str) -> str:
    command = ["sh", "-c"], [script, "gpubroker", *words]
    text = json.dumps({"entrypoint": command[0], "cmd": command[1]}, ensure_ascii=False)
    size = len(json.dumps(text).encode())
    if size > LIMIT:
        raise _unfit(f"the command of the pod has {size} bytes, and {LIMIT} are allowed")
    return text


@cache
def _script(name: str) -> str:
    return _plain(files("gpubroker_runpod").joinpath("scripts", f"{name}.sh").read_text("ascii"))


def _plain(script: str) -> str:
    """A script without its comments and indents: it goes into a request of limited size."""
    lines = (line.lstrip(" ") for line in script.splitlines())
    return "".join(f"{line}\n" for line in lines if not line.startswith("#"))


def _unfit(problem: str) -> ProviderError:
    return ProviderError(problem, kind=ErrorKind.BAD_REQUEST, scope=Scope.PROVIDER)
