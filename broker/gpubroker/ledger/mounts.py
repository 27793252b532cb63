"""Whether a file lies on a network: there, locks and memory maps do not keep a ledger whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath, PurePosixPath
from typing import Final

_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "glusterfs", "lustre", "9p"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse"}
)


def network_mount(path: PurePath, mounts: str) -> str | None:
    """The type of the network file system that `path` lies on; ``None`` if it is on none.

    Args:
        path: absolute, without links.
        mounts: the text of ``/proc/mounts``.
    """
    depth, found = 0, ""
    for point, kind in _mounts(mounts):
        # Of two mounts on one point the later one counts.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            depth, found = len(point.parts), kind
    return found if found in _NETWORK else None


def _mounts(text: str) -> Iterator[tuple[PurePosixPath, str]]:
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) >= 3:
            yield PurePosixPath(_unescaped(words[1])), words[2]


def _unescaped(word: str) -> str:
    """Blanks, tabs, line ends and backslashes are written as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda digits: chr(int(digits[1], 8)), word)
