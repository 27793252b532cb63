"""The host keys that one lease's machine may present."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gpubroker.errors import InvalidValue

#: Under this name machines are known, wherever they are reached: a lease has one machine.
ALIAS: Final = "gpubroker"

_SIZE_LIMIT: Final = 4096
#: Type of key -> the signatures to ask for; the best first.
_SIGNATURES: Final = {
    "ssh-ed25519": "ssh-ed25519",
    "ecdsa-sha2-nistp256": "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384": "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521": "ecdsa-sha2-nistp521",
    "ssh-rsa": "rsa-sha2-512,rsa-sha2-256",
}


def plain_key(text: str) -> str | None:
    """``type base64`` of a public host key, or ``None`` where `text` is no whole one."""
    kind, _, encoded = text.strip().partition(" ")
    encoded = encoded.split(" ")[0]
    if kind not in _SIGNATURES or len(encoded) > _SIZE_LIMIT:
        return None
    try:
        fields = _fields(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return None
    numbers = 2 if kind == "ssh-ed25519" else 3
    if fields is None or len(fields) != numbers or fields[0] != kind.encode():
        return None
    if kind == "ssh-ed25519" and len(fields[1]) != 32:
        return None
    return f"{kind} {encoded}"


def _fields(blob: bytes) -> list[bytes] | None:
    fields: list[bytes] = []
    while blob:
        size = struct.unpack(">I", blob[:4])[0] if len(blob) >= 4 else len(blob)
        if len(blob) < 4 + size:
            return None
        fields.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    return fields


class KnownHosts:
    """One lease's file of known host keys.

    Without keys to begin with, the first machine that lets us in is believed, and from then on
    its key alone.
    """

    NAME: Final = "known_hosts"

    def __init__(self, folder: Path, host_keys: Sequence[str]) -> None:
        self._path = folder / self.NAME
        if host_keys:
            plain = [plain_key(key) for key in host_keys]
            for given, key in zip(host_keys, plain, strict=True):
                if key is None:
                    raise InvalidValue("host_keys", given[:80], "not a public host key")
            self._path.write_text("".join(f"{ALIAS} {key}\n" for key in plain))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are believed: ``type base64`` each."""
        if not self._path.exists():
            return ()
        lines = self._path.read_text(errors="replace").splitlines()
        found = (plain_key(line.partition(" ")[2]) for line in lines)
        return tuple(key for key in found if key is not None)

    def options(self) -> tuple[str, ...]:
        """OpenSSH options that let these keys through and no others."""
        file = f"UserKnownHostsFile={self.NAME}"
        kinds = {key.split(" ")[0] for key in self.keys}
        if not kinds:
            return (file, "StrictHostKeyChecking=accept-new")
        wanted = ",".join(text for kind, text in _SIGNATURES.items() if kind in kinds)
        return (file, "StrictHostKeyChecking=yes", f"HostKeyAlgorithms={wanted}")

    def forget(self) -> None:
        """Believe nobody again: whoever was met first did not let us in."""
        self._path.unlink(missing_ok=True)
