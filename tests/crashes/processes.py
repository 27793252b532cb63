"""Victims and reapers: processes that are forked from one without threads, and end by themselves.

Everything is imported by then, so that one of them costs a few milliseconds.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
from tests.crashes.plan import Blow
from tests.crashes.points import install
from tests.crashes.scenarios import Place, hurry

from gpubroker.lifecycle import owner
from gpubroker.model.decisions import DecisionRecord

_FAILED: Final = 1
#: Exit code of a child that never came to where it was to die.
_ENDED: Final = 0


@dataclass(slots=True)
class Counting:
    """Counts points, and dies, or stands still, at one of them.

    Attributes:
        seen: how often each point was reached.
    """

    blow: Blow | None
    seen: dict[str, int] = field(default_factory=dict[str, int])

    def __call__(self, name: str) -> None:
        count = self.seen[name] = self.seen.get(name, 0) + 1
        blow = self.blow
        if blow is not None and (name, count) == (blow.point, blow.occurrence):
            os.kill(os.getpid(), blow.signal)


@dataclass(slots=True)
class Child:
    """A process of a trial."""

    pid: int
    log: Path
    told: Path
    status: int | None = None

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended or stands still; ``False`` where it does neither in time."""
        give_up = time.monotonic() + seconds
        pause = 0.001
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid:
                if os.WIFSTOPPED(status):
                    return True
                self.status = status
            elif time.monotonic() > give_up:
                return False
            else:
                time.sleep(pause)
                pause = min(pause * 1.5, 0.01)
        return True

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status is not None and os.WIFSIGNALED(self.status)

    @property
    def problem(self) -> str | None:
        """What it ended with, where that is not what it should have done."""
        if self.status is None or self.killed:
            return None
        if os.WIFEXITED(self.status) and os.WEXITSTATUS(self.status) == _ENDED:
            return None
        return self.tail()

    def tail(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def resume(self) -> None:
        """Let one that stands still go on."""
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        """End it, whatever it does."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            _, self.status = os.waitpid(self.pid, 0)

    def points(self) -> dict[str, int]:
        """What it counted, if it came to its end."""
        told: tuple[dict[str, int], list[str]] = pickle.loads(self.told.read_bytes())
        counted, modules = told
        _learn(modules)
        return counted


def _learn(modules: list[str]) -> None:
    """Import here what a child had to: the next ones find it done."""
    for name in modules:
        if name not in sys.modules and name != "__main__":
            with suppress(ImportError):
                importlib.import_module(name)
    # How records are written is worked out with the first one.
    DecisionRecord(id="", wanted="", asked_at=0.0).to_json()
    gc.collect()
    gc.freeze()


def start(
    name: str,
    place: Place,
    play: Callable[[Place], Awaitable[None]],
    *,
    backend: str = "asyncio",
    blow: Blow | None = None,
    patience: float | None = None,
) -> Child:
    """Start a process that plays, and dies at a point where it is told to.

    Args:
        patience: seconds for which its signs of life count, where that matters.
    """
    child = Child(0, place.folder / f"{name}.log", place.folder / f"{name}.points")
    sys.stdout.flush()
    sys.stderr.flush()
    child.pid = os.fork()
    if child.pid:
        return child
    code = _FAILED
    try:
        code = _inside(child, place, play, backend, blow, patience)
    except BaseException:  # noqa: BLE001 - it is in the log, and in the exit code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _inside(
    child: Child,
    place: Place,
    play: Callable[[Place], Awaitable[None]],
    backend: str,
    blow: Blow | None,
    patience: float | None,
) -> int:
    log = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tempfile.tempdir = str(place.folder)
    hurry()
    if not isinstance(place.ledger, Path):
        # All hosts of a database must have the same; a file has its own beside it.
        os.environ["GPUBROKER_MARK_KEY"] = place.folder.name.ljust(32, "-")
    if patience is not None:
        setattr(owner, "OWNER_TTL", patience)  # noqa: B010 - it is a constant everywhere else
    counting = Counting(blow)
    install(counting)

    async def work() -> Any:
        await play(place)

    anyio.run(work, backend=backend)
    child.told.write_bytes(pickle.dumps((counting.seen, sorted(sys.modules))))
    return _ENDED
