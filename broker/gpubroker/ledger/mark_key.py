"""The key that marks are made with: a 0600 file beside the ledger, or ``GPUBROKER_MARK_KEY``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gpubroker.errors import InvalidValue, LedgerUnusable


def load_mark_key(ledger: Path | None, environ: Mapping[str, str], entropy: bytes) -> bytes:
    """The key of this ledger; made from `entropy` (32 random bytes) where there is none yet.

    Raises:
        InvalidValue: ``GPUBROKER_MARK_KEY`` is set and shorter than 32 characters.
        LedgerUnusable: the file cannot be made or read, or others may read it.
    """
    shared = environ.get("GPUBROKER_MARK_KEY")
    if shared:
        if len(shared) < 32:
            raise InvalidValue("GPUBROKER_MARK_KEY", "…", "must have at least 32 characters")
        return shared.encode()
    if ledger is None:
        return entropy
    path = ledger.with_name(ledger.name + ".key")
    try:
        _make(path, entropy)
        if path.stat().st_mode & 0o077:
            raise LedgerUnusable(f"{path} may be read by others; run: chmod 600 {path}")
        return bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise LedgerUnusable(f"cannot use the mark key {path}: {error}") from error


def _make(path: Path, entropy: bytes) -> None:
    """Write a new key whole or not at all: another process may be doing the same."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(entropy.hex())
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # somebody else's key came first, and counts
    finally:
        draft.unlink()
