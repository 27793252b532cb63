"""Which of the files that a job left are its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

_MAGIC: Final = frozenset("*?[")


def selected(patterns: Iterable[str], names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names that the patterns ask for, each once; and the patterns that ask for none.

    A pattern is matched part by part: ``*`` stays within one, ``**`` stands for any number of
    folders, and what names a folder asks for everything in it.
    """
    parts = {name: tuple(name.split("/")) for name in names}
    chosen: dict[str, None] = {}
    missing: list[str] = []
    for pattern in patterns:
        wanted = tuple(pattern.split("/"))
        found = [name for name, its in parts.items() if _matches(wanted, its)]
        chosen.update(dict.fromkeys(found))
        if not found:
            missing.append(pattern)
    return list(chosen), missing


def _matches(pattern: Sequence[str], name: Sequence[str]) -> bool:
    if not pattern:
        return True
    if pattern[0] == "**":
        rest = pattern[1:] or ("*",)
        return any(_matches(rest, name[start:]) for start in range(len(name)))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _matches(pattern[1:], name[1:])


def places(patterns: Iterable[str]) -> list[str]:
    """The paths that need to be looked through: what is before the first part with magic in it.

    The empty path is the whole folder.
    """
    found: set[str] = set()
    for pattern in patterns:
        parts = pattern.split("/")
        plain = next((i for i, part in enumerate(parts) if _MAGIC & set(part)), len(parts))
        found.add("/".join(parts[:plain]))
    # Each file once: not what is below another place.
    return sorted(path for path in found if not _is_below(path, found))


def _is_below(path: str, others: set[str]) -> bool:
    parts = path.split("/") if path else []
    return any("/".join(parts[:length]) in others for length in range(len(parts)))
