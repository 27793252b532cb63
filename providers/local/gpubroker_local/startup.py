"""What a runner needs of slow modules, without their slow parts.

A runner's start is part of every lease's. ``signal`` makes enums and ``ctypes`` makes a type
system, which together take as long as the interpreter itself (10 ms); the built-in modules beneath
them do not. Where these are missing (other Pythons than CPython) the usual ones do.
"""

from __future__ import annotations

import sys

__all__ = ["adopt_orphans", "signal"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    try:
        import _signal as signal
    except ImportError:
        import signal

_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends. Linux only; else nothing."""
    if sys.platform != "linux":
        return
    arguments = (_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        import _ctypes

        # The empty name is this program itself, which has the C library in it.
        function = _ctypes.dlsym(_ctypes.dlopen("", 0), "prctl")
        _ctypes.call_function(function, arguments)
    except (ImportError, AttributeError, OSError):
        import ctypes

        ctypes.CDLL(None).prctl(*arguments)
