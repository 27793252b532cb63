"""What is to be put into a job's folder, known before anything is sent."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpubroker.errors import ErrorKind, ProviderError, Scope

#: Most files of one job: more is a slip, such as a home folder.
MAX_FILES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or folder to be placed.

    Attributes:
        name: its name in the job's folder.
        source: the bytes, the file that they are in, or ``None`` for a folder.
        size: bytes. mode: permissions.
    """

    name: str
    source: Path | bytes | None
    size: int
    mode: int


def refused(message: str) -> ProviderError:
    """What the caller asks for cannot be done, on no machine."""
    return ProviderError(message, kind=ErrorKind.BAD_REQUEST, scope=Scope.OFFER)


def entries(files: Mapping[str, Path | bytes]) -> list[Entry]:
    """Everything that a job's files mean, folders before what is in them.

    Links are followed. What is neither a file nor a folder, in a folder, is left out.

    Raises:
        ProviderError: one cannot be read, or two are in each other's way.
    """
    found: dict[str, Entry] = {}
    for name, source in files.items():
        try:
            for entry in _all(name, source):
                found[entry.name] = entry
                if len(found) > MAX_FILES:
                    raise refused(f"{name!r} cannot be placed: more than {MAX_FILES} files")
                entry.name.encode("utf-8", "surrogateescape")
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise refused(f"{name!r} cannot be placed: {reason}") from problem
        except UnicodeEncodeError as problem:
            raise refused(f"{name!r} cannot be placed: not a name for a file") from problem
    for name in found:
        parent = os.path.dirname(name)  # noqa: PTH120  a name on the machine
        if parent in found and found[parent].source is not None:
            raise refused(f"{name!r} cannot be placed: {parent!r} is a file")
    return list(found.values())


def _all(name: str, source: Path | bytes) -> Iterator[Entry]:
    if isinstance(source, bytes):
        yield Entry(name, source, len(source), 0o644)
    elif source.is_dir():
        yield from _folder(name, source, frozenset())
    else:
        yield _file(name, source)


def _file(name: str, source: Path) -> Entry:
    about = source.stat()
    if not stat.S_ISREG(about.st_mode):
        raise OSError(0, "not a file or folder")
    if not os.access(source, os.R_OK):
        raise PermissionError(13, "Permission denied")
    return Entry(name, source, about.st_size, stat.S_IMODE(about.st_mode) & 0o777)


def _folder(name: str, source: Path, above: frozenset[tuple[int, int]]) -> Iterator[Entry]:
    about = source.stat()
    here = about.st_dev, about.st_ino
    if here in above:
        raise OSError(0, f"{source} leads back to itself")
    yield Entry(name, None, 0, 0o755)
    for one in sorted(source.iterdir()):
        if one.is_dir():
            yield from _folder(f"{name}/{one.name}", one, above | {here})
        elif one.is_file():
            yield _file(f"{name}/{one.name}", one)
