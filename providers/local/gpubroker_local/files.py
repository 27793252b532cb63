"""Files of a job: placed before it starts, found and brought back when it has ended.

The work is done by generators that stop after each piece, so that a worker thread carries it, the
event loop never waits for a disk, and a cancelled job stops copying at once.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import stat
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from anyio import to_thread

from gpubroker import ErrorKind, JobIO, ProviderError, Scope

Pieces = Generator[None, None, None]

_CHUNK: Final = 1024 * 1024
#: Bytes copied before the loop is asked again whether to go on.
_PIECE: Final = 32 * 1024 * 1024
_MAGIC: Final = frozenset("*?[")


async def in_pieces(work: Pieces) -> None:
    """Carry out `work` in worker threads, one piece after the other."""
    with closing(work):
        while await to_thread.run_sync(_step, work):
            pass


def _step(work: Pieces) -> bool:
    return next(work, work) is not work


# --------------------------------------------------------------------------------------------
# Into the machine
# --------------------------------------------------------------------------------------------


def place(files: Mapping[str, Path | bytes], folder: Path) -> Pieces:
    """Put files, folders and bytes into `folder`, under the names they are to have there.

    Raises:
        ProviderError: one cannot be read, or there is no room for it.
    """
    for name, source in files.items():
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                target.write_bytes(source)
            elif source.is_dir():
                yield from _place_folder(source, target)
            else:
                yield from _place_file(source, target)
        except OSError as problem:
            raise ProviderError(
                f"{name!r} cannot be placed: {problem.strerror or problem}",
                kind=ErrorKind.BAD_REQUEST,
                scope=Scope.OFFER,
            ) from problem


def _place_folder(source: Path, target: Path) -> Pieces:
    target.mkdir(exist_ok=True)
    for here, folders, names in os.walk(source, followlinks=True):
        there = target / Path(here).relative_to(source)
        for name in folders:
            (there / name).mkdir(exist_ok=True)
        for name in names:
            if (Path(here) / name).is_file():
                yield from _place_file(Path(here) / name, there / name)
        yield


def _place_file(source: Path, target: Path) -> Pieces:
    with source.open("rb") as reading, target.open("wb") as writing:
        since = 0
        while data := reading.read(_CHUNK):
            writing.write(data)
            since += len(data)
            if since >= _PIECE:
                since = 0
                yield
    shutil.copymode(source, target)


# --------------------------------------------------------------------------------------------
# Back from it
# --------------------------------------------------------------------------------------------


def fetch(patterns: Iterable[str], folder: Path, io: JobIO) -> Pieces:
    """Bring back every regular file in `folder` that a pattern names, each once.

    A pattern that names a folder means all the files in it. Links that lead out of `folder` are
    not followed. Patterns that name no file are reported as missing.
    """
    fetched: set[str] = set()
    for pattern in patterns:
        found = False
        for path in _matching(folder, tuple(pattern.split("/"))):
            name = path.relative_to(folder).as_posix()
            descriptor = _opened_inside(folder, path)
            if descriptor is None:
                continue
            found = True
            if name in fetched:
                os.close(descriptor)
                continue
            fetched.add(name)
            yield from _fetch_file(descriptor, name, io)
        if not found:
            io.report_missing(pattern)


def _fetch_file(descriptor: int, name: str, io: JobIO) -> Pieces:
    since = 0
    with os.fdopen(descriptor, "rb", buffering=0) as file, io.receive(name) as received:
        while data := file.read(_CHUNK):
            received.write(data)
            since += len(data)
            if since >= _PIECE:
                since = 0
                yield


def _matching(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Paths of files below `folder` that fit a pattern, given as its components."""
    if not parts:
        yield from _below(folder)
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        yield from _matching(folder, rest or ("*",))
        for name, is_folder in _entries(folder):
            if is_folder:
                yield from _matching(folder / name, parts)
    elif not _MAGIC & set(first):
        yield from _one(folder / first, rest)
    else:
        for name, _ in _entries(folder):
            if fnmatch.fnmatchcase(name, first):
                yield from _one(folder / name, rest)


def _one(path: Path, rest: tuple[str, ...]) -> Iterator[Path]:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        yield from _matching(path, rest)
    elif not rest:
        yield path


def _below(folder: Path) -> Iterator[Path]:
    for name, is_folder in _entries(folder):
        if is_folder:
            yield from _below(folder / name)
        else:
            yield folder / name


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder, in order, each with whether it is a folder itself (a link is none)."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError:
        return []


def _opened_inside(folder: Path, path: Path) -> int | None:
    """A descriptor of the regular file at `path`, unless a link leads out of `folder`."""
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(folder.resolve()):
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(real, flags)
    except (OSError, RuntimeError):
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None
