"""Which file systems a ledger may be on."""

from __future__ import annotations

from pathlib import Path, PurePath, PurePosixPath

import pytest

from gpubroker.errors import LedgerUnusable
from gpubroker.ledger import store
from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.mounts import network_mount

from .conftest import ENTROPY

MOUNTS = r"""
overlay / overlay rw,relatime 0 0
/dev/sda1 /home ext4 rw 0 0
server:/x /home/me/nfs nfs4 rw,vers=4.2 0 0
//server/y /mnt/my\040share cifs rw 0 0
tmpfs /home/me/nfs/local tmpfs rw 0 0
me@there:/ /mnt/ssh fuse.sshfs rw 0 0
first /mnt/twice nfs rw 0 0
/dev/sdb1 /mnt/twice ext4 rw 0 0
nonsense
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib/x", None),
        ("/home/me", None),
        ("/home/me/nfs", "nfs4"),
        ("/home/me/nfs/deep/down", "nfs4"),
        ("/home/me/nfsother", None),
        ("/home/me/nfs/local/x", None),
        ("/mnt/my share/z", "cifs"),
        ("/mnt/ssh/a", "fuse.sshfs"),
        ("/mnt/twice/a", None),
    ],
)
def test_the_nearest_and_newest_mount_decides(folder: str, kind: str | None) -> None:
    """Read from the system's own list, blanks in names included."""
    assert network_mount(PurePosixPath(folder), MOUNTS) == kind


def test_without_a_list_nothing_is_known() -> None:
    """As on systems that keep none."""
    assert network_mount(PurePosixPath("/x"), "") is None


def test_a_ledger_on_a_network_is_refused_unless_its_user_insists(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do instead."""

    def on_nfs(path: PurePath, mounts: str) -> str:
        return "nfs4"

    monkeypatch.setattr(store, "network_mount", on_nfs)

    with pytest.raises(LedgerUnusable, match=r"network file system \(nfs4\).*postgresql://"):
        Ledger(path, entropy=ENTROPY)
    assert not path.exists()

    monkeypatch.setenv("GPUBROKER_LEDGER_ANYWHERE", "1")
    Ledger(path, entropy=ENTROPY).close()
    assert path.exists()
