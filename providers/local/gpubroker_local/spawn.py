"""Starting a lease's runner, and waiting until it says that it is ready."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio

from gpubroker import ErrorKind, ProviderError, Scope
from gpubroker_local.leases import LeaseFolder

_PACKAGES: Final = Path(__file__).parent.parent
_START: Final = (
    "import sys; sys.path.append(sys.argv.pop()); from gpubroker_local.runner import main; main()"
)
#: Seconds a runner may take to start; it takes a hundredth.
_PATIENCE: Final = 20.0

#: Runners that this process started and that the kernel keeps until they are waited for.
_children: set[int] = set()


def start_runner(
    lease: LeaseFolder, env: dict[str, str], *, deadline: float, lock: int, cards: Sequence[int]
) -> tuple[int, int]:
    """Start the runner of a lease.

    The runner gets `lock` and `cards`, descriptors that stay the caller's to close.

    Returns:
        Its pid, and the descriptor from which one byte comes when it is ready, to be closed.
    """
    ready, announce = os.pipe()
    try:
        inherited = [lock, announce, *cards]
        # Numbers above all of them, so that no copy overwrites one that is still to be copied.
        targets = range(max(inherited) + 1, max(inherited) + 1 + len(inherited))
        copies = [(os.POSIX_SPAWN_DUP2, *pair) for pair in zip(inherited, targets, strict=True)]
        log = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        python = _python()
        words = [python, "-I", "-S", "-c", _START, str(lease.path), repr(deadline)]
        pid = os.posix_spawn(
            python,
            [*words, str(targets[0]), str(targets[1]), str(_PACKAGES)],
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(lease.path / "runner.log"), log, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                *copies,
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
        )
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(announce)
    _children.add(pid)
    return pid, ready


async def wait_ready(lease: LeaseFolder, ready: int) -> None:
    """Wait until the runner serves its folder.

    Raises:
        ProviderError: it died, or did not get there in time.
    """
    problem = "it took too long"
    with anyio.move_on_after(_PATIENCE):
        await anyio.wait_readable(ready)
        if os.read(ready, 1):
            return
        problem = _last_words(lease)
    raise ProviderError(
        f"the runner of lease {lease.id} did not start: {problem}",
        kind=ErrorKind.HOST_BROKEN,
        scope=Scope.HOST,
    )


def bury(pid: int) -> None:
    """Let the kernel forget a runner that this process started, if it has ended."""
    if pid in _children:
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid
        if ended:
            _children.discard(pid)


def bury_all() -> None:
    """`bury` every runner that this process started."""
    for pid in list(_children):
        bury(pid)


def _last_words(lease: LeaseFolder) -> str:
    try:
        lines = (lease.path / "runner.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it ended at once"


def _python() -> str:
    """An interpreter like this one, even where another program has it built in (uWSGI)."""
    own = sys.executable or ""
    if re.match(r"^(python|pypy)", Path(own).name):
        return own
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return str(Path(sys.base_prefix) / "bin" / f"python{version}")
