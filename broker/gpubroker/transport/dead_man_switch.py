"""A machine's own way to end: shell for a deadline, a broker that fell silent, and the request.

Nothing counts on it. It is what is left when no broker runs anywhere.
"""

from __future__ import annotations

from typing import Final

SILENCE: Final = 900.0
"""Seconds without a sign of life from the broker after which a machine destroys itself."""

#: The key reaches the programs through files and the environment, since anybody may read a
#: process's arguments. A program's own agent is turned away by some servers.
_ASK: Final = """\
ask() {
umask 77
printf 'user-agent = "gpubroker"\\nheader = "Authorization: Bearer %s"\\n' "$k" >curlrc
printf 'user_agent = gpubroker\\nheader = Authorization: Bearer %s\\n' "$k" >wgetrc
j='Content-Type: application/json'
curl -sfm 60 -K curlrc -X $1 ${3:+-H "$j" -d "$3"} "$2" ||
WGETRC=wgetrc wget -qO- -t 1 -T 60 --max-redirect=0 --method=$1 ${3:+--header="$j" --body-data="$3"} "$2" ||
k=$k python3 -c 'import os,sys
from urllib.request import *
m,u,*b=sys.argv[1:]
h={"Authorization":"Bearer "+os.environ["k"],"User-Agent":"gpubroker"}
if b:h["Content-Type"]="application/json"
urlopen(Request(u,b[0].encode() if b else None,h,method=m),timeout=60)' "$@"
}
"""

_WATCH: Final = """\
cd ~/.gpubroker || cd /tmp
now=$(date +%s)
[ -s deadline ] || echo $((now+@LIFETIME@)) >deadline
end=$(cat deadline)
[ "$end" -gt 0 ] || end=$((now+@LIFETIME@))
while :; do
now=$(date +%s)
beat=$(date -r heartbeat +%s) || beat=$now
if [ "$now" -ge "$end" ] || [ $((now-beat)) -ge @SILENCE@ ]; then destroy; fi
w=$((end-now))
[ $w -gt 0 ] && [ $w -lt @PAUSE@ ] || w=@PAUSE@
sleep $w
done
"""


def asking() -> str:
    """Shell that defines ``ask METHOD URL [JSON]``: send a request with the key in ``$k``.

    With curl, wget or python3, whichever is there and gets an answer that says it worked; its
    exit code says whether any did. It leaves two files in the current folder, which hold the key
    and are nobody else's to read.
    """
    return _ASK


def watch(*, lifetime: float, silence: float = SILENCE, pause: float = 20) -> str:
    """Shell that never returns, and calls ``destroy`` when it is time, again and again.

    The deadline is counted from the first start, and kept in ``~/.gpubroker``, where the broker's
    signs of life are noted too. A broker that never came is waited for until the deadline.

    Args:
        lifetime: seconds from the first start to the deadline.
        silence: seconds without a sign of life, once there was one.
        pause: seconds between two looks.
    """
    text = _WATCH.replace("@LIFETIME@", str(max(1, round(lifetime))))
    return text.replace("@SILENCE@", str(round(silence))).replace("@PAUSE@", f"{pause:g}")
