"""How a machine says which SSH host keys are its own, where only its owner can read it."""

from __future__ import annotations

import re
from typing import Final

from gpubroker.errors import InvalidValue
from gpubroker.transport.ssh.known_hosts import plain_key

_WORD: Final = "GPUBROKER-HOST-KEY"
_LOG_LIMIT: Final = 4 * 1024 * 1024

# Several times, since a log may be cut, and since a server's keys may be made one after another.
_SCRIPT: Final = """\
(d=${GPUBROKER_SSH_DIR:-/etc/ssh};g=${HOME:-/root}/.gpubroker;n=0
mkdir -p "$g";(umask 77;echo @NONCE@ >"$g/nonce")
until cat "$d"/ssh_host_*_key.pub >/dev/null 2>&1||[ $n -ge 900 ];do n=$((n+1));sleep 1;done
for s in 0 2 5 10 20 20;do sleep $s
cat "$d"/ssh_host_*_key.pub|while read -r t k _;do echo "@WORD@ @NONCE@ $t $k";done
done) 2>/dev/null &
"""


def announcement(nonce: str) -> str:
    """What a machine must run when it starts, so that its log shows its host keys.

    Args:
        nonce: what the order told this machine and no other.

    Returns:
        Lines of POSIX shell, fewer than 700 characters. They go on in the background, write the
        nonce to ``~/.gpubroker/nonce``, wait for the keys in ``/etc/ssh`` (or in
        ``$GPUBROKER_SSH_DIR``), and print them a few times during the first minute.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{8,128}", nonce):
        raise InvalidValue("nonce", nonce[:80], "needs 8 to 128 letters, digits, _ or -")
    return _SCRIPT.replace("@WORD@", _WORD).replace("@NONCE@", nonce)


def host_keys(log: str, nonce: str) -> tuple[str, ...]:
    """The host keys that a machine announced with `nonce`: ``ssh-ed25519 AAAA...`` and so on.

    Of each type the last one counts: keys that an image brought along are replaced as its server
    starts. Empty where the log shows none. What else is in the log does not matter.
    """
    found: dict[str, str] = {}
    line = re.compile(rf"{_WORD} {re.escape(nonce)} ([a-z0-9-]{{1,32}} [A-Za-z0-9+/]{{16,4000}}=*)")
    for match in line.finditer(log[-_LOG_LIMIT:]):
        key = plain_key(match[1])
        if key is not None:
            found[key.split(" ")[0]] = key
    return tuple(found.values())
