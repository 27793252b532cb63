"""Files that come back from a machine, written so that no machine can write elsewhere.

Everything a machine sends is hostile: names, sizes, numbers of files. A file is written into a
private staging folder beside its destination, component by component through directory
descriptors that never follow a link, and renamed into place only when the whole result is known
to be good and is synced.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Final, Self

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.model.results import OutputFile

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Files that are synced at the same time.
_SYNCING: Final = 8
_NAME_LIMIT: Final = 255
_DEPTH_LIMIT: Final = 32


def _hostile(message: str) -> ProviderError:
    return ProviderError(message, kind=ErrorKind.HOST_BROKEN, scope=Scope.HOST)


def _impossible(name: str) -> ProviderError:
    return _hostile(f"the machine sent an output with an impossible name: {name[:80]!r}")


def components(name: str) -> tuple[str, ...]:
    """The parts of an output's name, which is not trusted.

    Raises:
        ProviderError: it could lead elsewhere, or be no name of a file here.
    """
    path = PurePosixPath(name)
    parts = path.parts
    is_text = all(not "\ud800" <= letter <= "\udfff" for letter in name)
    if not parts or path.is_absolute() or "\0" in name or "\\" in name or not is_text:
        raise _impossible(name)
    if len(parts) > _DEPTH_LIMIT or any(
        part == ".." or len(part.encode()) > _NAME_LIMIT for part in parts
    ):
        raise _impossible(name)
    return parts


class Receiver:
    """Takes the outputs of one job: staged first, moved to the destination by `commit`.

    Args:
        destination: the folder that outputs belong in. Made, if missing, when the first comes.
        max_bytes: most bytes of all files together. max_files: most files.
        room: bytes of free space to leave on the disk.
    """

    def __init__(
        self,
        destination: Path,
        *,
        token: str,
        max_bytes: int = 64 * 1024**3,
        max_files: int = 100_000,
        room: int = 256 * 1024**2,
    ) -> None:
        self.destination = destination
        self.staging = destination / f".gpubroker-{token}"
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._room = room
        self._bytes = 0
        self._received: dict[str, OutputFile] = {}
        self._unsynced: list[str] = []
        self.local_error: OSError | None = None

    def receive(self, name: str) -> ReceivedFile:
        """A place to write the output called `name` to, as a context manager."""
        with self.noting():
            return self._receive(name)

    @contextmanager
    def noting(self) -> Generator[None]:
        """Remember what goes wrong here, so that it is not laid at the machine's door."""
        try:
            yield
        except OSError as error:
            self.local_error = self.local_error or error
            raise

    def _receive(self, name: str) -> ReceivedFile:
        parts = components(name)
        if parts[0] == self.staging.name:
            raise _impossible(name)
        if len(self._received) >= self._max_files:
            raise _hostile(f"the machine sent more than {self._max_files} outputs")
        self.staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _folder(self.staging, parts[:-1]) as folder:
            try:
                descriptor = os.open(parts[-1], _NEW_FILE, 0o644, dir_fd=folder)
            except FileExistsError:
                raise _hostile(f"the machine sent two outputs of one name: {name[:80]!r}") from None
        return ReceivedFile(self, "/".join(parts), descriptor)

    def take(self, size: int) -> None:
        """Count bytes against the caps before they are written."""
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise _hostile(f"the machine sent more than {self._max_bytes} bytes of output")
        if shutil.disk_usage(self.staging).free - size < self._room:
            raise OSError(28, "no space left for the job's outputs", str(self.destination))

    def add(self, name: str, size: int, sha256: str) -> None:
        """Note an output that is whole."""
        self._unsynced.append(name)
        self._received[name] = OutputFile(path=self.destination / name, size=size, sha256=sha256)

    def drop(self, name: str, size: int) -> None:
        """Forget an output that did not come whole, so that it can be sent again."""
        self._bytes -= size
        parts = components(name)
        with _folder(self.staging, parts[:-1]) as folder, suppress(FileNotFoundError):
            os.unlink(parts[-1], dir_fd=folder)

    def reject(self, name: str) -> None:
        """Forget an output that came whole, so that it can be sent again."""
        name = "/".join(components(name))
        self.drop(name, self._received.pop(name).size)

    def sync(self) -> None:
        """Have all that was received on the disk.

        Together and at the end: file systems write many files in little more time than one.
        """
        folders: dict[tuple[str, ...], list[str]] = {}
        for name in self._unsynced:
            if name in self._received:
                *parts, last = components(name)
                folders.setdefault(tuple(parts), []).append(last)
        with self.noting(), ThreadPoolExecutor(_SYNCING) as threads:
            for path, names in folders.items():
                with _folder(self.staging, path) as folder:
                    for _ in threads.map(partial(_sync, folder), names):
                        pass
        self._unsynced.clear()

    @property
    def count(self) -> int:
        """How many outputs are whole so far."""
        return len(self._received)

    def commit(self) -> dict[str, OutputFile]:
        """Move everything received to the destination, and say what there is.

        Raises:
            OSError: something is in the way of an output. All the others are in place, and what
                could not be placed is kept in the staging folder that the error names.
        """
        try:
            self.sync()
        except OSError as error:
            raise OSError(f"{error}; kept in {self.staging}") from error
        problems: list[str] = []
        folders: set[tuple[str, ...]] = set()
        for name in self._received:
            try:
                folders.add(self._place(components(name)))
            except (OSError, ProviderError) as error:
                problems.append(f"{name}: {error}")
        for parts in {path[:depth] for path in folders for depth in range(len(path) + 1)}:
            with _folder(self.destination, parts) as folder:
                os.fsync(folder)  # or a power loss takes the folder with all that is in it
        if problems:
            raise OSError(f"{'; '.join(problems)}; kept in {self.staging}")
        self.discard()
        return dict(self._received)

    def _place(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        with (
            _folder(self.staging, parts[:-1]) as source,
            _folder(self.destination, parts[:-1]) as target,
        ):
            os.replace(parts[-1], parts[-1], src_dir_fd=source, dst_dir_fd=target)
        return parts[:-1]

    def discard(self) -> None:
        """Remove what is still staged."""
        if self.staging.exists():
            shutil.rmtree(self.staging, ignore_errors=True)


class ReceivedFile:
    """One output being written; whole once its ``with`` block ends well."""

    def __init__(self, receiver: Receiver, name: str, descriptor: int) -> None:
        self._receiver = receiver
        self._name = name
        self._file = os.fdopen(descriptor, "wb")
        self._digest = hashlib.sha256()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._size

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes so far (hex)."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Add bytes at the end."""
        # Counted first, on both sides: what was not written is given back by `drop`.
        self._size += len(data)
        with self._receiver.noting():
            self._receiver.take(len(data))
            self._digest.update(data)
            self._file.write(data)

    def close(self, *, whole: bool) -> None:
        """Write no more. What is not `whole` is thrown away, and can be sent again."""
        done = False
        try:
            with self._receiver.noting():
                self._file.close()
            done = whole
        finally:
            if done:
                self._receiver.add(self._name, self._size, self.sha256)
            else:
                self._receiver.drop(self._name, self._size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(whole=error is None)


def discard_staged(destination: Path, job_id: str) -> None:
    """Remove what processes that are gone had staged of a job's outputs."""
    with suppress(OSError):
        for path in destination.iterdir():
            if path.name == f".gpubroker-{job_id}" or path.name.startswith(f".gpubroker-{job_id}."):
                shutil.rmtree(path, ignore_errors=True)


def _sync(folder: int, name: str) -> None:
    descriptor = os.open(name, _OLD_FILE, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _folder(root: Path, parts: tuple[str, ...]) -> Generator[int]:
    """A descriptor of the folder `parts` below `root`, made where missing, through no link."""
    root.mkdir(parents=True, exist_ok=True)
    # The root itself is the caller's and may be reached through links; what is below may not.
    descriptor = os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for part in parts:
            try:
                os.mkdir(part, 0o755, dir_fd=descriptor)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(part, dir_fd=descriptor).st_mode):
                    raise _hostile(f"output folder {part!r} is in the way of a file") from None
            below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)
