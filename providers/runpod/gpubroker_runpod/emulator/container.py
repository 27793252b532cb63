"""The container of a pod: its main process, and the programs that stand in for its SSH server's."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
from collections.abc import Callable
from typing import Any, Final, cast

from gpubroker.testing.emulation import PUBLIC_KEY, EmulatedMachine
from gpubroker_runpod.emulator.pods import Pod

#: What the vendor's own images do when they start: a server where there is a key, and then nothing.
_START: Final = """\
if [ -n "$PUBLIC_KEY" ]; then
  mkdir -p ~/.ssh
  echo "$PUBLIC_KEY" >> ~/.ssh/authorized_keys
  chmod 700 ~/.ssh
  chmod 600 ~/.ssh/authorized_keys
  ssh-keygen -A
  sshd
fi
echo "Start script(s) finished, Pod is ready to use."
sleep infinity & wait
"""

_KEYGEN: Final = """\
#!/bin/sh
case " $* " in *' -A '*) ;; *) exec {real} "$@" ;; esac
[ -s {keys}/{name} ] && exit 0
echo "ssh-keygen: generating new host keys: ED25519"
umask 22
echo {public} > {keys}/.new && mv {keys}/.new {keys}/{name}
"""

_SSHD: Final = """\
#!/bin/sh
stay=
for word do
  case $word in
  -[bcCEfghkopu]*) ;;
  -*t*) exit 0 ;;
  -*D*) stay=1 ;;
  esac
done
if ! [ -s {keys}/{name} ]; then
  echo "sshd: no hostkeys available -- exiting." >&2
  exit 1
fi
echo "$*" > {bell}
[ -z "$stay" ] || exec sleep 2147483647
"""


class Doorbell:
    """How a container tells the emulator that it wants its SSH server opened."""

    def __init__(self, machine: EmulatedMachine, rung: Callable[[str], None]) -> None:
        self._path = machine.folder / "doorbell"
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        # Open for writing too, or there would be an end of file whenever nobody rings.
        self._handle = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        self._rung = rung
        asyncio.get_running_loop().add_reader(self._handle, self._read)

    def _read(self) -> None:
        try:
            said = os.read(self._handle, 4096).decode(errors="replace")
        except BlockingIOError:
            return
        self._rung(said)

    def close(self) -> None:
        """Hear nothing any more. Again: nothing."""
        if self._handle >= 0:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1


def furnish(machine: EmulatedMachine) -> None:
    """Put the stand-ins on a machine that was just built, as if no host key had been made yet."""
    public = (machine.keys / PUBLIC_KEY).read_text().strip()
    (machine.keys / PUBLIC_KEY).unlink()
    words = {
        "real": shlex.quote(shutil.which("ssh-keygen") or "/usr/bin/ssh-keygen"),
        "keys": shlex.quote(str(machine.keys)),
        "name": PUBLIC_KEY,
        "public": shlex.quote(public),
        "bell": shlex.quote(str(machine.folder / "doorbell")),
    }
    machine.install("ssh-keygen", _KEYGEN.format(**words))
    machine.install("sshd", _SSHD.format(**words))


def main_process(pod: Pod) -> list[str]:
    """The words of a pod's main process; without any, what the vendor's own images do.

    Raises:
        ValueError: they cannot be read.
    """
    words = [*pod.entrypoint, *pod.command] or _words(pod.args)
    return words or ["/bin/sh", "-c", _START]


def _words(args: str) -> list[str]:
    """``args``: a JSON object with the words, or a command line."""
    if args.lstrip().startswith("{"):
        given: Any = json.loads(args)
        parts = cast("dict[str, list[object]]", given)
        return [str(w) for name in ("entrypoint", "cmd") for w in parts.get(name) or ()]
    return shlex.split(args)
