"""Which files a job's outputs ask for."""

from __future__ import annotations

from fnmatch import fnmatchcase


def asked_for(pattern: str, name: str) -> bool:
    """Whether an output pattern of a job asks for a file of this name.

    ``*`` matches across ``/`` too, ``**/`` also matches nothing, and a folder's name asks for
    everything in it.
    """
    return (
        fnmatchcase(name, pattern)
        or fnmatchcase(name, pattern.replace("**/", ""))
        or name.startswith(pattern.rstrip("/") + "/")
    )
