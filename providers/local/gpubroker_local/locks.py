"""One lock per card, so that no two leases on this machine share one, whoever rents them.

A lock is an open, locked descriptor. The runner and every job inherit it, so that a card stays
taken as long as anything of its lease lives; the kernel gives it back after the last of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio

from gpubroker import ErrorKind, ProviderError, Scope

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: How often, and after how many seconds each, to try to be the only one that looks for cards.
_TRIES: Final = 500
_PAUSE: Final = 0.002


class CardLocks:
    """The locks of this machine's cards.

    Args:
        directory: where they are; made, for all users, if missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @asynccontextmanager
    async def picking(self) -> AsyncGenerator[None]:
        """Be the only one on this machine that looks for free cards. To be held for an instant.

        Without it, whoever looks at a card makes it seem taken, and two that want two cards each
        may get one each.

        Raises:
            ProviderError: the directory cannot be used, or somebody else does not get done.
        """
        with _trouble(self._directory), _folder(self._directory) as folder:
            for _ in range(_TRIES):
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await anyio.sleep(_PAUSE)
            else:
                raise OSError(errno.EBUSY, "another process has them locked")
            yield

    def take(self, uuids: Iterable[str], count: int) -> dict[str, int] | None:
        """Lock the first `count` of these cards that are free; call it while `picking`.

        Returns:
            Card ids and the descriptors that hold their locks, or ``None``, with nothing locked,
            if too few are free. Closing the last copy of a descriptor gives its card back.

        Raises:
            ProviderError: the directory cannot be used.
        """
        held: dict[str, int] = {}
        try:
            for uuid in uuids:
                if len(held) == count:
                    break
                descriptor = self._open(uuid)
                if _locked(descriptor):
                    held[uuid] = descriptor
                else:
                    os.close(descriptor)
        except BaseException:
            _close(held.values())
            raise
        if len(held) == count:
            return held
        _close(held.values())
        return None

    def is_free(self, uuid: str) -> bool:
        """Whether nobody holds the card now; call it while `picking`."""
        descriptor = self._open(uuid)
        try:
            return _locked(descriptor)
        finally:
            os.close(descriptor)

    def _open(self, uuid: str) -> int:
        name = f"{uuid.replace('/', '_')}.lock"
        with _trouble(self._directory), _folder(self._directory) as folder:
            while True:
                # Made and opened apart: in a sticky folder Linux refuses O_CREAT on a file that
                # another user made (fs.protected_regular).
                try:
                    descriptor = os.open(name, _FILE, dir_fd=folder)
                    break
                except FileNotFoundError:
                    _make(name, folder)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.EINVAL, f"{name} is not a file")
            return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _trouble(directory: Path) -> Generator[None]:
    try:
        yield
    except OSError as problem:
        raise ProviderError(
            f"cards cannot be locked in {directory}: {problem.strerror or problem}",
            kind=ErrorKind.HOST_BROKEN,
            scope=Scope.PROVIDER,
        ) from problem


def _make(name: str, folder: int) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, 0o644, dir_fd=folder)
    except FileExistsError:
        return  # somebody else just did
    try:
        os.fchmod(descriptor, 0o644)  # whatever the umask: other users must be able to lock it
    finally:
        os.close(descriptor)


@contextmanager
def _folder(path: Path) -> Generator[int]:
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        pass
    else:
        path.chmod(0o1777)
    descriptor = os.open(path, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
