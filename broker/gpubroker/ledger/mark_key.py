"""The key that marks are made with: a 0600 file beside the ledger, or ``GPUBROKER_MARK_KEY``."""

from __future__ import annotations

import hashlib
import hmac
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gpubroker.errors import InvalidValue, LedgerUnusable
from gpubroker.model.places import Place, PostgresUrl

#: Bytes of a key, and characters of a shared one, below which marks could be forged.
_SHORTEST: Final = 32


def load_mark_key(
    ledger: Place | None, environ: Mapping[str, str], entropy: bytes, *, needed: bool = False
) -> bytes:
    """The key of this ledger; made from `entropy` (32 random bytes) where there is none yet.

    Args:
        needed: leases are open whose marks only the key that is there can verify.

    Raises:
        InvalidValue: ``GPUBROKER_MARK_KEY`` is shorter than 32 characters; or not set, though the
            ledger is shared by hosts, which must all have the same.
        LedgerUnusable: the file cannot be made or read, others may read it, or it is needed and
            missing.
    """
    shared = environ.get("GPUBROKER_MARK_KEY")
    if shared:
        if len(shared) < _SHORTEST:
            problem = f"must have at least {_SHORTEST} characters"
            raise InvalidValue("GPUBROKER_MARK_KEY", "…", problem)
        return shared.encode()
    if ledger is None:
        return entropy
    if isinstance(ledger, PostgresUrl):
        problem = (
            "is not set; every host of a ledger in PostgreSQL needs the same key."
            " Make one once with: openssl rand -hex 32"
        )
        raise InvalidValue("GPUBROKER_MARK_KEY", "", problem)
    path = key_file(ledger)
    if needed and not path.exists():
        raise LedgerUnusable(f"{path} is missing while leases are open; put it back")
    try:
        _make(path, entropy)
        if path.stat().st_mode & 0o077:
            raise LedgerUnusable(f"{path} may be read by others; run: chmod 600 {path}")
        key = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        raise LedgerUnusable(f"cannot use the mark key {path}: {error}") from error
    except ValueError:
        key = b""
    if len(key) < _SHORTEST:
        # Never replaced: machines that are out there carry marks made with the right one.
        raise LedgerUnusable(f"{path} holds no mark key; put back the one that belongs there")
    return key


def key_file(ledger: Path) -> Path:
    """Where the key of a ledger file is."""
    return ledger.with_name(ledger.name + ".key")


def fingerprint(key: bytes) -> str:
    """Tells two mark keys apart, and nothing else of them."""
    return hmac.new(key, b"fingerprint", hashlib.sha256).hexdigest()[:16]


def _make(path: Path, entropy: bytes) -> None:
    """Write a new key whole or not at all: another process may be doing the same."""
    if path.exists():
        return
    # A name of its own: in a container every process may have the same number.
    descriptor, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(entropy.hex())
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
        # A create may leave soon; after a power loss its mark must still verify.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        pass  # somebody else's key came first, and counts
    finally:
        Path(draft).unlink()
