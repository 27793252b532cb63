"""The folders of leases: the record of each, whether its runner lives, and their removal.

A runner holds a lock on its ``runner.lock`` as long as it lives. The lock is the proof of life:
unlike a pid it cannot be taken over by a stranger, and unlike a file it cannot outlive a crash.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

#: What a lease's or a job's id may look like: one plain file name.
_PLAIN: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")
_NEW: Final = ".new-"
_GONE: Final = ".gone-"
#: Seconds after which a folder that was never finished is an accident's.
_ABANDONED: Final = 60.0


def is_plain(name: str) -> bool:
    """Whether a name is safe to use as a file name here."""
    return _PLAIN.match(name) is not None


class LeaseExists(Exception):
    """There is a lease of this id already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What a lease's ``machine.json`` says. Times are Unix seconds.

    Attributes:
        cards: ids of the cards that the lease holds. simulated: they are no real ones.
        env: environment that every job of the lease gets.
    """

    mark: str
    created_at: float
    deadline: float
    gpu: str | None = None
    cards: tuple[str, ...] = ()
    simulated: bool = False
    env: Mapping[str, str] = field(default_factory=dict[str, str])


class LeaseFolder:
    """One lease's folder; the machine itself is the runner and whatever descends from it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        """The lease's id, which is the machine's too."""
        return self.path.name

    def record(self) -> LeaseRecord | None:
        """What is on record about it, if that can be read."""
        try:
            values: dict[str, Any] = json.loads((self.path / "machine.json").read_bytes())
            values["cards"] = tuple(values["cards"])
            return LeaseRecord(**values)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def runner(self) -> int | None:
        """The pid of its runner (0 while it is only starting), or ``None`` if none lives."""
        try:
            descriptor = os.open(self.path / "runner.lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.pread(descriptor, 32, 0) or 0)
        finally:
            os.close(descriptor)
        return None

    def poke(self) -> None:
        """Make the runner look at everything again."""
        poke(self.path / "inbox")

    def remove(self) -> None:
        """Take it off the list at once, then delete it. May take long: it may hold much."""
        grave = self.path.with_name(f"{_GONE}{self.id}-{secrets.token_hex(4)}")
        try:
            self.path.rename(grave)
        except OSError:
            return  # somebody else was first
        _delete(grave)


class LeaseFolders:
    """All leases below one state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def named(self, lease_id: str) -> LeaseFolder | None:
        """The folder that a lease of this id has, if the id can be one of ours."""
        return LeaseFolder(self.directory / lease_id) if is_plain(lease_id) else None

    def all(self) -> list[LeaseFolder]:
        """Every lease that has a folder."""
        try:
            names = os.listdir(self.directory)  # noqa: PTH208  names are all that is needed
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [LeaseFolder(self.directory / name) for name in names if is_plain(name)]

    def create(self, lease_id: str, record: LeaseRecord) -> tuple[LeaseFolder, int]:
        """A new lease's folder, and the descriptor of the lock that its runner must hold.

        It appears under its name only when it is whole and locked, so that nobody can take a
        lease that is being made for a dead one.

        Raises:
            LeaseExists: there is a lease of this id.
            OSError: the disk does not let us.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.directory / f"{_NEW}{lease_id}-{secrets.token_hex(4)}"
        draft.mkdir(mode=0o700)
        lock = -1
        try:
            lock = os.open(draft / "runner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (draft / "home").mkdir()
            (draft / "jobs").mkdir()
            os.mkfifo(draft / "inbox", 0o600)
            (draft / "machine.json").write_text(json.dumps(asdict(record)))
            draft.rename(self.directory / lease_id)
        except BaseException as problem:
            if lock >= 0:
                os.close(lock)
            shutil.rmtree(draft, ignore_errors=True)
            if isinstance(problem, OSError) and (self.directory / lease_id).exists():
                raise LeaseExists(f"there is a lease {lease_id} already") from problem
            raise
        return LeaseFolder(self.directory / lease_id), lock

    def clear_accidents(self) -> None:
        """Delete what crashed brokers left half made or half removed."""
        for path in self._hidden():
            if path.name.startswith(_NEW) and (
                LeaseFolder(path).runner() is not None or time.time() - _made_at(path) < _ABANDONED
            ):
                continue
            _delete(path)

    def _hidden(self) -> Iterator[Path]:
        if not self.directory.is_dir():
            return
        for name in os.listdir(self.directory):  # noqa: PTH208
            if name.startswith((_NEW, _GONE)):
                yield self.directory / name


def poke(fifo: Path) -> None:
    """Write one byte to a FIFO, if anybody listens to it."""
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(descriptor, b"!")
    except OSError:
        return  # full: it has news enough; or nobody listens any more
    finally:
        os.close(descriptor)


def _made_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _delete(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():  # a job may have taken its folders' permissions away
        for folder, _, _ in os.walk(path, onerror=None):
            os.chmod(folder, 0o700)  # noqa: PTH101
        shutil.rmtree(path, ignore_errors=True)
