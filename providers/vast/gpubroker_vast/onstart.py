"""The script that each machine runs when it starts.

It lets the lease's key in, says which SSH host keys are its own, and arms the dead-man switch. It
is run again whenever the container starts again, so everything in it may be done twice.
"""

from __future__ import annotations

import re
from typing import Final

from gpubroker import ErrorKind, ProviderError, Scope
from gpubroker.transport.dead_man_switch import SILENCE, asking, watch
from gpubroker.transport.host_identity import announcement

LIMIT: Final = 4000
"""Characters that a script may have; the vendor's own documents differ, and all allow these."""

_KEY: Final = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/=]+(?: [A-Za-z0-9@._:-]*)?")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.:/\[\]-]+")

_SCRIPT: Final = """\
export HOME="${{HOME:-/root}}"
touch ~/.no_auto_tmux
mkdir -p ~/.gpubroker ~/.ssh
chmod 700 ~/.gpubroker ~/.ssh
{let_in}
{announcement}
cat >~/.gpubroker/watch <<'END'
k=${{CONTAINER_API_KEY:-$(cat ~/.vast_api_key)}}
i=${{CONTAINER_ID:-${{VAST_CONTAINERLABEL#C.}}}}
{ask}destroy() {{
ask DELETE "{api}/api/v0/instances/$i/"
}}
{watch}END
nohup sh ~/.gpubroker/watch >/dev/null 2>&1 </dev/null &
"""


def script(
    *,
    api: str,
    nonce: str,
    public_key: str,
    lifetime: float,
    silence: float = SILENCE,
    pause: float = 20,
) -> str:
    """The start script of one machine.

    Args:
        api: address of the API that the machine destroys itself through.
        nonce: printed beside its host keys; nothing is printed where it is empty.
        public_key: let in, besides the keys that the vendor puts there.
        lifetime: seconds from its first start after which it destroys itself.
        silence: seconds without a heartbeat, once there was one, that end it too.
        pause: seconds between two looks.

    Raises:
        ProviderError: what was ordered cannot stand in a script.
    """
    if public_key and not _KEY.fullmatch(public_key):
        raise _unfit("the public key is not one line of OpenSSH's")
    if not _URL.fullmatch(api):
        raise _unfit("the API's address has characters that no script may have")
    text = _SCRIPT.format(
        let_in=_let_in(public_key) if public_key else ":",
        announcement=announcement(nonce).strip() if nonce else ":",
        api=api,
        ask=asking(),
        watch=watch(lifetime=lifetime, silence=silence, pause=pause),
    )
    if len(text) > LIMIT:
        raise _unfit(f"the start script has {len(text)} characters, and {LIMIT} are allowed")
    return text


def _let_in(public_key: str) -> str:
    keys = "~/.ssh/authorized_keys"
    return f"""\
grep -qsF '{public_key}' {keys} || printf '\\n%s\\n' '{public_key}' >>{keys}
chmod 600 {keys}"""


def _unfit(problem: str) -> ProviderError:
    return ProviderError(problem, kind=ErrorKind.BAD_REQUEST, scope=Scope.PROVIDER)
