"""The POSIX shell scripts that run on a machine; nothing else is needed there but ``tar``."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path
from typing import Final, Literal

Name = Literal[
    "attach", "cancel", "prepare", "unpack", "append", "list", "pack", "send", "digests"
]  # fmt: skip

_FOLDER: Final = Path(__file__).with_name("scripts")
#: What each script needs of the others, in this order.
_BEFORE: Final[dict[Name, tuple[str, ...]]] = {
    "attach": ("nap", "forget"),
    "cancel": ("nap", "stop"),
    "prepare": ("forget",),
    "unpack": ("nap", "writing"),
    "append": ("nap", "writing", "decode"),
    "list": ("decode", "folder"),
    "pack": ("folder",),
    "send": ("decode", "folder"),
    "digests": ("tick", "decode", "folder"),
}


@cache
def job_functions() -> str:
    """What a script needs that starts and stops jobs by itself: ``$job_text`` and functions."""
    return _variable("job_text", _text("job")) + _text("nap") + _text("stop")


@cache
def script(name: Name) -> str:
    """The text of a script, fixed once and for all."""
    whole = "".join(_text(part) for part in (*_BEFORE[name], name))
    if name == "attach":
        # A script starts another one by its text, so that there is nothing to install.
        return _variable("launch_text", job_functions() + _text("launch")) + whole
    return whole


def _variable(name: str, value: str) -> str:
    return f"{name}={shlex.quote(value)}\n"


def _text(name: str) -> str:
    """A script's text, without its comments: it goes into a command line."""
    lines = (_FOLDER / f"{name}.sh").read_text(encoding="ascii").splitlines()
    return "".join(f"{line}\n" for line in lines if not line.lstrip().startswith("#"))
